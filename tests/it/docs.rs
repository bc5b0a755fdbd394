//! The documentation: links lead somewhere, lines fit a terminal, and each alert and each problem
//! code has its runbook.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tidegate_protocol::ProblemCode;

use crate::tree::{files, name, root};

/// All pages: those of `docs`, of the root, and the README of each crate.
fn pages() -> Vec<PathBuf> {
    let found = files("", &["md"]);
    assert!(found.len() > 60, "{} pages", found.len());
    found
}

/// Anchor of a heading, as web views of a repository make it.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn every_link_leads_to_a_page_and_a_heading_that_are_there() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|t| t.split(')').next()) {
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let there = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            let has_heading = heading.is_empty()
                || std::fs::read_to_string(&there).is_ok_and(|text| {
                    text.lines()
                        .filter_map(|line| line.strip_prefix('#'))
                        .any(|line| anchor(line.trim_start_matches('#')) == heading)
                });
            if !there.exists() || !has_heading {
                broken.push(format!("{}: {link}", name(&page)));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn lines_of_prose_are_shorter_than_120_characters() {
    let mut long = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for (number, line) in text.lines().enumerate() {
            // A row of a table cannot be broken.
            if line.chars().count() >= 120 && !line.starts_with('|') {
                long.push(format!("{}:{}", name(&page), number + 1));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn each_alert_and_each_problem_code_has_its_runbook_and_no_other_has() {
    let folder = root().join("docs/runbooks");
    let rules = std::fs::read_to_string(root().join("docs/prometheus/alerts.yml")).unwrap();
    let after = |word: &'static str| {
        rules
            .lines()
            .filter_map(move |line| line.trim_start().strip_prefix(word))
    };
    let mut wanted: BTreeSet<String> = after("runbook: docs/runbooks/").map(Into::into).collect();
    assert_eq!(wanted.len(), after("- alert: ").count(), "{wanted:?}");
    wanted.extend(
        ProblemCode::ALL
            .iter()
            .map(|code| format!("problem-{code}.md")),
    );
    let index = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for page in &wanted {
        assert!(index.contains(page), "the index lacks {page}");
    }
    wanted.insert("README.md".into());
    let there = std::fs::read_dir(folder).unwrap().flatten();
    let there: BTreeSet<String> = there
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(there, wanted);
}

#[test]
fn each_field_that_a_device_obeys_is_in_the_table_and_no_other_is() {
    use serde_json::{Value, json};
    use tidegate_protocol::{CheckInAnswer, Enrolled, KeyChanged, ReportsAccepted, SessionGranted};
    use tidegate_trust::assignment::Terms;
    let (id, sha256) = ("0".repeat(32), "0".repeat(64));
    let payload = json!({ "manifest": sha256, "manifest_length": 1, "bytes": 1 });
    let answer: CheckInAnswer = serde_json::from_value(json!({
        "time": 0, "reason": { "code": "no_rollout", "detail": "" }, "poll_after_s": 1,
        "restore": [payload], "key_order": "", "reported": 1,
    }))
    .unwrap();
    let terms: Terms = serde_json::from_value(json!({
        "device": format!("dev_{id}"), "nonce": "", "action": "install",
        "deployment": format!("dep_{id}"), "rollback_window_s": 1, "switch_within_s": 1,
        "again": true, "payloads": [],
    }))
    .unwrap();
    let enrolled: Enrolled = serde_json::from_value(json!({
        "device": format!("dev_{id}"), "region": "NA", "channel": "stable", "root": "",
        "no_way_back": { "code": "rollback_not_allowed", "detail": "" },
    }))
    .unwrap();
    let fields = |value: Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let session = SessionGranted {
        ticket: String::new(),
        expires_in_s: 1,
    };
    let changed = KeyChanged {
        public_key: String::new(),
    };
    let all = [
        serde_json::to_value(answer),
        serde_json::to_value(terms),
        serde_json::to_value(enrolled),
        serde_json::to_value(session),
        serde_json::to_value(changed),
        serde_json::to_value(ReportsAccepted { acknowledged: 1 }),
    ];
    let wanted: BTreeSet<String> = all.into_iter().flat_map(|v| fields(v.unwrap())).collect();
    let page = std::fs::read_to_string(root().join("docs/reference/orders.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let first = rows.map(|row| row.split('|').nth(1).unwrap());
    let told: BTreeSet<String> = first
        .flat_map(|cell| cell.split(','))
        .map(|name| name.trim().trim_matches('`').to_owned())
        .collect();
    assert_eq!(told, wanted);
}

/// People and pipelines decide by these words.
#[test]
fn each_state_of_a_rollout_is_in_the_concepts_and_in_the_document_of_the_api() {
    let docs = root().join("docs");
    let concepts = std::fs::read_to_string(docs.join("concepts.md")).unwrap();
    let api = std::fs::read(docs.join("reference/openapi.json")).unwrap();
    let api: serde_json::Value = serde_json::from_slice(&api).unwrap();
    let described = api
        .pointer("/components/schemas/RolloutView/properties/state/description")
        .unwrap();
    // In the concepts the words stand in a diagram of their ways, within one pair of backticks.
    let words = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .map(str::to_owned)
            .collect()
    };
    let (concepts, described) = (words(&concepts), words(described.as_str().unwrap()));
    for state in tidegate_domain::rollout::RolloutState::ALL {
        let word = state.to_string();
        assert!(concepts.contains(&word), "{word}");
        assert!(described.contains(&word), "{word}");
    }
}

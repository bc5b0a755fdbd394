//! Rules of the architecture: dependencies between crates, and file lengths.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::tree::{files, name, root};

/// Normal dependencies of each workspace crate, by name.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--no-deps",
            "--locked",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let list = |value: &Value| value.as_array().unwrap().clone();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let all = list(&package["dependencies"]);
            let normal = all.iter().filter(|d| d["kind"].is_null()).map(name);
            (name(package), normal.collect())
        })
        .collect()
}

/// Crates that a door may see: never another door, and never the store.
const DOOR: &[&str] = &[
    "tidegate-protocol",
    "tidegate-api",
    "tidegate-trust",
    "tidegate-domain",
    "tidegate-core",
    "tidegate-web",
];

#[test]
fn dependencies_point_one_way() {
    let allowed: &[(&str, &[&str])] = &[
        ("tidegate-protocol", &[]),
        ("tidegate-trust", &["tidegate-protocol"]),
        ("tidegate-delta", &["tidegate-protocol"]),
        ("tidegate-apply", &["tidegate-delta"]),
        ("tidegate-domain", &["tidegate-protocol"]),
        ("tidegate-api", &["tidegate-protocol", "tidegate-domain"]),
        (
            "tidegate-store",
            &["tidegate-protocol", "tidegate-domain", "tidegate-delta"],
        ),
        (
            "tidegate-core",
            &[
                "tidegate-protocol",
                "tidegate-api",
                "tidegate-trust",
                "tidegate-delta",
                "tidegate-domain",
                "tidegate-store",
            ],
        ),
        (
            "tidegate-web",
            &["tidegate-protocol", "tidegate-api", "tidegate-core"],
        ),
        ("tidegate-door-api", DOOR),
        ("tidegate-door-device", DOOR),
        ("tidegate-door-gate", DOOR),
        (
            "tidegate-jobs",
            &["tidegate-protocol", "tidegate-delta", "tidegate-core"],
        ),
        (
            "tidegate-server",
            &[
                "tidegate-protocol",
                "tidegate-core",
                "tidegate-web",
                "tidegate-door-api",
                "tidegate-door-device",
                "tidegate-door-gate",
                "tidegate-jobs",
            ],
        ),
        (
            "tidegate-machine",
            &["tidegate-protocol", "tidegate-trust", "tidegate-delta"],
        ),
        (
            "tidegate-agent",
            &[
                "tidegate-protocol",
                "tidegate-trust",
                "tidegate-delta",
                "tidegate-apply",
                "tidegate-apply",
                "tidegate-machine",
            ],
        ),
        (
            "tidegate-simulate",
            &[
                "tidegate-protocol",
                "tidegate-trust",
                "tidegate-api",
                "tidegate-domain",
                "tidegate-machine",
            ],
        ),
    ];
    let edges = edges();
    // A door that is added must be on the list.
    for name in edges.keys().filter(|name| name.contains("-door-")) {
        assert!(allowed.iter().any(|(from, _)| from == name), "{name}");
    }
    for (from, may) in allowed {
        let have = edges[*from].iter().filter(|d| d.starts_with("tidegate"));
        for to in have {
            assert!(may.contains(&to.as_str()), "{from} must not depend on {to}");
        }
    }
}

/// The simulator is built without a server and an agent: nobody who plans a rollout waits for them to
/// compile.
#[test]
fn the_simulator_knows_no_server_and_no_network() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package=tidegate-simulate", "--edges=normal"])
        .args(["--prefix=none", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    assert!(tree.contains("tidegate-domain "), "{tree}");
    for name in [
        "tidegate-server ",
        "tidegate-agent ",
        "axum ",
        "sqlx ",
        "tokio ",
        "hyper ",
        "rustls ",
    ] {
        let found = tree.lines().find(|line| line.starts_with(name));
        assert!(found.is_none(), "{found:?}");
    }
}

#[test]
fn each_room_is_free_of_what_does_not_belong_in_it() {
    let banned: &[(&str, &[&str])] = &[
        (
            "tidegate-protocol",
            &["tokio", "sqlx", "axum", "reqwest", "rand"],
        ),
        (
            "tidegate-trust",
            &["tokio", "sqlx", "axum", "reqwest", "rand"],
        ),
        (
            "tidegate-delta",
            &["tokio", "sqlx", "axum", "reqwest", "rand"],
        ),
        (
            "tidegate-api",
            &["tokio", "sqlx", "axum", "reqwest", "rand"],
        ),
        (
            "tidegate-domain",
            &["tokio", "sqlx", "axum", "serde", "serde_json", "rand"],
        ),
        (
            "tidegate-machine",
            &[
                "tokio", "hyper", "rustls", "rustix", "rand", "sqlx", "axum", "reqwest", "jiff",
            ],
        ),
        (
            "tidegate-agent",
            &["axum", "sqlx", "reqwest", "clap", "tracing-subscriber"],
        ),
        ("tidegate-store", &["axum", "tokio", "tower-http"]),
        ("tidegate-core", &["axum", "sqlx", "tower-http", "utoipa"]),
        ("tidegate-web", &["sqlx", "object_store"]),
        ("tidegate-door-api", &["sqlx", "object_store", "tokio"]),
        ("tidegate-door-device", &["sqlx", "object_store", "tokio"]),
        ("tidegate-door-gate", &["sqlx", "object_store", "tokio"]),
        ("tidegate-jobs", &["axum", "sqlx", "object_store"]),
    ];
    let edges = edges();
    for (from, not) in banned {
        for name in *not {
            assert!(
                !edges[*from].contains(*name),
                "{from} must not depend on {name}"
            );
        }
    }
}

/// Rust files below a folder of the root.
fn sources(folder: &str) -> Vec<PathBuf> {
    files(folder, &["rs"])
}

/// Number of lines above the tests of a file.
fn length(text: &str) -> usize {
    text.lines()
        .take_while(|l| !l.starts_with("#[cfg(test)]") && !l.starts_with("#[cfg(all(test"))
        .count()
}

#[test]
fn every_file_can_be_read_in_one_sitting() {
    const MOST: usize = 400;
    const MEDIAN: usize = 150;
    let files = sources("");
    assert!(files.len() > 80);
    let mut lengths = Vec::new();
    for file in files {
        let name = name(&file);
        if name.contains("tests/") {
            continue;
        }
        let lines = length(&std::fs::read_to_string(&file).unwrap());
        assert!(lines <= MOST, "{name} has {lines} lines: split it");
        lengths.push(lines);
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(
        median <= MEDIAN,
        "half of the files have over {median} lines"
    );
}

#[test]
fn sql_is_written_in_the_store_alone() {
    let files = sources("server");
    for file in files {
        let name = file.display().to_string();
        if name.contains("/server/store/") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for word in ["SELECT ", "INSERT INTO", "DELETE FROM", "sqlx::"] {
            assert!(!text.contains(word), "{name} contains {word:?}");
        }
    }
}

/// Finds the server's source files that contain one of `words`, outside of `places`.
fn who_says(words: &[&str], places: &[&str]) -> Vec<String> {
    let files = sources("server");
    let mut found = Vec::new();
    for file in files {
        let name = name(&file);
        if places.iter().any(|place| name.starts_with(place)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for word in words.iter().filter(|word| text.contains(**word)) {
            found.push(format!("{name} says {word}"));
        }
    }
    found
}

#[test]
fn there_is_one_door_for_writes() {
    let door = "server/core/src/commit/";
    let words = [".begin_write(", "events::append", "tx.commit()"];
    let found = who_says(&words, &[door, "server/store/src/"]);
    assert!(found.is_empty(), "{found:#?}");
    // The door applies what is committed here, the follower what others have committed.
    let words = [".reload_plan(", ".wake_planner(", ".wake_builder("];
    let places = [
        door,
        "server/core/src/memory/fleet.rs",
        "server/core/src/app.rs",
    ];
    let found = who_says(&words, &places);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_is_written_without_an_event_is_on_the_list() {
    let list = [
        "claim_lease",
        "finish_job",
        "first_secrets",
        "forget_idempotency",
        "keep_blob",
        "keep_job",
        "release_lease",
        "remember_comparison",
        "take_job",
        "take_number",
        "write_heartbeats",
    ];
    let text = std::fs::read_to_string(root().join("server/core/src/commit/silent.rs")).unwrap();
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| {
            let line = line.trim_start();
            let rest = line
                .strip_prefix("pub(crate) ")
                .or(line.strip_prefix("pub "));
            rest?.strip_prefix("async fn ")
        })
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    names.sort_unstable();
    assert_eq!(names, list);
}

#[test]
fn nobody_reads_the_sentence_of_an_event() {
    let files = ["server", "cli/src", "tests/it"].map(sources).concat();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.display();
        for word in [
            "text.contains(\"rolling",
            "text.starts_with(\"stopped by",
            "actor.starts_with(",
        ] {
            let here = file.ends_with("architecture.rs");
            assert!(
                here || !text.contains(word),
                "{name} reads {word:?} out of a sentence"
            );
        }
    }
}

#[test]
fn the_reasons_page_explains_every_reason() {
    let page = std::fs::read_to_string(root().join("docs/reference/reasons.md")).unwrap();
    for reason in tidegate_protocol::Reason::ALL {
        assert!(
            page.contains(&format!("### {reason}\n")),
            "docs/reference/reasons.md lacks {reason}"
        );
    }
}

#[test]
fn each_attack_in_the_security_model_has_its_test() {
    let root = root();
    let page = std::fs::read_to_string(root.join("docs/explain/security-model.md")).unwrap();
    let files = ["agent", "cli", "server", "shared", "tests"]
        .map(sources)
        .concat();
    let code: String = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let mut numbers = Vec::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, number, _, _, tests, _] = cells[..] else {
            continue;
        };
        let Some(number) = number.strip_prefix('A').and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        numbers.push(number);
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "A{number} names no test");
        for name in names {
            let name = name.rsplit("::").next().unwrap();
            let written = [format!("fn {name}("), format!("    {name}: |")];
            assert!(
                written.iter().any(|text| code.contains(text)),
                "A{number}: there is no test {name}"
            );
        }
    }
    // Attacks about context, approvals, client certificates and the log are listed elsewhere.
    let missing: Vec<u32> = (1..=68).filter(|n| !numbers.contains(n)).collect();
    assert_eq!(missing, [59, 61, 62]);
}

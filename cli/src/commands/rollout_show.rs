//! Rollouts as people read them.

use tidegate_api::{LimitedView, PreviewView, RolloutView, WhyRolloutView};

use crate::output::table;

/// Formats a rollout for people.
pub(super) fn describe(r: &RolloutView) -> String {
    let dry = if r.dry_run {
        " (only shown, nothing is changed)"
    } else {
        ""
    };
    let rows = r.waves.iter().map(|w| {
        [
            w.name.clone(),
            w.size.clone(),
            w.state.clone(),
            w.members.to_string(),
            w.tally.exposed.to_string(),
            w.tally.in_flight.to_string(),
            w.tally.healthy.to_string(),
            w.tally.failed.to_string(),
            w.tally.silent.to_string(),
            (w.tally.returning + w.tally.returned).to_string(),
        ]
    });
    let head = [
        "WAVE",
        "SIZE",
        "STATE",
        "DEVICES",
        "EXPOSED",
        "IN FLIGHT",
        "HEALTHY",
        "FAILED",
        "SILENT",
        "SENT BACK",
    ];
    let mut text = format!(
        "{} {} {} is {}{dry}\nwhy: {}\n\n{}",
        r.id,
        r.product,
        r.release,
        r.state,
        r.reason.text,
        table(head, rows.collect())
    );
    let f = &r.forecast;
    let goes_on = matches!(
        r.state.as_str(),
        "draft" | "scheduled" | "awaiting_approval" | "running"
    );
    if let Some(at) = r.starts_at.as_ref().filter(|_| r.state == "scheduled") {
        text += &format!("\n\nstarts by itself at {at}");
    }
    if goes_on {
        let finish = f
            .finish
            .as_deref()
            .map_or("unknown", |t| t.get(..16).unwrap_or(t));
        text += &format!("\n\nforecast: finished {finish}");
        text += match f.on_time {
            Some(true) => ", before the deadline",
            Some(false) => ", AFTER THE DEADLINE",
            None => "",
        };
    }
    if let Some(accepted) = r.accepted_no_way_back {
        text += &format!("\n\nits start accepted that {accepted} devices cannot be ordered back");
    }
    if let Some(asked) = &r.asked {
        text += &format!(
            "\n\n{} was asked for by {}: {} of {} approvals are missing\n  next: somebody else runs \
             tidegate rollout approve {} --plan {}",
            asked.kind, asked.asked_by, asked.missing, asked.needed, r.id, asked.plan
        );
    }
    if let Some(preview) = &r.preview {
        text += &format!("\n\n{}", preview_text(preview));
    }
    text
}

fn counts(map: &std::collections::BTreeMap<String, u64>) -> String {
    let list: Vec<String> = map.iter().map(|(what, n)| format!("{n} {what}")).collect();
    list.join(", ")
}

fn preview_text(preview: &PreviewView) -> String {
    let rows = preview.paths.iter().map(|p| {
        [
            p.devices.to_string(),
            p.from.clone().unwrap_or_else(|| "nothing".into()),
            p.legs.join(" -> "),
            p.platform.clone(),
            crate::output::bytes(p.bytes),
        ]
    });
    let mut text = table(
        ["DEVICES", "FROM", "OVER", "PLATFORM", "EACH FETCHES"],
        rows.collect(),
    );
    text += &format!("\ntotal {}", crate::output::bytes(preview.bytes));
    for limited in &preview.limited {
        text += &format!(
            "\n{}: {} ({}){}",
            limit_text(&limited.limit),
            limited.devices,
            limited.reason.text,
            examples(limited),
        );
    }
    for (what, map) in [
        ("not concerned or blocked", &preview.blocked),
        ("would wait now", &preview.waiting),
    ] {
        if !map.is_empty() {
            text += &format!("\n{what}: {}", counts(map));
        }
    }
    text
}

/// Says what a limit means for people.
fn limit_text(limit: &str) -> &str {
    match limit {
        "never" => "CANNOT GO BACK",
        "after_window" => "can go back within the rollback window only",
        "turned_away" => "can go back, and the version gate turns them away then",
        "first_install" => "have nothing to go back to",
        other => other,
    }
}

fn examples(limited: &LimitedView) -> String {
    if limited.examples.is_empty() {
        return String::new();
    }
    let more = if limited.devices > limited.examples.len() as u64 {
        ", ..."
    } else {
        ""
    };
    format!(": {}{more}", limited.examples.join(", "))
}

/// Formats the explanation of a rollout for people.
pub(super) fn explain(why: &WhyRolloutView) -> String {
    let mut text = describe(&why.rollout);
    if !why.failures.is_empty() {
        let rows = why.failures.iter().map(|f| {
            [
                f.count.to_string(),
                f.reason.clone(),
                f.model.clone(),
                f.platform.clone(),
                f.from.clone().unwrap_or_default(),
                f.region.clone(),
            ]
        });
        let head = ["FAILED", "WHY", "MODEL", "PLATFORM", "FROM", "REGION"];
        text += &format!("\n\n{}", table(head, rows.collect()));
    }
    if let Some(c) = &why.suggested_hold {
        text += &format!(
            "\n\n{} of {} devices with {} failed, {} of {} others: hold them and let the rest go on\n  \
             next: tidegate hold create {} --release {} --selector {} --reason ...",
            c.failed,
            c.finished,
            c.selector,
            c.others_failed,
            c.others_finished,
            why.rollout.product,
            why.rollout.release,
            c.selector
        );
    }
    text
}

//! Review of what a signature would put in force: every field of a signed file that differs from the
//! file in force. A field that this program does not know is refused, so that nobody signs what they
//! were not shown.

use serde_json::Value;
use tidegate_protocol::{Image, Speaker, Timestamp, plain, said};
use tidegate_trust::{
    CommandLine, Delegation, Holder, ImageFacts, Policy, ProductRole, Quorum, RootRole, Signed,
    TOP_ROLES, TopTargets, lifetime,
};

use super::trust;
use crate::error::CliError;

/// Describes a draft and what it changes, command lines first. `present` is the file in force.
pub(crate) fn review(
    role: &str,
    draft: &Signed,
    present: Option<&[u8]>,
    now: Timestamp,
) -> Result<String, CliError> {
    let bytes = draft.to_bytes();
    match role {
        "root" => {
            let next = RootRole::from_bytes(&bytes).map_err(|e| trust(&e))?;
            let present = present.map(RootRole::from_bytes).transpose();
            root(
                role,
                draft,
                &next,
                present.map_err(|e| trust(&e))?.as_ref(),
                now,
            )
        }
        "targets" => {
            let next = TopTargets::from_bytes(&bytes).map_err(|e| trust(&e))?;
            let present = present.map(TopTargets::from_bytes).transpose();
            targets(
                role,
                draft,
                &next,
                present.map_err(|e| trust(&e))?.as_ref(),
                now,
            )
        }
        name => {
            let parsed = name.parse().map_err(|e| trust(&e))?;
            let read = |bytes: &[u8]| ProductRole::from_bytes(&parsed, bytes);
            let next = read(&bytes).map_err(|e| trust(&e))?;
            let present = present.map(read).transpose();
            product(
                role,
                draft,
                &next,
                present.map_err(|e| trust(&e))?.as_ref(),
                now,
            )
        }
    }
}

/// Describes version and times of a draft. Refuses one that holds more than `known`, which is what was
/// read of it, and one from the future.
fn head(
    role: &str,
    draft: &Signed,
    known: &Value,
    issued: Timestamp,
    present: Option<u64>,
    now: Timestamp,
) -> Result<String, CliError> {
    if let Some(place) = difference(draft.body(), known) {
        return Err(CliError::Hinted(
            format!(
                "the draft of {role} holds something at {} that this program cannot show",
                plain(&place)
            ),
            "do not sign it; ask who made it, and with which version of tidegate".into(),
        ));
    }
    if issued > now.plus(lifetime::AHEAD) {
        return Err(CliError::Hinted(
            format!("the draft of {role} says that it was made at {issued}, but it is {now} here"),
            "one of the two clocks is wrong: devices that took it would count on that time. Set the \
             clock and make the draft again"
                .into(),
        ));
    }
    let present = match present {
        Some(version) => format!("version {version} is in force"),
        None => "none is in force".to_owned(),
    };
    Ok(format!(
        "{role} version {} ({present}), issued {issued}, expires {}",
        known["version"],
        known["expires"].as_str().unwrap_or_default()
    ))
}

/// Place at which two documents differ; `None` if they are equal.
fn difference(draft: &Value, known: &Value) -> Option<String> {
    match (draft, known) {
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys());
            names.into_iter().find_map(|name| {
                let inside = match (a.get(name), b.get(name)) {
                    (Some(a), Some(b)) => difference(a, b)?,
                    _ => String::new(),
                };
                Some(format!("/{name}{inside}"))
            })
        }
        (a, b) => (a != b).then(String::new),
    }
}

fn root(
    role: &str,
    draft: &Signed,
    next: &RootRole,
    present: Option<&RootRole>,
    now: Timestamp,
) -> Result<String, CliError> {
    let before = present.map(|root| root.version);
    let head = head(role, draft, &next.body(), next.issued, before, now)?;
    let mut lines = vec![head];
    for name in TOP_ROLES {
        if let Some(quorum) = next.quorum(name) {
            let before = present.and_then(|root| root.quorum(name));
            people(&mut lines, name, quorum, before);
        }
    }
    Ok(lines.join("\n"))
}

fn targets(
    role: &str,
    draft: &Signed,
    next: &TopTargets,
    present: Option<&TopTargets>,
    now: Timestamp,
) -> Result<String, CliError> {
    let before = present.map(|targets| targets.version);
    let head = head(role, draft, &next.body(), next.issued, before, now)?;
    let mut lines = vec![head];
    for delegation in &next.delegations {
        let Delegation {
            name,
            quorum,
            paths,
        } = delegation;
        let before = present.and_then(|targets| targets.delegation(name));
        people(&mut lines, name, quorum, before.map(|d| &d.quorum));
        if before.is_none_or(|before| before.paths != *paths) {
            lines.push(format!("    may speak for {}", plain(&paths.join(", "))));
        }
    }
    for gone in present.into_iter().flat_map(|targets| &targets.delegations) {
        if next.delegation(&gone.name).is_none() {
            lines.push(format!(
                "- {}: nobody may sign it any more",
                plain(&gone.name)
            ));
        }
    }
    Ok(lines.join("\n"))
}

/// Describes a quorum; what differs from the one before is marked.
fn people(lines: &mut Vec<String>, name: &str, next: &Quorum, before: Option<&Quorum>) {
    let Quorum { holders, threshold } = next;
    let size = |quorum: &Quorum| format!("{} of {} people", quorum.people(), quorum.holders.len());
    let was = match before {
        Some(before) if before.threshold == *threshold && before.people() == next.people() => {
            String::new()
        }
        Some(before) => format!("; before, {}", size(before)),
        None => "; new".to_owned(),
    };
    lines.push(format!(
        "  {}: {}, {threshold} signatures{was}",
        plain(name),
        size(next)
    ));
    let line = |mark: &str, holder: &Holder| {
        let name = plain(&holder.name);
        format!("  {mark} {name}  {}", holder.fingerprint())
    };
    for holder in holders {
        let known = before.is_some_and(|before| before.holders.contains(holder));
        lines.push(line(if known { " " } else { "+" }, holder));
    }
    for gone in before.into_iter().flat_map(|before| &before.holders) {
        if !holders.contains(gone) {
            lines.push(line("-", gone));
        }
    }
}

fn product(
    role: &str,
    draft: &Signed,
    next: &ProductRole,
    present: Option<&ProductRole>,
    now: Timestamp,
) -> Result<String, CliError> {
    let before = present.map(|role| role.version);
    let head = head(role, draft, &next.body(), next.issued, before, now)?;
    let mut lines = vec![head];
    let (mut images, mut unchanged) = (Vec::new(), 0);
    for (path, facts) in &next.images {
        let before = present.and_then(|role| role.images.get(path));
        if before == Some(facts) {
            unchanged += 1;
            continue;
        }
        if let Some(health) = &facts.health
            && before.is_none_or(|before| before.health.as_ref() != Some(health))
        {
            lines.push(format!(
                "! devices will run this command for {path}, as the agent's user (root, unless its \
                 service says otherwise): {}",
                quoted(health)
            ));
        }
        images.push(format!(
            "{} {path}",
            if before.is_some() { "~" } else { "+" }
        ));
        let before = before.map(fields);
        for (index, (name, value)) in fields(facts).into_iter().enumerate() {
            let was = before.as_ref().map(|before| &before[index].1);
            match was {
                Some(was) if *was == value => {}
                Some(was) => images.push(format!("    {name}: {value}; before, {was}")),
                None => images.push(format!("    {name}: {value}")),
            }
        }
    }
    for path in present.into_iter().flat_map(|role| role.images.keys()) {
        if !next.images.contains_key(path) {
            images.push(format!("- {path}"));
        }
    }
    lines.append(&mut images);
    lines.push(format!("  images that stay as they are: {unchanged}"));
    let nothing = Policy::default();
    let before = policy(present.map_or(&nothing, |role| &role.policy));
    for ((name, value), (_, was)) in policy(&next.policy).into_iter().zip(before) {
        if value != was {
            lines.push(format!("~ {name}: {value}; before, {was}"));
        }
    }
    Ok(lines.join("\n"))
}

/// Each field of an image's facts, in words. A field that is added must be added here.
fn fields(facts: &ImageFacts) -> [(&'static str, String); 9] {
    let ImageFacts {
        image: Image { sha256, length },
        release,
        hw,
        format,
        min_from,
        min_agent,
        stepping_stone,
        allow_rollback,
        health,
    } = facts;
    let any = |version: &Option<tidegate_protocol::Version>| {
        version
            .as_ref()
            .map_or("any".to_owned(), ToString::to_string)
    };
    let platforms: Vec<String> = hw.iter().map(ToString::to_string).collect();
    let health = health.as_ref();
    [
        ("image", format!("{length} bytes, sha256 {sha256}")),
        ("release", release.to_string()),
        ("for", plain(&platforms.join(", "))),
        ("format", plain(format)),
        ("installed over", format!("{} or newer", any(min_from))),
        ("by agents", format!("{} or newer", any(min_agent))),
        ("stepping stone", yes(*stepping_stone)),
        ("may be rolled back from", yes(*allow_rollback)),
        ("health check", health.map_or("none".to_owned(), quoted)),
    ]
}

/// Each field of a policy, in words. A field that is added must be added here.
fn policy(policy: &Policy) -> [(&'static str, String); 3] {
    let Policy {
        min_release,
        eol,
        notice,
    } = policy;
    let eol: Vec<String> = eol.iter().map(ToString::to_string).collect();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".into());
    [
        (
            "lowest release that may be installed",
            or_none(min_release.as_ref().map(ToString::to_string)),
        ),
        (
            "releases that may no longer be installed",
            or_none(Some(eol.join(", ")).filter(|text| !text.is_empty())),
        ),
        (
            "notice to people",
            or_none(
                notice
                    .as_deref()
                    .map(|text| said(Speaker::Publisher, &quote(text))),
            ),
        ),
    ]
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// A command line, each argument in quotes, so that spaces hide nothing.
fn quoted(line: &CommandLine) -> String {
    let CommandLine { command, timeout_s } = line;
    let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
    format!("{}, for {timeout_s} s at most", words.join(" "))
}

fn quote(text: &str) -> String {
    plain(&Value::from(text).to_string())
}

#[cfg(test)]
mod tests;

//! Rules of a rollout, built from options.

use tidegate_server::http::dto::PolicyBody;

use crate::args::PolicyArgs;
use crate::error::CliError;

/// Builds the rules that the options name; the rest is left to the server.
pub(super) fn policy(args: &PolicyArgs) -> Result<PolicyBody, CliError> {
    let share = |option: &str, text: &Option<String>| {
        text.as_deref()
            .map(|text| basis_points(option, text))
            .transpose()
    };
    let seconds = |d: Option<std::time::Duration>| d.map(|d| d.as_secs());
    let mut body = PolicyBody {
        max_failure_bp: share("--max-failure", &args.max_failure)?,
        min_failures: args.min_failures,
        min_success_bp: share("--min-success", &args.min_success)?,
        min_sample: args.min_sample,
        max_silent_bp: share("--max-silent", &args.max_silent)?,
        silent_after_s: seconds(args.silent_after),
        compare: args.compare,
        soak_s: seconds(args.soak),
        on_breach: args.on_breach.clone(),
        pace: args.pace.clone(),
        pace_start: args.pace_start,
        pace_factor: args.pace_factor,
        pace_every_s: seconds(args.pace_every),
        max_in_flight: args.max_in_flight,
        per_minute: args.per_minute,
        deadline: args.deadline.as_deref().map(deadline),
        battery_wait_s: seconds(args.battery_wait),
        metered: args.metered.clone(),
        by_hand: args.by_hand,
        ..PolicyBody::default()
    };
    for text in &args.window {
        match text.split_once('=') {
            Some((region, window)) => {
                body.region_windows.insert(region.into(), window.into());
            }
            None if body.window.is_some() => {
                return Err(CliError::Failed(
                    "--window: give at most one general window, and one per region as REGION=\"...\"".into(),
                ));
            }
            None => body.window = Some(text.clone()),
        }
    }
    Ok(body)
}

/// Parses a future time, given as such or as a length of time from now.
pub(super) fn later(text: &str) -> Result<String, CliError> {
    let text = deadline(text);
    match text.parse::<jiff::Timestamp>() {
        Ok(at) if at > jiff::Timestamp::now() => Ok(text),
        _ => Err(CliError::Failed(format!(
            "--at {text}: expected a future time, like 2026-12-01T18:00:00Z or 4h"
        ))),
    }
}

/// Turns a length of time from now into a time; any other text is returned unchanged.
fn deadline(text: &str) -> String {
    let from_now = crate::args::duration(text)
        .ok()
        .and_then(|length| jiff::Timestamp::now().checked_add(length).ok());
    from_now.map_or_else(|| text.to_owned(), |at| at.to_string())
}

/// Parses a percentage with up to two decimals into basis points.
fn basis_points(option: &str, text: &str) -> Result<u32, CliError> {
    let bad = || {
        CliError::Failed(format!(
            "{option} {text}: expected a percentage like 2 or 0.5"
        ))
    };
    let size: tidegate_domain::rollout::WaveSize = match text.trim_end_matches('%') {
        "0" => return Ok(0),
        number => format!("{number}%").parse().map_err(|_| bad())?,
    };
    match size {
        tidegate_domain::rollout::WaveSize::Share(share) => Ok(share.get()),
        _ => Err(bad()),
    }
}

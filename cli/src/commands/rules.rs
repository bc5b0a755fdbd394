//! Rules of a rollout, built from options.

use clap::Args;
use tidegate_api::PolicyBody;

use crate::error::CliError;
use crate::options::duration;
use std::time::Duration;

/// Pace and stopping rules of a rollout.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pace and gate")]
pub(crate) struct PolicyArgs {
    /// Percent of finished devices that may fail; 2 by default.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) max_failure: Option<String>,
    /// Minimum number of failures before anything is concluded; 2 by default.
    #[arg(long, value_name = "N")]
    pub(crate) min_failures: Option<u64>,
    /// Percent of finished devices that must be healthy when a wave ends; 90 by default, less
    /// where --max-failure allows more.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) min_success: Option<String>,
    /// Minimum number of finished devices before a wave may pass; 1 by default.
    #[arg(long, value_name = "N")]
    pub(crate) min_sample: Option<u64>,
    /// Percent of devices that may be silent after the update; 10 by default, 100 to switch the
    /// test off.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) max_silent: Option<String>,
    /// Time without contact after the update until a device counts as silent; three usual check-ins
    /// by default, at least 4m.
    #[arg(long, value_parser = duration)]
    pub(crate) silent_after: Option<Duration>,
    /// Also compare devices on the new release with those on the old one, to find slow leaks.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) compare: Option<bool>,
    /// Soak time of each wave; 10m by default.
    #[arg(long, value_parser = duration)]
    pub(crate) soak: Option<Duration>,
    /// Action on a breach: halt, or halt_and_roll_back.
    #[arg(long)]
    pub(crate) on_breach: Option<String>,
    /// Pace: evidence (in flight at most the start or twice the healthy devices so far),
    /// exponential, or at_once.
    #[arg(long)]
    pub(crate) pace: Option<String>,
    /// Devices in flight at first; 8 by default. 0: all at once.
    #[arg(long, value_name = "N")]
    pub(crate) pace_start: Option<u64>,
    /// Exponential: growth factor per step, in percent; 200 by default.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) pace_factor: Option<u32>,
    /// Exponential: interval between steps; 30m by default.
    #[arg(long, value_parser = duration)]
    pub(crate) pace_every: Option<Duration>,
    /// Maximum number of devices in flight; 0 for no limit.
    #[arg(long, value_name = "N")]
    pub(crate) max_in_flight: Option<u64>,
    /// Maximum number of devices exposed per minute; 0 for no limit.
    #[arg(long, value_name = "N")]
    pub(crate) per_minute: Option<u64>,
    /// Maintenance window: "Mon-Fri 18:00-06:00 America/New_York", or REGION="..." for one region;
    /// may be repeated. Empty for none: always open.
    #[arg(long, value_name = "WINDOW")]
    pub(crate) window: Vec<String>,
    /// Deadline: 2026-12-03T18:00:00Z, or 48h from now; empty for none.
    #[arg(long, value_name = "TIME")]
    pub(crate) deadline: Option<String>,
    /// Longest time a device may wait for its battery to charge; 1d by default.
    #[arg(long, value_parser = duration)]
    pub(crate) battery_wait: Option<Duration>,
    /// Policy for metered links: allow, deltas_only, never.
    #[arg(long)]
    pub(crate) metered: Option<String>,
    /// Make each wave after the first wait for `rollout advance`.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) by_hand: Option<bool>,
}

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
                return Err(CliError::Usage(
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
        _ => Err(CliError::Usage(format!(
            "--at {text}: expected a future time, like 2026-12-01T18:00:00Z or 4h"
        ))),
    }
}

/// Turns a length of time from now into a time; any other text is returned unchanged.
fn deadline(text: &str) -> String {
    let from_now = crate::options::duration(text)
        .ok()
        .and_then(|length| jiff::Timestamp::now().checked_add(length).ok());
    from_now.map_or_else(|| text.to_owned(), |at| at.to_string())
}

/// Parses a percentage with up to two decimals into basis points.
fn basis_points(option: &str, text: &str) -> Result<u32, CliError> {
    let bad = || {
        CliError::Usage(format!(
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

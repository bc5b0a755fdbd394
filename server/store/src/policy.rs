//! Encoding of a rollout's policy in its row: one JSON text, so that a new rule needs no new
//! column. The domain knows no JSON; this is its only form.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_domain::BasisPoints;
use tidegate_domain::rollout::policy::Policy;
use tidegate_domain::rollout::{Gate, Limits, Pace};
use tidegate_domain::window::{Window, Windows};
use tidegate_protocol::{Region, Timestamp};

use super::{StoreError, json};

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    pace: String,
    pace_start: u64,
    pace_factor: u32,
    pace_every_s: u64,
    max_in_flight: Option<u64>,
    per_minute: Option<u64>,
    window: Option<String>,
    region_windows: BTreeMap<String, String>,
    deadline: Option<i64>,
    battery_wait_s: u64,
    metered: String,
    max_failure_bp: u32,
    min_failures: u64,
    min_success_bp: u32,
    soak_s: u64,
    on_breach: String,
    min_sample: u64,
    max_silent_bp: u32,
    silent_after_s: u64,
    compare: bool,
    by_hand: bool,
}

/// Encodes the policy for its column.
pub fn to_column(policy: &Policy) -> Result<String, StoreError> {
    let (pace, start, factor, every) = match policy.pace {
        Pace::Evidence { start } => ("evidence", start, 0, Duration::ZERO),
        Pace::Exponential {
            start,
            factor,
            every,
        } => ("exponential", start, factor, every),
        Pace::AtOnce => ("at_once", 0, 0, Duration::ZERO),
    };
    let row = Row {
        pace: pace.into(),
        pace_start: start,
        pace_factor: factor,
        pace_every_s: every.as_secs(),
        max_in_flight: policy.limits.max_in_flight,
        per_minute: policy.limits.per_minute,
        window: policy.windows.general.as_ref().map(ToString::to_string),
        region_windows: policy
            .windows
            .by_region
            .iter()
            .map(|(r, w)| (r.to_string(), w.to_string()))
            .collect(),
        deadline: policy.deadline.map(Timestamp::as_micros),
        battery_wait_s: policy.battery_wait.as_secs(),
        metered: policy.metered.to_string(),
        max_failure_bp: policy.gate.max_failure.get(),
        min_failures: policy.gate.min_failures,
        min_success_bp: policy.gate.min_success.get(),
        soak_s: policy.gate.soak.as_secs(),
        on_breach: policy.gate.on_breach.to_string(),
        min_sample: policy.gate.min_sample,
        max_silent_bp: policy.gate.max_silent.get(),
        silent_after_s: policy.gate.silent_after.as_secs(),
        compare: policy.gate.compare,
        by_hand: policy.by_hand,
    };
    super::to_json("policy", &row)
}

/// Decodes the policy from its column.
pub fn from_column(text: &str) -> Result<Policy, StoreError> {
    let row: Row = json("policy", text)?;
    let bad = |what: String| StoreError::BadRow {
        column: "policy",
        what,
    };
    let share = |points| BasisPoints::new(points).map_err(|e| bad(e.to_string()));
    let window = |text: &String| text.parse::<Window>().map_err(|e| bad(e.to_string()));
    let mut by_region = BTreeMap::new();
    for (region, text) in &row.region_windows {
        let region: Region = region.parse().map_err(|_| bad(region.clone()))?;
        by_region.insert(region, window(text)?);
    }
    Ok(Policy {
        pace: match row.pace.as_str() {
            "evidence" => Pace::Evidence {
                start: row.pace_start,
            },
            "exponential" => Pace::Exponential {
                start: row.pace_start,
                factor: row.pace_factor,
                every: Duration::from_secs(row.pace_every_s),
            },
            "at_once" => Pace::AtOnce,
            other => return Err(bad(format!("the pace {other:?}"))),
        },
        limits: Limits {
            max_in_flight: row.max_in_flight,
            per_minute: row.per_minute,
        },
        windows: Windows {
            general: row.window.as_ref().map(window).transpose()?,
            by_region,
        },
        deadline: row.deadline.map(Timestamp::from_micros),
        battery_wait: Duration::from_secs(row.battery_wait_s),
        metered: row.metered.parse().map_err(|e| bad(format!("{e}")))?,
        gate: Gate {
            max_failure: share(row.max_failure_bp)?,
            min_failures: row.min_failures,
            min_success: share(row.min_success_bp)?,
            min_sample: row.min_sample,
            max_silent: share(row.max_silent_bp)?,
            silent_after: Duration::from_secs(row.silent_after_s),
            compare: row.compare,
            soak: Duration::from_secs(row.soak_s),
            on_breach: row.on_breach.parse().map_err(|e| bad(format!("{e}")))?,
        },
        by_hand: row.by_hand,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_domain::admission::Metered;
    use tidegate_domain::rollout::OnBreach;
    use tidegate_domain::rollout::policy::{BATTERY_WAIT, MAX_SILENT_BP, SILENT_AFTER};

    #[test]
    fn a_policy_survives_its_column() {
        let mut policy = Policy {
            pace: Pace::Exponential {
                start: 3,
                factor: 150,
                every: Duration::from_mins(5),
            },
            limits: Limits {
                max_in_flight: None,
                per_minute: Some(100),
            },
            windows: Windows {
                general: Some("daily 20:00-04:00 UTC".parse().unwrap()),
                by_region: BTreeMap::new(),
            },
            deadline: Some(Timestamp::from_secs(7)),
            battery_wait: BATTERY_WAIT,
            metered: Metered::DeltasOnly,
            gate: Gate {
                max_failure: BasisPoints::new(200).unwrap(),
                min_failures: 2,
                min_success: BasisPoints::new(9_000).unwrap(),
                min_sample: 1,
                max_silent: BasisPoints::new(MAX_SILENT_BP).unwrap(),
                silent_after: SILENT_AFTER,
                compare: true,
                soak: Duration::from_mins(10),
                on_breach: OnBreach::HaltAndRollBack,
            },
            by_hand: false,
        };
        let region = "NA".parse().unwrap();
        policy.windows.by_region.insert(
            region,
            "Mon-Fri 18:00-06:00 America/New_York".parse().unwrap(),
        );
        let column = to_column(&policy).unwrap();
        assert_eq!(from_column(&column).unwrap(), policy);
        for bad in [
            "{}".to_owned(),
            column.replace("Mon-Sun", "never"),
            column.replace("exponential", "fast"),
            column.replace("\"max_failure_bp\":200", "\"max_failure_bp\":10001"),
        ] {
            assert!(from_column(&bad).is_err(), "{bad}");
        }
    }
}

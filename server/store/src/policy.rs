//! Encoding of a rollout's policy in its row: one JSON text, so that a new rule needs no new
//! column. The domain knows no JSON; this is its only form.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_domain::BasisPoints;
use tidegate_domain::admission::Metered;
use tidegate_domain::rollout::policy::{BATTERY_WAIT, Policy};
use tidegate_domain::rollout::{Gate, Limits, Pace};
use tidegate_domain::window::{Window, Windows};
use tidegate_protocol::{Region, Timestamp};

use super::{StoreError, json};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
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
    battery_wait_s: Option<u64>,
    metered: Option<String>,
    max_failure_bp: Option<u32>,
    min_failures: Option<u64>,
    min_success_bp: Option<u32>,
    soak_s: Option<u64>,
    on_breach: Option<String>,
    min_sample: Option<u64>,
    max_silent_bp: Option<u32>,
    silent_after_s: Option<u64>,
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
        battery_wait_s: Some(policy.battery_wait.as_secs()),
        metered: Some(policy.metered.to_string()),
        max_failure_bp: Some(policy.gate.max_failure.get()),
        min_failures: Some(policy.gate.min_failures),
        min_success_bp: Some(policy.gate.min_success.get()),
        soak_s: Some(policy.gate.soak.as_secs()),
        on_breach: Some(policy.gate.on_breach.to_string()),
        min_sample: Some(policy.gate.min_sample),
        max_silent_bp: Some(policy.gate.max_silent.get()),
        silent_after_s: Some(policy.gate.silent_after.as_secs()),
        compare: policy.gate.compare,
        by_hand: policy.by_hand,
    };
    super::to_json("policy", &row)
}

/// Decodes the policy from its column. `start` and `gate` are the columns of rollouts made
/// before policies existed; they apply where the text says nothing.
pub fn from_column(text: &str, start: u64, gate: &Gate) -> Result<Policy, StoreError> {
    let row: Row = json("policy", text)?;
    let bad = |what: String| StoreError::BadRow {
        column: "policy",
        what,
    };
    let share = |points: Option<u32>, old| {
        points.map_or(Ok(old), |p| {
            BasisPoints::new(p).map_err(|e| bad(e.to_string()))
        })
    };
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
            _ if start == 0 => Pace::AtOnce,
            _ => Pace::Evidence { start },
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
        battery_wait: row.battery_wait_s.map_or(BATTERY_WAIT, Duration::from_secs),
        metered: row
            .metered
            .map_or(Ok(Metered::DeltasOnly), |m| m.parse())
            .map_err(|e| bad(e.to_string()))?,
        gate: Gate {
            max_failure: share(row.max_failure_bp, gate.max_failure)?,
            min_failures: row.min_failures.unwrap_or(gate.min_failures),
            min_success: share(row.min_success_bp, gate.min_success)?,
            min_sample: row.min_sample.unwrap_or(gate.min_sample),
            max_silent: share(row.max_silent_bp, gate.max_silent)?,
            silent_after: row
                .silent_after_s
                .map_or(gate.silent_after, Duration::from_secs),
            compare: row.compare,
            soak: row.soak_s.map_or(gate.soak, Duration::from_secs),
            on_breach: row
                .on_breach
                .map_or(Ok(gate.on_breach), |word| word.parse())
                .map_err(|e| bad(e.to_string()))?,
        },
        by_hand: row.by_hand,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_domain::rollout::OnBreach;
    use tidegate_domain::rollout::policy::{MAX_SILENT_BP, SILENT_AFTER};

    fn gate() -> Gate {
        Gate {
            max_failure: BasisPoints::new(200).unwrap(),
            min_failures: 2,
            min_success: BasisPoints::new(9_000).unwrap(),
            min_sample: 1,
            max_silent: BasisPoints::new(MAX_SILENT_BP).unwrap(),
            silent_after: SILENT_AFTER,
            compare: false,
            soak: Duration::from_mins(10),
            on_breach: OnBreach::Halt,
        }
    }

    #[test]
    fn a_policy_survives_its_column_and_an_empty_one_has_the_old_columns() {
        let mut policy = from_column("{}", 8, &gate()).unwrap();
        assert_eq!(policy.pace, Pace::Evidence { start: 8 });
        assert_eq!(policy.gate, gate());
        assert_eq!(policy.battery_wait, BATTERY_WAIT);
        policy.pace = Pace::Exponential {
            start: 3,
            factor: 150,
            every: Duration::from_mins(5),
        };
        policy.limits.per_minute = Some(100);
        policy.windows.general = Some("daily 20:00-04:00 UTC".parse().unwrap());
        let region = "NA".parse().unwrap();
        policy.windows.by_region.insert(
            region,
            "Mon-Fri 18:00-06:00 America/New_York".parse().unwrap(),
        );
        policy.deadline = Some(Timestamp::from_secs(7));
        policy.gate.compare = true;
        policy.gate.on_breach = OnBreach::HaltAndRollBack;
        assert_eq!(
            from_column(&to_column(&policy).unwrap(), 0, &gate()).unwrap(),
            policy
        );
        assert!(from_column(r#"{"window":"never"}"#, 0, &gate()).is_err());
    }
}

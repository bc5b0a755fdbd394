//! Rules of a rollout, as sent in a request: each may be left out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_domain::BasisPoints;
use tidegate_domain::rollout::policy::{BATTERY_WAIT, MAX_SILENT_BP, Policy, SILENT_AFTER};
use tidegate_domain::rollout::{Gate, Limits, OnBreach, Pace};
use tidegate_domain::window::Windows;
use tidegate_protocol::{Region, Timestamp};
use utoipa::ToSchema;

use crate::{Invalid, time};

/// Longest soak of a wave, in seconds: above it a rollout would never end.
const LONGEST_SOAK_S: u64 = 30 * 86_400;

/// Rules by which a rollout proceeds and stops. A rule left out stays as it is, or has its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PolicyBody {
    /// Share of finished devices that may fail, in hundredths of a percent; 200 by default.
    #[schema(maximum = 10_000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failure_bp: Option<u32>,
    /// Number of failures before the gate draws a conclusion; 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_failures: Option<u64>,
    /// Share of devices that must be healthy when a wave ends, in hundredths of a percent; 9,000 by
    /// default, less if more failures are allowed.
    #[schema(maximum = 10_000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_success_bp: Option<u32>,
    /// Devices that must have finished before a wave may pass; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_sample: Option<u64>,
    /// Share of devices that may be silent after the update, in hundredths of a percent; 1,000 by
    /// default, 10,000 switches the check off.
    #[schema(maximum = 10_000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_silent_bp: Option<u32>,
    /// Seconds without contact after which a device that took the update counts as silent; by
    /// default three usual check-ins, at least 240; never less than 120.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_after_s: Option<u64>,
    /// Whether devices on the new release are compared with those on the old one; off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<bool>,
    /// Soak time of each wave, in seconds; 600 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soak_s: Option<u64>,
    /// Action on a breach of the gate: `halt` (the default) or `halt_and_roll_back`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_breach: Option<String>,
    /// Pace: `evidence` (the default), `exponential` or `at_once`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<String>,
    /// Initial number of devices in flight; 8 by default. 0 means `at_once`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace_start: Option<u64>,
    /// Exponential: growth factor of each step, in percent; 200 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace_factor: Option<u32>,
    /// Exponential: interval between steps, in seconds; 1,800 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace_every_s: Option<u64>,
    /// Maximum number of devices in flight at the same time; 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u64>,
    /// Maximum number of devices exposed per minute; 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u64>,
    /// Maintenance window, like `Mon-Fri 18:00-06:00 America/New_York`; empty for always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Maintenance windows of single regions; an empty text removes a region's window.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub region_windows: BTreeMap<String, String>,
    /// Deadline for finishing the rollout, RFC 3339; empty for no deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Time a device may wait for a better battery, in seconds; a day by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub battery_wait_s: Option<u64>,
    /// Downloads allowed over metered links: `allow`, `deltas_only` (the default) or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metered: Option<String>,
    /// Whether each wave after the first waits for a person; off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<bool>,
}

impl PolicyBody {
    /// These rules, completed with the other's where they are left out.
    pub fn or(self, other: Self) -> Self {
        let mut region_windows = other.region_windows;
        region_windows.extend(self.region_windows);
        Self {
            max_failure_bp: self.max_failure_bp.or(other.max_failure_bp),
            min_failures: self.min_failures.or(other.min_failures),
            min_success_bp: self.min_success_bp.or(other.min_success_bp),
            min_sample: self.min_sample.or(other.min_sample),
            max_silent_bp: self.max_silent_bp.or(other.max_silent_bp),
            silent_after_s: self.silent_after_s.or(other.silent_after_s),
            compare: self.compare.or(other.compare),
            soak_s: self.soak_s.or(other.soak_s),
            on_breach: self.on_breach.or(other.on_breach),
            pace: self.pace.or(other.pace),
            pace_start: self.pace_start.or(other.pace_start),
            pace_factor: self.pace_factor.or(other.pace_factor),
            pace_every_s: self.pace_every_s.or(other.pace_every_s),
            max_in_flight: self.max_in_flight.or(other.max_in_flight),
            per_minute: self.per_minute.or(other.per_minute),
            window: self.window.or(other.window),
            region_windows,
            deadline: self.deadline.or(other.deadline),
            battery_wait_s: self.battery_wait_s.or(other.battery_wait_s),
            metered: self.metered.or(other.metered),
            by_hand: self.by_hand.or(other.by_hand),
        }
    }

    /// Converts to a policy, with defaults for what is left out.
    pub fn policy(&self) -> Result<Policy, Invalid> {
        fn bad(what: impl std::fmt::Display) -> Invalid {
            Invalid::new(what)
        }
        let share = |points: u32| BasisPoints::new(points).map_err(Invalid::new);
        let max_failure = self.max_failure_bp.unwrap_or(200);
        let silent_after = self
            .silent_after_s
            .map_or(SILENT_AFTER, Duration::from_secs);
        if silent_after < Duration::from_mins(2) {
            let text = "silent_after_s: at least 120, or every device would count as silent between two check-ins";
            return Err(bad(text));
        }
        if self.soak_s.is_some_and(|soak| soak > LONGEST_SOAK_S) {
            return Err(bad(format!("soak_s: at most {LONGEST_SOAK_S}, 30 days")));
        }
        let word = |text: &Option<String>, default: &str| text.clone().unwrap_or(default.into());
        let start = self.pace_start.unwrap_or(8);
        let factor = self.pace_factor.unwrap_or(200);
        let every = self.pace_every_s.unwrap_or(1_800);
        let pace = match word(&self.pace, "evidence").as_str() {
            "at_once" => Pace::AtOnce,
            "evidence" if start == 0 => Pace::AtOnce,
            "evidence" => Pace::Evidence { start },
            "exponential" if start == 0 || factor <= 100 || every == 0 => {
                return Err(bad(
                    "exponential: pace_start and pace_every_s must be at least 1, pace_factor at least 101",
                ));
            }
            "exponential" => Pace::Exponential {
                start,
                factor,
                every: Duration::from_secs(every),
            },
            other => {
                let text = format!("pace {other:?}: must be evidence, exponential or at_once");
                return Err(bad(text));
            }
        };
        let year = Duration::from_hours(366 * 24);
        Ok(Policy {
            pace,
            limits: Limits {
                max_in_flight: self.max_in_flight.filter(|n| *n > 0),
                per_minute: self.per_minute.filter(|n| *n > 0),
            },
            windows: self.windows()?,
            deadline: match self.deadline.as_deref() {
                None | Some("") => None,
                Some(text) => Some(instant("deadline", text)?),
            },
            battery_wait: self
                .battery_wait_s
                .map_or(BATTERY_WAIT, Duration::from_secs)
                .min(year),
            metered: word(&self.metered, "deltas_only").parse().map_err(bad)?,
            by_hand: self.by_hand.unwrap_or(false),
            gate: Gate {
                max_failure: share(max_failure)?,
                min_failures: self.min_failures.unwrap_or(2).clamp(1, 1_000_000),
                // Allowing more failures lowers the share of successes that can be asked for.
                min_success: share(
                    self.min_success_bp
                        .unwrap_or_else(|| 9_000.min(10_000u32.saturating_sub(max_failure))),
                )?,
                min_sample: self.min_sample.unwrap_or(1).max(1),
                max_silent: share(self.max_silent_bp.unwrap_or(MAX_SILENT_BP))?,
                silent_after,
                compare: self.compare.unwrap_or(false),
                soak: Duration::from_secs(self.soak_s.unwrap_or(600)).min(year),
                on_breach: word(&self.on_breach, OnBreach::Halt.as_str())
                    .parse()
                    .map_err(bad)?,
            },
        })
    }

    fn windows(&self) -> Result<Windows, Invalid> {
        let window = |text: &str| text.parse().map_err(Invalid::new);
        let general = match self.window.as_deref() {
            None | Some("") => None,
            Some(text) => Some(window(text)?),
        };
        let mut by_region = BTreeMap::new();
        for (region, text) in self
            .region_windows
            .iter()
            .filter(|(_, text)| !text.is_empty())
        {
            let region: Region = region.parse().map_err(Invalid::new)?;
            by_region.insert(region, window(text)?);
        }
        Ok(Windows { general, by_region })
    }
}

/// Parses a point in time as people write it, RFC 3339; `what` names the field in the refusal.
pub fn instant(what: &str, text: &str) -> Result<Timestamp, Invalid> {
    text.parse::<jiff::Timestamp>()
        .map(|t| Timestamp::from_micros(t.as_microsecond()))
        .map_err(|_| {
            let text = format!("{what} {text:?}: not a time like 2026-12-01T18:00:00Z");
            Invalid::new(text)
        })
}

/// Rules that say a pace in words, and nothing else.
pub(crate) fn pace_words(pace: Pace) -> PolicyBody {
    let (pace, pace_start, pace_factor, pace_every_s) = match pace {
        Pace::Evidence { start } => ("evidence", Some(start), None, None),
        Pace::Exponential {
            start,
            factor,
            every,
        } => (
            "exponential",
            Some(start),
            Some(factor),
            Some(every.as_secs()),
        ),
        // Without a start: a caller who sets another pace over it gets that one's default.
        Pace::AtOnce => ("at_once", None, None, None),
    };
    PolicyBody {
        pace: Some(pace.into()),
        pace_start,
        pace_factor,
        pace_every_s,
        ..PolicyBody::default()
    }
}

impl From<&Policy> for PolicyBody {
    fn from(policy: &Policy) -> Self {
        let gate = &policy.gate;
        let pace = pace_words(policy.pace);
        // A rollout at once shows a start of 0, which says the same.
        let start = match policy.pace {
            Pace::AtOnce => Some(0),
            _ => pace.pace_start,
        };
        Self {
            max_failure_bp: Some(gate.max_failure.get()),
            min_failures: Some(gate.min_failures),
            min_success_bp: Some(gate.min_success.get()),
            min_sample: Some(gate.min_sample),
            max_silent_bp: Some(gate.max_silent.get()),
            silent_after_s: Some(gate.silent_after.as_secs()),
            compare: Some(gate.compare),
            soak_s: Some(gate.soak.as_secs()),
            on_breach: Some(gate.on_breach.to_string()),
            pace_start: start,
            max_in_flight: policy.limits.max_in_flight,
            per_minute: policy.limits.per_minute,
            window: policy.windows.general.as_ref().map(ToString::to_string),
            region_windows: policy
                .windows
                .by_region
                .iter()
                .map(|(r, w)| (r.to_string(), w.to_string()))
                .collect(),
            deadline: policy.deadline.map(time),
            battery_wait_s: Some(policy.battery_wait.as_secs()),
            metered: Some(policy.metered.to_string()),
            by_hand: Some(policy.by_hand),
            ..pace
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_comes_back_and_an_edit_changes_only_what_it_names() {
        let mut body = PolicyBody {
            window: Some("daily 20:00-04:00 UTC".into()),
            deadline: Some("2026-12-01T18:00:00Z".into()),
            pace: Some("exponential".into()),
            ..PolicyBody::default()
        };
        body.region_windows
            .insert("NA".into(), "Sat-Sun 00:00-24:00 America/New_York".into());
        let policy = body.policy().unwrap();
        let again = PolicyBody::from(&policy).policy().unwrap();
        assert_eq!(again, policy);
        let edit = PolicyBody {
            max_in_flight: Some(7),
            window: Some(String::new()),
            ..PolicyBody::default()
        };
        let edited = edit.or(PolicyBody::from(&policy)).policy().unwrap();
        assert_eq!(edited.limits.max_in_flight, Some(7));
        assert_eq!(edited.windows.general, None);
        assert_eq!(edited.deadline, policy.deadline);
    }

    #[test]
    fn bad_values_are_refused() {
        let bad = |body: PolicyBody| assert!(body.policy().is_err(), "{body:?}");
        bad(PolicyBody {
            max_failure_bp: Some(10_001),
            ..PolicyBody::default()
        });
        bad(PolicyBody {
            silent_after_s: Some(1),
            ..PolicyBody::default()
        });
        bad(PolicyBody {
            pace: Some("fast".into()),
            ..PolicyBody::default()
        });
        bad(PolicyBody {
            deadline: Some("tomorrow".into()),
            ..PolicyBody::default()
        });
        bad(PolicyBody {
            window: Some("always".into()),
            ..PolicyBody::default()
        });
        bad(PolicyBody {
            metered: Some("often".into()),
            ..PolicyBody::default()
        });
    }

    fn policy(text: &str) -> Policy {
        let body: PolicyBody = toml::from_str(text).unwrap();
        body.policy().unwrap()
    }

    #[test]
    fn what_lets_more_happen_widens_and_what_lets_less_happen_does_not() {
        let base = "max_in_flight = 50\nper_minute = 100\nwindow = \"daily 20:00-04:00 UTC\"\nby_hand = true\ncompare = true";
        let changed = |line: &str| {
            let key = line.split(' ').next().unwrap();
            let rest: Vec<&str> = base.lines().filter(|l| !l.starts_with(key)).collect();
            policy(&format!("{}\n{line}", rest.join("\n")))
        };
        let old = policy(base);
        assert!(!old.is_widened_by(&old));
        for wider in [
            "max_in_flight = 51",
            "max_in_flight = 0",
            "per_minute = 101",
            "max_failure_bp = 201",
            "min_failures = 3",
            "min_success_bp = 8000",
            "max_silent_bp = 2000",
            "silent_after_s = 9000",
            "soak_s = 1",
            "pace_start = 9",
            "pace = \"at_once\"",
            "window = \"\"",
            "by_hand = false",
            "compare = false",
            "battery_wait_s = 1",
            "metered = \"allow\"",
        ] {
            assert!(old.is_widened_by(&changed(wider)), "{wider}");
        }
        for narrower in [
            "max_in_flight = 49",
            "per_minute = 1",
            "max_failure_bp = 100",
            "soak_s = 9000",
            "pace_start = 1",
            "min_sample = 50",
            "metered = \"never\"",
            "deadline = \"2030-01-01T00:00:00Z\"",
            "on_breach = \"halt_and_roll_back\"",
        ] {
            assert!(!old.is_widened_by(&changed(narrower)), "{narrower}");
        }
        let returning = policy("on_breach = \"halt_and_roll_back\"");
        let halting = policy("on_breach = \"halt\"");
        assert!(returning.is_widened_by(&halting));
    }
}

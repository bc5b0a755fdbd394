//! Scenario files.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use tidegate_api::{PolicyBody, WaveBody, preset};
use tidegate_domain::rollout::Wave;
use tidegate_domain::selector::Selector;
use tidegate_protocol::{Platform, Region, Timestamp, Version};

/// Error that prevents a scenario from running.
#[derive(Debug, thiserror::Error)]
#[error("invalid scenario: {0}")]
pub struct ScenarioError(pub String);

fn wrong(what: impl std::fmt::Display) -> ScenarioError {
    ScenarioError(what.to_string())
}

/// Maximum number of devices in a scenario.
const MAX_DEVICES: u32 = 1_000_000;
/// Maximum size of a release, in bytes: a tebibyte.
const MAX_BYTES: u64 = 1 << 40;
/// Maximum length of a scenario, in seconds.
const MAX_LENGTH: u64 = 30 * 86_400;

/// A whole scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Intent of the scenario, in a sentence.
    pub intent: String,
    /// Seed of its randomness.
    #[serde(default = "one")]
    pub seed: u64,
    /// Start time, RFC 3339.
    #[serde(deserialize_with = "instant")]
    pub start: Timestamp,
    /// Duration in seconds.
    #[serde(deserialize_with = "length")]
    pub duration: u64,
    /// Interval between check-ins of a device in seconds, before jitter.
    #[serde(deserialize_with = "length")]
    pub poll: u64,
    /// Whether to run the naive strategy beside it: all devices at once, whole images, no resuming,
    /// no check of the battery, and no second slot, so that a device is down until it is done.
    #[serde(default)]
    pub beside_naive: bool,
    /// The releases.
    pub release: Vec<ReleaseSpec>,
    /// The devices, in groups.
    pub devices: Vec<Group>,
    /// Failures of releases.
    #[serde(default)]
    pub failure: Vec<Failure>,
    /// The rollouts.
    pub rollout: Vec<RolloutSpec>,
    /// Actions of people, and faults of the control plane.
    #[serde(default)]
    pub event: Vec<Event>,
}

fn one() -> u64 {
    1
}

/// A release.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseSpec {
    /// Its version.
    pub version: Version,
    /// Size of the whole image, in bytes.
    pub bytes: u64,
    /// Whether it must not be skipped.
    #[serde(default)]
    pub stepping_stone: bool,
    /// Size of each delta in bytes, by the release that it starts from.
    #[serde(default)]
    pub delta: BTreeMap<Version, u64>,
}

/// A group of similar devices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Number of devices.
    pub count: u32,
    /// Region they are in.
    pub region: Region,
    /// Release they run at first.
    pub release: Version,
    /// Their platform.
    #[serde(default = "platform")]
    pub platform: Platform,
    /// Their labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Rate of their link, in bytes per second.
    pub rate: u64,
    /// Mean time that their link stays up, in seconds; always up if absent.
    #[serde(default, deserialize_with = "length")]
    pub up: u64,
    /// Mean time that it stays down, in seconds.
    #[serde(default, deserialize_with = "length")]
    pub down: u64,
    /// Share on a metered link, in percent.
    #[serde(default)]
    pub metered_percent: u32,
    /// Share that starts below 20 % on battery, in percent.
    #[serde(default)]
    pub low_percent: u32,
    /// Mean time that such a device needs to charge, in seconds; it never does if absent.
    #[serde(default, deserialize_with = "length")]
    pub charges_after: u64,
    /// Share that is switched off for the whole scenario, in percent.
    #[serde(default)]
    pub off_percent: u32,
    /// Duration of installing, in seconds.
    #[serde(default = "half_a_minute", deserialize_with = "length")]
    pub install: u64,
    /// Duration of a restart until health is known, in seconds.
    #[serde(default = "half_a_minute", deserialize_with = "length")]
    pub restart: u64,
}

fn platform() -> Platform {
    #[expect(clippy::expect_used, reason = "a constant")]
    "linux-x86_64".parse().expect("a platform")
}

fn half_a_minute() -> u64 {
    30
}

/// A failure that affects some devices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Release that fails.
    pub release: Version,
    /// Devices that are affected.
    #[serde(default, deserialize_with = "selector")]
    pub selector: Selector,
    /// Share whose health check fails, in percent.
    #[serde(default)]
    pub unhealthy_percent: f64,
    /// Share that takes the update and is never heard from again, in percent.
    #[serde(default)]
    pub silent_percent: f64,
    /// Share that turns bad each hour, in percent.
    #[serde(default)]
    pub per_hour_percent: f64,
}

impl Failure {
    /// Converts a percentage to millionths.
    pub(crate) fn millionths(percent: f64) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of at most 100 percent, rounded"
        )]
        let parts = (percent.clamp(0.0, 100.0) * 10_000.0).round() as u32;
        parts
    }
}

/// A rollout.
#[derive(Debug, Clone, Deserialize)]
pub struct RolloutSpec {
    /// Start, in seconds from the beginning.
    #[serde(default, deserialize_with = "length")]
    pub at: u64,
    /// Release to roll out.
    pub release: Version,
    /// A preset, as in the API.
    pub preset: Option<String>,
    /// The regions of the preset, in order.
    #[serde(default)]
    pub regions: Vec<Region>,
    /// Size of its batches, for a preset; 5000 if absent.
    pub batch: Option<String>,
    /// Its waves, if there is no preset.
    #[serde(default)]
    pub wave: Vec<WaveBody>,
    /// The rollback window, in seconds.
    #[serde(default = "half_an_hour", deserialize_with = "length")]
    pub rollback_window: u64,
    /// Maximum number of attempts per device.
    #[serde(default = "ten")]
    pub max_attempts: u32,
    /// Time for which a device may be silent before its deployment is given up, in seconds.
    #[serde(default = "day", deserialize_with = "length")]
    pub timeout: u64,
    /// Rules on how it proceeds and when it stops, as in the API.
    #[serde(flatten)]
    pub policy: PolicyBody,
}

fn half_an_hour() -> u64 {
    1_800
}

fn ten() -> u32 {
    10
}

fn day() -> u64 {
    86_400
}

/// An action of a person, or a fault of the control plane.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Time of the event, in seconds from the beginning.
    #[serde(deserialize_with = "length")]
    pub at: u64,
    /// Kind of the event.
    #[serde(rename = "do")]
    pub what: What,
    /// Index of the rollout, from 0.
    #[serde(default)]
    pub rollout: usize,
    /// Duration in seconds, if it matters.
    #[serde(default, deserialize_with = "length")]
    pub lasts: u64,
    /// Devices concerned, for a hold or a rollback of some devices.
    #[serde(default, deserialize_with = "selector")]
    pub selector: Selector,
}

/// Kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A person pauses a rollout.
    Pause,
    /// A person resumes it.
    Resume,
    /// A person halts it.
    Halt,
    /// A person rolls it back.
    Rollback,
    /// A person holds some devices back.
    Hold,
    /// A person makes the suggested hold and resumes the rollout, which excuses the failures so
    /// far.
    HoldSuggested,
    /// The leader is lost; another one takes over after `lasts`.
    LeaderLost,
    /// The control plane's clock goes back by `lasts`.
    ClockBack,
}

impl Scenario {
    /// Reads a scenario.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(wrong)?;
        let devices: u64 = scenario.devices.iter().map(|g| u64::from(g.count)).sum();
        if devices == 0 || devices > u64::from(MAX_DEVICES) {
            return Err(wrong(format!(
                "expected 1 to {MAX_DEVICES} devices, got {devices}"
            )));
        }
        if scenario.duration == 0 || scenario.duration > MAX_LENGTH || scenario.poll == 0 {
            return Err(wrong(
                "`duration` must be 1 s to 30 days, and `poll` at least 1 s",
            ));
        }
        let known = |version: &Version| scenario.release.iter().any(|r| r.version == *version);
        let mut named = scenario
            .devices
            .iter()
            .map(|g| &g.release)
            .chain(scenario.rollout.iter().map(|r| &r.release))
            .chain(scenario.failure.iter().map(|f| &f.release));
        if let Some(version) = named.find(|v| !known(v)) {
            return Err(wrong(format!(
                "{version} is not a release of this scenario"
            )));
        }
        if let Some(release) = scenario.release.iter().find(|r| r.bytes > MAX_BYTES) {
            let text = format!("{}: at most {MAX_BYTES} bytes", release.version);
            return Err(wrong(text));
        }
        let share = |percent: f64| (0.0..=100.0).contains(&percent);
        if let Some(failure) = scenario.failure.iter().find(|f| {
            !(share(f.unhealthy_percent) && share(f.silent_percent) && share(f.per_hour_percent))
        }) {
            let text = format!(
                "failures of {}: percentages must be 0 to 100",
                failure.release
            );
            return Err(wrong(text));
        }
        if let Some(event) = scenario.event.iter().find(|e| e.at > scenario.duration) {
            let text = format!("an event at {} s is after the end", event.at);
            return Err(wrong(text));
        }
        if let Some(group) = scenario.devices.iter().find(|g| g.rate == 0) {
            return Err(wrong(format!("devices of {}: a rate from 1", group.region)));
        }
        if let Some(event) = scenario
            .event
            .iter()
            .find(|e| e.rollout >= scenario.rollout.len())
        {
            return Err(wrong(format!("there is no rollout {}", event.rollout)));
        }
        Ok(scenario)
    }
}

impl RolloutSpec {
    /// Returns its waves, and the preset's policy; `devices` counts the devices of each region.
    pub(crate) fn waves(
        &self,
        devices: &BTreeMap<Region, u64>,
    ) -> Result<(Vec<Wave>, PolicyBody), ScenarioError> {
        let Some(name) = &self.preset else {
            let waves = self
                .wave
                .iter()
                .map(|w| {
                    Ok(Wave {
                        name: w.name.clone(),
                        selector: w.selector.parse().map_err(wrong)?,
                        size: w.size.parse().map_err(wrong)?,
                    })
                })
                .collect::<Result<_, ScenarioError>>()?;
            return Ok((waves, PolicyBody::default()));
        };
        let preset = preset::find(name).map_err(wrong)?;
        let batch = self
            .batch
            .as_deref()
            .unwrap_or("5000")
            .parse()
            .map_err(wrong)?;
        let waves = preset.waves(&self.regions, batch, devices).map_err(wrong)?;
        Ok((waves, preset.policy))
    }
}

/// Policy of a rollout: its own rules, then the preset's for what it leaves out.
pub(crate) fn policy(
    body: &PolicyBody,
    preset: PolicyBody,
) -> Result<tidegate_domain::rollout::policy::Policy, ScenarioError> {
    body.clone().or(preset).policy().map_err(wrong)
}

fn length<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => {
            return Err(serde::de::Error::custom(
                "expected a length such as 90s, 30m, 4h or 2d",
            ));
        }
    };
    let number: u64 = digits.parse().map_err(serde::de::Error::custom)?;
    number
        .checked_mul(factor)
        .ok_or_else(|| serde::de::Error::custom("the length is too large"))
}

fn instant<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(from)?;
    let at: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
    Ok(Timestamp::from_secs(at.as_second()))
}

fn selector<'de, D: Deserializer<'de>>(from: D) -> Result<Selector, D::Error> {
    String::deserialize(from)?
        .parse()
        .map_err(serde::de::Error::custom)
}

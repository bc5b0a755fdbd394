//! Rollouts, their deployments and events.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_domain::rollout::policy::{Policy, SILENT_AFTER};
use tidegate_domain::rollout::{Outcome, Tally, Wave};
use tidegate_protocol::{ProductName, Region, Version};
use utoipa::ToSchema;

use crate::{
    AskedView, ForecastView, Invalid, NothingElse, PolicyBody, PreviewView, ReasonView, WaveBody,
    preset,
};

/// Request to create a rollout.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutBody {
    /// Product of the release.
    pub product: String,
    /// Version of the release.
    pub release: String,
    /// Its waves, in order.
    #[serde(default)]
    pub waves: Vec<WaveBody>,
    /// Preset that provides the waves and some rules; instead of `waves`. See `GET
    /// /api/v1/presets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Regions for the preset, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Batch size for the preset: `5000` (the default) or `20%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// Rules by which it proceeds and stops.
    #[serde(flatten)]
    pub policy: PolicyBody,
    /// Unknown fields: refused, so that nobody believes to have set them.
    #[serde(flatten, skip_serializing)]
    #[schema(ignore)]
    pub rest: NothingElse,
    /// Rollback window after a healthy start, in seconds; 1,800 by default.
    pub rollback_window_s: Option<u32>,
    /// Maximum number of attempts per device, whatever the reasons; 10 by default. Each reason also
    /// has a budget of its own.
    pub max_attempts: Option<u32>,
    /// Time a device may be silent before its deployment times out, in seconds; a day by default.
    pub timeout_s: Option<u32>,
    /// Only preview the result.
    #[serde(default)]
    pub dry_run: bool,
}

/// Rollout to create.
#[derive(Debug, Clone)]
pub struct NewRollout {
    /// Product of the release.
    pub product: ProductName,
    /// Release to roll out.
    pub release: Version,
    /// Its waves, in order.
    pub waves: Vec<Wave>,
    /// Rules by which it proceeds and stops.
    pub policy: Policy,
    /// The rollback window after a healthy start, in seconds.
    pub rollback_window_s: u32,
    /// Maximum number of attempts per device.
    pub max_attempts: u32,
    /// Time a device may be silent before its deployment times out, in seconds.
    pub timeout_s: u32,
}

impl RolloutBody {
    /// Reads the body, with defaults for what is left out. `devices` counts the devices that the
    /// release applies to, by region; only a preset asks. A device is offline after `offline_after`
    /// without contact.
    pub fn rollout(
        &self,
        devices: impl FnOnce(&ProductName, &Version) -> BTreeMap<Region, u64>,
        offline_after: Duration,
    ) -> Result<NewRollout, Invalid> {
        let product: ProductName = self.product.parse().map_err(Invalid::new)?;
        let release: Version = self.release.parse().map_err(Invalid::new)?;
        let mut policy = self.policy.clone();
        let mut waves = self
            .waves
            .iter()
            .map(WaveBody::wave)
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(name) = &self.preset {
            if !waves.is_empty() {
                return Err(Invalid::new("give either waves or a preset, not both"));
            }
            let preset = preset::find(name)?;
            let regions = self
                .regions
                .iter()
                .map(|region| region.parse().map_err(Invalid::new))
                .collect::<Result<Vec<Region>, _>>()?;
            let batch = self.batch.as_deref().unwrap_or("5000");
            let batch = batch.parse().map_err(Invalid::new)?;
            waves = preset.waves(&regions, batch, &devices(&product, &release))?;
            policy = policy.or(preset.policy);
        }
        // A device that was merely not due to check in must not count as silent.
        let usual = offline_after.max(SILENT_AFTER);
        let after = policy.silent_after_s.get_or_insert(usual.as_secs());
        if Duration::from_secs(*after) < offline_after {
            let text = format!(
                "silent_after_s: at least {}, or devices would count as silent between two check-ins",
                offline_after.as_secs()
            );
            return Err(Invalid::new(text));
        }
        Ok(NewRollout {
            product,
            release,
            waves,
            policy: policy.policy()?,
            rollback_window_s: self.rollback_window_s.unwrap_or(1_800),
            max_attempts: self.max_attempts.unwrap_or(10),
            timeout_s: self.timeout_s.unwrap_or(86_400),
        })
    }
}

/// Counts of the devices of a wave or a rollout, by outcome.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub struct TallyView {
    /// Devices that have a deployment.
    pub exposed: u64,
    /// In flight, not healthy yet.
    pub in_flight: u64,
    /// Healthy on the new release.
    pub healthy: u64,
    /// Failed, including those that rolled back on their own.
    pub failed: u64,
    /// Rolling back.
    pub returning: u64,
    /// Rolled back by order.
    pub returned: u64,
    /// Called off before they switched.
    pub called_off: u64,
    /// Took the update and have not been heard from since.
    #[serde(default)]
    pub silent: u64,
    /// Not heard from before they took anything, or kept from it by their own machine, as by a full disk.
    #[serde(default)]
    pub unreached: u64,
    /// Ordered to roll back, but unable to.
    #[serde(default)]
    pub stuck: u64,
    /// Healthy, with the rollback window open.
    #[serde(default)]
    pub probation: u64,
}

impl From<Tally> for TallyView {
    fn from(t: Tally) -> Self {
        Self {
            exposed: t.exposed(),
            in_flight: t.in_flight(),
            healthy: t.healthy(),
            failed: t.failed(),
            returning: t.get(Outcome::Returning),
            returned: t.get(Outcome::Returned),
            called_off: t.get(Outcome::CalledOff),
            silent: t.silent(),
            unreached: t.get(Outcome::Unreached),
            stuck: t.get(Outcome::Stuck),
            probation: t.get(Outcome::Probation),
        }
    }
}

/// A wave.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WaveView {
    /// Its name.
    pub name: String,
    /// Selector of its devices.
    pub selector: String,
    /// Number of devices it may take.
    pub size: String,
    /// Its state.
    pub state: String,
    /// Devices it takes: selected, applicable, in no earlier wave. An estimate until the wave
    /// starts.
    pub members: u64,
    /// Counts of its devices.
    pub tally: TallyView,
    /// Time it started.
    pub started_at: Option<String>,
    /// Time it ended.
    pub ended_at: Option<String>,
}

/// A rollout.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    /// Its id.
    pub id: String,
    /// Product of the release.
    pub product: String,
    /// Version of the release.
    pub release: String,
    /// `draft`, `awaiting_approval`, `scheduled`, `running`, `paused`, `halted`, `rolling_back`,
    /// `rolled_back`, `rolled_back_partly` (some devices cannot go back), `completed`, `completed_partly`
    /// (some devices failed or were left out), `nothing_to_do` (it touched no device) or `cancelled`.
    pub state: String,
    /// Reason it does not proceed.
    pub reason: ReasonView,
    /// Incremented by every change; also the `ETag`.
    pub revision: i64,
    /// Its waves.
    pub waves: Vec<WaveView>,
    /// Counts of all waves together.
    pub tally: TallyView,
    /// Number of further devices that may be exposed now.
    pub permits: u64,
    /// Forecast of when it finishes if it continues as it does now.
    pub forecast: ForecastView,
    /// Preview of its effect; only in answers to `dry_run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<PreviewView>,
    /// Change that waits for approvals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<AskedView>,
    /// Rules by which it proceeds and stops.
    pub policy: PolicyBody,
    /// Rollback window, in seconds.
    pub rollback_window_s: u32,
    /// Extension of the rollback window, in seconds.
    pub extended_s: u32,
    /// Whether previous versions are kept until unfrozen.
    pub frozen: bool,
    /// Maximum number of attempts per device.
    pub max_attempts: u32,
    /// Number of devices without a way back that its start accepted; absent if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_no_way_back: Option<u64>,
    /// Time it is scheduled to start.
    pub starts_at: Option<String>,
    /// Time it was created.
    pub created_at: String,
    /// Operator who created it.
    pub created_by: String,
    /// Time it started.
    pub started_at: Option<String>,
    /// Time it was halted or began to roll back.
    pub halted_at: Option<String>,
    /// Time it ended.
    pub ended_at: Option<String>,
    /// Whether this is only a preview.
    pub dry_run: bool,
}

/// Order to a rollout.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderBody {
    /// The reason; needed to halt, roll back and cancel.
    #[serde(default)]
    #[schema(max_length = 300)]
    pub reason: String,
    /// Start time, RFC 3339; at once if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Number of devices that may be updated though they could not be ordered back afterwards; only for
    /// a start, which is refused while the preview counts more of them (`no_way_back`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_no_way_back: Option<u64>,
    /// Only preview the effect.
    #[serde(default)]
    pub dry_run: bool,
}

/// A deployment.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeploymentView {
    /// Its id.
    pub id: String,
    /// The rollout it belongs to.
    pub rollout: String,
    /// Device it updates.
    pub device: String,
    /// Index of its wave, from 0.
    pub wave: u32,
    /// Its state.
    pub state: String,
    /// Release the device ran before.
    pub from: Option<String>,
    /// Release of the current leg.
    pub leg: String,
    /// Reason for its state.
    pub reason: Option<ReasonView>,
    /// Number of attempts begun.
    pub attempts: u32,
    /// Bytes the device downloaded.
    pub bytes_downloaded: u64,
    /// Downtime of the device caused by it, in milliseconds; absent if not reported.
    pub downtime_ms: Option<u64>,
    /// Time of the first offer.
    pub created_at: String,
    /// Time of the last change.
    pub updated_at: String,
}

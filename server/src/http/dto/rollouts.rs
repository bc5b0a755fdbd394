//! Rollouts, their deployments and events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_domain::rollout::{Outcome, Tally};
use utoipa::ToSchema;

use super::{AskedView, ForecastView, PolicyBody, PreviewView, ReasonView, WaveBody, time};
use crate::service::rollouts::{Ordered, RolloutStanding};
use crate::store::deployments::Deployment;
use crate::store::events::StoredEvent;

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
    #[serde(flatten, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(ignore)]
    pub unknown: BTreeMap<String, serde_json::Value>,
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
    /// Not heard from before they took anything.
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
    /// Its state.
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

impl RolloutView {
    pub(crate) fn new(standing: RolloutStanding, dry_run: bool) -> Self {
        let RolloutStanding {
            rollout,
            view,
            waiting,
            forecast,
            preview,
            asked,
            ..
        } = standing;
        let waves = view
            .waves
            .iter()
            .map(|wave| WaveView {
                name: wave.wave.name.clone(),
                selector: wave.wave.selector.to_string(),
                size: wave.wave.size.to_string(),
                state: wave.progress.state.to_string(),
                members: wave.progress.quota,
                tally: wave.tally.into(),
                started_at: wave.progress.started_at.map(time),
                ended_at: wave.progress.ended_at.map(time),
            })
            .collect();
        Self {
            id: rollout.id.to_string(),
            product: rollout.product.to_string(),
            release: rollout.version.to_string(),
            state: rollout.state.to_string(),
            reason: (&waiting).into(),
            revision: rollout.revision,
            waves,
            tally: view.tally().into(),
            permits: view.progress.permits(),
            forecast: forecast.into(),
            preview: preview.map(PreviewView::from),
            asked: asked.map(AskedView::from),
            policy: (&rollout.policy).into(),
            rollback_window_s: rollout.rollback_window_s,
            extended_s: rollout.extended_s,
            frozen: rollout.frozen,
            max_attempts: rollout.max_attempts,
            starts_at: rollout.starts_at.map(time),
            created_at: time(rollout.created_at),
            created_by: rollout.created_by,
            started_at: rollout.started_at.map(time),
            halted_at: rollout.halted_at.map(time),
            ended_at: rollout.ended_at.map(time),
            dry_run,
        }
    }
}

impl From<Ordered> for RolloutView {
    fn from(ordered: Ordered) -> Self {
        Self::new(ordered.standing, ordered.dry_run)
    }
}

/// Order to a rollout.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct OrderBody {
    /// The reason; needed to halt, roll back and cancel.
    #[serde(default)]
    #[schema(max_length = 300)]
    pub reason: String,
    /// Start time, RFC 3339; at once if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
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

impl From<Deployment> for DeploymentView {
    fn from(d: Deployment) -> Self {
        Self {
            id: d.facts.id.to_string(),
            rollout: d.rollout.to_string(),
            device: d.device.to_string(),
            wave: d.facts.wave,
            state: d.facts.state.to_string(),
            from: d.facts.from.map(|v| v.to_string()),
            leg: d.facts.leg.to_string(),
            reason: d.facts.reason.as_ref().map(ReasonView::from),
            attempts: d.facts.attempts,
            bytes_downloaded: d.bytes_downloaded,
            downtime_ms: d.downtime_ms,
            created_at: time(d.created_at),
            updated_at: time(d.facts.updated_at),
        }
    }
}

/// Recorded event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Number, without gaps, in commit order.
    pub seq: i64,
    /// Time of the commit.
    pub at: String,
    /// Part of the system: `rollout`, `deployment`, `device`, ...
    pub topic: String,
    /// Word for what happened: `rollout_moved`, `gate_decided`, ...
    pub kind: String,
    /// Version of the schema of the fields.
    pub version: u32,
    /// Name of the actor, for people.
    pub actor: String,
    /// Kind of actor: `operator`, `device`, `planner`, `builder`, `check_in`, `system`.
    pub actor_kind: String,
    /// The operator's token or the device.
    pub actor_id: Option<String>,
    /// Product it belongs to.
    pub product: Option<String>,
    /// Rollout it belongs to.
    pub rollout: Option<String>,
    /// Device it belongs to.
    pub device: Option<String>,
    /// Ids, numbers and enumerated words; the fields depend on `kind`.
    #[schema(value_type = Object)]
    pub body: serde_json::Map<String, serde_json::Value>,
    /// Free text, and names of people and devices; the fields depend on `kind`.
    #[schema(value_type = Object)]
    pub said: serde_json::Map<String, serde_json::Value>,
    /// Sentence for people. Programs should read the fields.
    pub text: String,
}

impl From<StoredEvent> for EventView {
    fn from(e: StoredEvent) -> Self {
        Self {
            seq: e.seq,
            at: time(e.at),
            topic: e.topic.map_or_else(String::new, |t| t.to_string()),
            kind: e.kind,
            version: e.version,
            actor: e.actor,
            actor_kind: e.actor_kind,
            actor_id: e.actor_id,
            product: e.product,
            rollout: e.rollout,
            device: e.device.map(|d| d.to_string()),
            body: e.body,
            said: e.said,
            text: e.text,
        }
    }
}

/// Request to make a site bundle.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BundleBody {
    /// Selector of the rollout's devices, like `region=plant-7`.
    #[serde(default)]
    pub selector: String,
    /// Validity in days, 1 to 60.
    pub days: u16,
}

/// Orders to be carried to devices without a network.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BundleView {
    /// The rollout it belongs to.
    pub rollout: String,
    /// One order per selected device.
    pub orders: Vec<OrderView>,
}

/// Order to one device, or the reason there is none.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderView {
    /// Its id.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Signed assignment, as JSON text.
    pub assignment: Option<String>,
    /// Reason there is no assignment.
    pub reason: Option<ReasonView>,
}

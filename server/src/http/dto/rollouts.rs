//! Rollouts and what happens in them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_domain::rollout::{Outcome, Tally};
use utoipa::ToSchema;

use super::{AskedView, ForecastView, PolicyBody, PreviewView, ReasonView, time};
use crate::service::rollouts::{Ordered, RolloutStanding};
use crate::store::deployments::Deployment;
use crate::store::events::StoredEvent;

/// A wave to be.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WaveBody {
    /// A name for people.
    #[schema(min_length = 1, max_length = 60)]
    pub name: String,
    /// Whom: conditions like `region=EU,canary=true`; empty for everybody.
    #[serde(default)]
    pub selector: String,
    /// How many beyond the waves before: `all`, `20%` or `5000`.
    #[serde(default = "all")]
    pub size: String,
}

fn all() -> String {
    "all".into()
}

/// A rollout to be.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutBody {
    /// Whose release.
    pub product: String,
    /// Which release.
    pub release: String,
    /// Its waves in order.
    #[serde(default)]
    pub waves: Vec<WaveBody>,
    /// A preset that makes the waves and some rules; instead of `waves`. See `GET /api/v1/presets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The regions of a preset, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// The size of a preset's batches: `5000` (the default) or `20%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// How it goes on and when it stops.
    #[serde(flatten)]
    pub policy: PolicyBody,
    /// What no rule is called: refused, so that nobody believes to have set it.
    #[serde(flatten, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(ignore)]
    pub unknown: BTreeMap<String, serde_json::Value>,
    /// The rollback window after a healthy start, in seconds; 1,800 by default.
    pub window_s: Option<u32>,
    /// How often a device may try, whatever the reasons; 10 by default. Each reason has a budget of
    /// its own besides.
    pub max_attempts: Option<u32>,
    /// How long a device may be silent before its deployment times out, in seconds; a day by
    /// default.
    pub timeout_s: Option<u32>,
    /// Only show what it would be.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of the devices of a wave or a rollout.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub struct TallyView {
    /// Devices that have a deployment.
    pub exposed: u64,
    /// Under way, not healthy yet.
    pub in_flight: u64,
    /// Healthy on the new release.
    pub healthy: u64,
    /// Failed; those that went back by themselves included.
    pub failed: u64,
    /// Under way back.
    pub returning: u64,
    /// Back by order.
    pub returned: u64,
    /// Called off before they switched.
    pub called_off: u64,
    /// Took the update and are not heard of.
    #[serde(default)]
    pub silent: u64,
    /// Were not heard of before they took anything.
    #[serde(default)]
    pub unreached: u64,
    /// Ordered back, and cannot.
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
    /// Whom it concerns.
    pub selector: String,
    /// How many of them.
    pub size: String,
    /// Where it stands.
    pub state: String,
    /// Devices that it takes: selected, concerned, in no earlier wave. An estimate until it starts.
    pub members: u64,
    /// What became of them.
    pub tally: TallyView,
    /// When it started.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
}

/// A rollout.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    /// Its id.
    pub id: String,
    /// Whose release.
    pub product: String,
    /// Which release.
    pub release: String,
    /// Where it stands.
    pub state: String,
    /// Why nothing more happens.
    pub reason: ReasonView,
    /// Rises with every change; also the `ETag`.
    pub revision: i64,
    /// Its waves.
    pub waves: Vec<WaveView>,
    /// All waves together.
    pub tally: TallyView,
    /// Devices that may be exposed now, beyond those that are.
    pub room: u64,
    /// When it will be finished, if all goes on as it does.
    pub forecast: ForecastView,
    /// What it would do: only in answers to `dry_run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<PreviewView>,
    /// What waits for approvals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<AskedView>,
    /// How it goes on and when it stops.
    pub policy: PolicyBody,
    /// The rollback window, in seconds.
    pub window_s: u32,
    /// By how much it was extended, in seconds.
    pub extended_s: u32,
    /// Whether previous versions are kept until they are unfrozen.
    pub frozen: bool,
    /// How often a device may try.
    pub max_attempts: u32,
    /// When it is to start by itself.
    pub starts_at: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// When it started.
    pub started_at: Option<String>,
    /// When it was halted, or began to roll back.
    pub halted_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// Whether this is only what would be.
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
            room: view.progress.room(),
            forecast: forecast.into(),
            preview: preview.map(PreviewView::from),
            asked: asked.map(AskedView::from),
            policy: (&rollout.policy).into(),
            window_s: rollout.window_s,
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

/// An order to a rollout.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct OrderBody {
    /// Why; needed to halt, roll back and cancel.
    #[serde(default)]
    #[schema(max_length = 300)]
    pub reason: String,
    /// Start: when, RFC 3339; at once if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Only show what it would do.
    #[serde(default)]
    pub dry_run: bool,
}

/// A deployment.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeploymentView {
    /// Its id.
    pub id: String,
    /// In which rollout.
    pub rollout: String,
    /// On which device.
    pub device: String,
    /// In which wave, from 0.
    pub wave: u32,
    /// Where it stands.
    pub state: String,
    /// What the device ran before.
    pub from: Option<String>,
    /// The release of the present leg.
    pub leg: String,
    /// Why it stands there.
    pub reason: Option<ReasonView>,
    /// Attempts begun.
    pub attempts: u32,
    /// Bytes that the device fetched.
    pub bytes_downloaded: u64,
    /// For how long the device stood still because of it, in milliseconds, where it said so.
    pub downtime_ms: Option<u64>,
    /// When it was first offered.
    pub created_at: String,
    /// When it last changed.
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

/// Something that happened.
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
    /// Version of the form of the fields.
    pub version: u32,
    /// Who caused it, for people.
    pub actor: String,
    /// Kind of actor: `operator`, `device`, `planner`, `builder`, `check_in`, `system`.
    pub actor_kind: String,
    /// The operator's token or the device.
    pub actor_id: Option<String>,
    /// Product that it is of.
    pub product: Option<String>,
    /// Rollout that it is of.
    pub rollout: Option<String>,
    /// Device that it is of.
    pub device: Option<String>,
    /// Ids, numbers and closed words, by the kind.
    #[schema(value_type = Object)]
    pub body: serde_json::Map<String, serde_json::Value>,
    /// Free text, and names of people and devices, by the kind.
    #[schema(value_type = Object)]
    pub said: serde_json::Map<String, serde_json::Value>,
    /// The sentence for people. Programs read the fields.
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

/// For whom a site bundle is to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BundleBody {
    /// Which devices of the rollout, like `region=plant-7`.
    #[serde(default)]
    pub selector: String,
    /// For how many days it is good, 1 to 60.
    pub days: u16,
}

/// Orders to be carried to devices without a network.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BundleView {
    /// Of which rollout.
    pub rollout: String,
    /// One for each selected device.
    pub orders: Vec<OrderView>,
}

/// What one device is to do, or why it has nothing to do.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderView {
    /// Its id.
    pub device: String,
    /// Its name.
    pub name: String,
    /// A signed assignment as JSON text.
    pub assignment: Option<String>,
    /// Why there is none.
    pub reason: Option<ReasonView>,
}

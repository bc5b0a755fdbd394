//! Rollouts and what happens in them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_domain::rollout::{Pace, Tally};
use utoipa::ToSchema;

use super::{ReasonView, time};
use crate::service::rollouts::{Ordered, RolloutStanding};
use crate::store::deployments::Deployment;
use crate::store::events::Event;

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
    pub waves: Vec<WaveBody>,
    /// The share of finished devices that may fail, in hundredths of a percent; 200 by default.
    #[schema(maximum = 10_000)]
    pub max_failure_bp: Option<u32>,
    /// So many failures before the share counts; 2 by default.
    pub min_failures: Option<u64>,
    /// The share that must be healthy when a wave ends, in hundredths of a percent; 9,000 by
    /// default, less where more failures are allowed.
    #[schema(maximum = 10_000)]
    pub min_success_bp: Option<u32>,
    /// How long each wave soaks, in seconds; 600 by default.
    pub soak_s: Option<u64>,
    /// `halt` (the default) or `halt_and_roll_back`.
    pub on_breach: Option<String>,
    /// Devices in flight at first; 0 for the whole wave at once; 8 by default. Later as many as
    /// twice the healthy ones so far.
    pub pace_start: Option<u64>,
    /// The rollback window after a healthy start, in seconds; 1,800 by default.
    pub window_s: Option<u32>,
    /// How often a device may try; 3 by default.
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
}

impl From<Tally> for TallyView {
    fn from(t: Tally) -> Self {
        Self {
            exposed: t.exposed(),
            in_flight: t.in_flight,
            healthy: t.healthy,
            failed: t.failed,
            returning: t.returning,
            returned: t.returned,
            called_off: t.called_off,
        }
    }
}

impl std::ops::AddAssign for TallyView {
    fn add_assign(&mut self, other: Self) {
        self.exposed += other.exposed;
        self.in_flight += other.in_flight;
        self.healthy += other.healthy;
        self.failed += other.failed;
        self.returning += other.returning;
        self.returned += other.returned;
        self.called_off += other.called_off;
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
    /// Devices that it can take: selected, concerned, in no earlier wave.
    pub members: u64,
    /// Members that it has admitted.
    pub admitted: u64,
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
    /// Devices that it concerns by region.
    pub by_region: BTreeMap<String, u64>,
    /// Devices that it selects and does not concern, by reason.
    pub blocked: BTreeMap<String, u64>,
    /// The rollback window, in seconds.
    pub window_s: u32,
    /// Devices in flight at first; 0 for the whole wave at once.
    pub pace_start: u64,
    /// What a breach does.
    pub on_breach: String,
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
            waves,
            counted,
            waiting,
        } = standing;
        let mut tally = TallyView::default();
        let waves = waves
            .iter()
            .zip(&counted.view.waves)
            .map(|(row, view)| {
                tally += view.census.tally.into();
                WaveView {
                    name: row.wave.name.clone(),
                    selector: row.wave.selector.to_string(),
                    size: row.wave.size.to_string(),
                    state: row.state.to_string(),
                    members: view.census.members,
                    admitted: view.census.admitted,
                    tally: view.census.tally.into(),
                    started_at: row.started_at.map(time),
                    ended_at: row.ended_at.map(time),
                }
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
            tally,
            by_region: counted
                .by_region
                .iter()
                .map(|(r, n)| (r.to_string(), *n))
                .collect(),
            blocked: counted
                .blocked
                .iter()
                .map(|(r, n)| (r.to_string(), *n))
                .collect(),
            window_s: rollout.window_s,
            pace_start: match rollout.pace {
                Pace::Evidence { start } => start,
                Pace::AtOnce => 0,
            },
            on_breach: rollout.gate.on_breach.to_string(),
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
            created_at: time(d.created_at),
            updated_at: time(d.facts.updated_at),
        }
    }
}

/// Something that happened.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Its number.
    pub seq: i64,
    /// When.
    pub at: String,
    /// What kind.
    pub kind: String,
    /// Who did it.
    pub actor: String,
    /// On which device.
    pub device: Option<String>,
    /// What happened.
    pub text: String,
}

impl From<Event> for EventView {
    fn from(e: Event) -> Self {
        Self {
            seq: e.seq,
            at: time(e.at),
            kind: e.event.kind.to_string(),
            actor: e.event.actor,
            device: e.event.device.map(|d| d.to_string()),
            text: e.event.text,
        }
    }
}

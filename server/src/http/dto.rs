//! What the API says, as types. The CLI reads these very types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_domain::rollout::{Pace, Tally};
use tidegate_protocol::{Explained, Timestamp};
use utoipa::ToSchema;

pub use super::page::Page;
pub use crate::service::releases::PayloadView;

use crate::service::devices::WhyDevice;
use crate::service::fleet::DeviceState;
use crate::service::rollouts::{Ordered, RolloutStanding};
use crate::store::deployments::Deployment;
use crate::store::events::Event;
use crate::store::products::{Artifact, Release};

/// RFC 3339 in UTC with microseconds.
fn time(at: Timestamp) -> String {
    let whole = at.to_string();
    let micros = at.as_micros().rem_euclid(1_000_000);
    format!("{}.{micros:06}Z", whole.trim_end_matches('Z'))
}

/// A reason: its code, a sentence, the particulars.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReasonView {
    /// The stable code.
    pub code: String,
    /// The sentence for people.
    pub text: String,
    /// The article that explains it.
    pub knowledge_key: String,
}

impl From<&Explained> for ReasonView {
    fn from(reason: &Explained) -> Self {
        Self {
            code: reason.code.to_string(),
            text: reason.to_string(),
            knowledge_key: reason.code.knowledge_key(),
        }
    }
}

/// A product to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProductBody {
    /// Its name: a-z, 0-9 and '-'.
    #[schema(max_length = 40)]
    pub name: String,
}

/// A product.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProductView {
    /// Its name.
    pub name: String,
}

/// A release to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReleaseBody {
    /// Its semantic version.
    #[schema(max_length = 64)]
    pub version: String,
    /// What is new in it.
    #[serde(default)]
    pub notes: String,
}

/// A release.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReleaseView {
    /// Whose.
    pub product: String,
    /// Which.
    pub version: String,
    /// How far it has come.
    pub stage: String,
    /// What is new in it.
    pub notes: String,
    /// Why it has its stage.
    pub reason: Option<String>,
    /// Rises with every change; also the `ETag`.
    pub revision: i64,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// Its artifacts; absent in lists.
    #[serde(default)]
    pub artifacts: Vec<ArtifactView>,
}

impl ReleaseView {
    pub(crate) fn new(release: Release, artifacts: &[Artifact]) -> Self {
        Self {
            product: release.product.to_string(),
            version: release.version.to_string(),
            stage: release.stage.to_string(),
            notes: release.notes,
            reason: release.reason,
            revision: release.revision,
            created_at: time(release.created_at),
            created_by: release.created_by,
            artifacts: artifacts.iter().map(ArtifactView::from).collect(),
        }
    }
}

/// An artifact to be added; its bytes were uploaded before.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ArtifactBody {
    /// For what, for example `linux-x86_64`.
    pub platform: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// An artifact.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// For what.
    pub platform: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Their number.
    pub length: u64,
}

impl From<&Artifact> for ArtifactView {
    fn from(artifact: &Artifact) -> Self {
        Self {
            platform: artifact.platform.to_string(),
            sha256: artifact.image.sha256.to_string(),
            length: artifact.image.length,
        }
    }
}

/// Bytes that are stored.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BlobView {
    /// Their SHA-256.
    pub sha256: String,
    /// Their number.
    pub length: u64,
}

/// A promotion.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PromoteBody {
    /// The stage to take: alpha, beta, ga, eol or withdrawn.
    pub to: String,
    /// Why; needed when a stage is skipped and for a withdrawal.
    pub reason: Option<String>,
    /// Only say what would be.
    #[serde(default)]
    pub dry_run: bool,
}

/// One signed file.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MetadataFileBody {
    /// `root`, `targets` or the name of a product-channel role.
    pub role: String,
    /// The signed file as text.
    pub body: String,
}

/// Signed files, taken all or none, in order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MetadataBody {
    /// The files.
    pub files: Vec<MetadataFileBody>,
}

/// What the server trusts and signs with.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TrustView {
    /// Public halves of the online keys by role.
    pub online_keys: BTreeMap<String, String>,
    /// Newest version of each role.
    pub versions: BTreeMap<String, u64>,
    /// SHA-256 of the newest root.
    pub root_sha256: Option<String>,
}

/// A join token to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenBody {
    /// The product of those who join.
    pub product: String,
    /// Their region, where the token is to fix it.
    pub region: Option<String>,
    /// Their channel, where the token is to fix it.
    pub channel: Option<String>,
    /// Labels that they get.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many may join; 1 by default.
    pub uses: Option<u32>,
    /// For how many seconds; a day by default.
    pub valid_s: Option<u64>,
}

/// A join token, shown once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenView {
    /// The whole token.
    pub token: String,
}

/// A device.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its product.
    pub product: String,
    /// Its platform.
    pub platform: String,
    /// Its region.
    pub region: String,
    /// Its channel.
    pub channel: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it may take part.
    pub active: bool,
    /// Whether it was heard of lately.
    pub online: bool,
    /// What runs on it.
    pub release: Option<String>,
    /// The image of what runs on it.
    pub image: Option<String>,
    /// The agent's version.
    pub agent_version: String,
    /// Charge in percent.
    pub battery_percent: Option<u8>,
    /// Where its power comes from.
    pub power: String,
    /// When it joined.
    pub enrolled_at: String,
    /// When it was last heard of.
    pub last_seen: String,
    /// What it does in its present deployment, if it has one.
    pub state: Option<String>,
    /// Seconds of rollback window left, in probation.
    pub window_left_s: Option<u32>,
    /// Releases that it is kept from.
    pub quarantine: Vec<String>,
    /// Why it does what it does.
    pub reason: ReasonView,
}

impl DeviceView {
    pub(crate) fn new(state: &DeviceState, reason: &Explained, online: bool) -> Self {
        let device = &state.device;
        let open = state.deployments.values().find(|d| !d.state.is_final());
        Self {
            id: device.id.to_string(),
            name: device.name.clone(),
            product: device.product.to_string(),
            platform: device.platform.to_string(),
            region: device.region.to_string(),
            channel: device.channel.to_string(),
            labels: device.labels.clone(),
            active: device.active,
            online,
            release: device.release.as_ref().map(ToString::to_string),
            image: device.image.map(|i| i.to_string()),
            agent_version: device.agent_version.clone(),
            battery_percent: device.battery.percent,
            power: device.battery.power.to_string(),
            enrolled_at: time(device.enrolled_at),
            last_seen: time(device.last_seen),
            state: open.map(|d| d.state.to_string()),
            window_left_s: state.status.and_then(|s| s.window_left_s),
            quarantine: state.quarantine.iter().map(ToString::to_string).collect(),
            reason: reason.into(),
        }
    }
}

/// One link of the chain behind a decision.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// The rollout that was looked at; absent for the device itself.
    pub rollout: Option<String>,
    /// What was looked at.
    pub check: String,
    /// Whether the device got past it.
    pub passed: bool,
    /// What was found.
    pub found: String,
}

/// Why a device is told what it is told.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WhyView {
    /// The answer.
    pub reason: ReasonView,
    /// How it came about.
    pub steps: Vec<StepView>,
}

impl From<WhyDevice> for WhyView {
    fn from(why: WhyDevice) -> Self {
        let steps = why.steps.into_iter().map(|s| StepView {
            rollout: s.rollout.map(|r| r.to_string()),
            check: s.check.into(),
            passed: s.passed,
            found: s.found,
        });
        Self {
            reason: (&why.reason).into(),
            steps: steps.collect(),
        }
    }
}

/// A change that needs a reason.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReasonBody {
    /// Why.
    #[schema(min_length = 1, max_length = 300)]
    pub reason: String,
}

/// A quarantine to be lifted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LiftBody {
    /// The release.
    pub version: String,
    /// Why.
    #[schema(min_length = 1, max_length = 300)]
    pub reason: String,
}

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
    /// default.
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

/// A token to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenBody {
    /// Whose it is.
    #[schema(min_length = 1, max_length = 60)]
    pub name: String,
    /// What it may do: viewer, responder, release_manager or admin.
    pub role: String,
    /// For how many seconds; for ever by default.
    pub valid_s: Option<u64>,
}

/// A token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub role: String,
    /// When it was made.
    pub created_at: String,
    /// When it ends.
    pub expires_at: Option<String>,
    /// Its secret; only in the answer that makes it.
    pub secret: Option<String>,
}

impl TokenView {
    pub(crate) fn new(
        token: &crate::store::operators::OperatorToken,
        secret: Option<String>,
    ) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name.clone(),
            role: token.role.to_string(),
            created_at: time(token.created_at),
            expires_at: token.expires_at.map(time),
            secret,
        }
    }
}

/// Who a token belongs to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WhoamiView {
    /// The token's name.
    pub name: String,
    /// Its role.
    pub role: String,
}

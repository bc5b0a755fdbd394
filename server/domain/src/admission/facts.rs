//! What admission rests on: the plan and the device, as facts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_protocol::{
    Battery, Channel, DeploymentId, DeploymentState, Explained, Image, Platform, ProductName,
    Reason, Region, RolloutId, Sha256, Stage, Timestamp, Version,
};

use crate::hold::Hold;
use crate::ring::{Frontier, Ring};
use crate::rollout::{RolloutState, WaveState};
use crate::selector::{self, Selector};
use crate::version_gate::GatePolicy;
use crate::window::Windows;

/// Everything that decisions about a fleet rest on. Immutable; swapped whole.
#[derive(Debug, Clone, Default)]
pub struct FleetPlan {
    /// By product.
    pub products: BTreeMap<ProductName, ProductPlan>,
}

/// The releases and rollouts of one product.
#[derive(Debug, Clone, Default)]
pub struct ProductPlan {
    /// Its releases.
    pub releases: BTreeMap<Version, ReleasePlan>,
    /// Rollouts that concern devices: live ones, and the completed ones that bring late devices
    /// up, newest goal first.
    pub rollouts: Vec<RolloutPlan>,
    /// Holds.
    pub holds: Vec<Hold>,
    /// What the offline keys say of each channel.
    pub signed: BTreeMap<Channel, SignedPolicy>,
    /// What business servers ask of clients.
    pub gate: GatePolicy,
}

/// What the offline-signed role of a channel says beyond its images. Devices hold to it whatever
/// the server says, so the server does not offer what they would refuse.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignedPolicy {
    /// The oldest release that may be installed.
    pub min_release: Option<Version>,
    /// Releases that may not be installed any more.
    pub eol: BTreeSet<Version>,
}

impl SignedPolicy {
    /// Whether a release may be installed under it.
    pub fn allows(&self, release: &Version) -> bool {
        self.min_release.as_ref().is_none_or(|min| release >= min) && !self.eol.contains(release)
    }
}

/// A release as admission sees it.
#[derive(Debug, Clone)]
pub struct ReleasePlan {
    /// Its stage.
    pub stage: Stage,
    /// When its life ends or ended, and what was announced.
    pub eol: Option<(Timestamp, String)>,
    /// Its artifacts.
    pub artifacts: BTreeMap<Platform, ArtifactPlan>,
}

/// An artifact as admission sees it. Path rules stand in offline-signed metadata and may differ
/// by platform.
#[derive(Debug, Clone)]
pub struct ArtifactPlan {
    /// Its bytes.
    pub image: Image,
    /// Whether it may not be skipped.
    pub stepping_stone: bool,
    /// The oldest release that it may be installed over.
    pub min_from: Option<Version>,
    /// Whether a device may return from it to an older one by order.
    pub allow_rollback: bool,
    /// Bytes of the smallest full payload.
    pub full_bytes: u64,
    /// Bytes of a delta, by the image that it starts from.
    pub deltas: BTreeMap<Sha256, u64>,
}

/// A rollout as admission sees it.
#[derive(Debug, Clone)]
pub struct RolloutPlan {
    /// Its id.
    pub id: RolloutId,
    /// The release that it brings.
    pub goal: Version,
    /// Where it stands.
    pub state: RolloutState,
    /// An offer must name it; a halt raises it.
    pub generation: i64,
    /// Its salt.
    pub salt: Ring,
    /// Its waves.
    pub waves: Vec<WavePlan>,
    /// How often a device may try.
    pub max_attempts: u32,
    /// The rollback window after a healthy start, in seconds.
    pub window_s: u32,
    /// When devices may be updated.
    pub windows: Windows,
    /// Over how long the devices of a window that opens are spread.
    pub ramp: Duration,
    /// When it should be finished.
    pub deadline: Option<Timestamp>,
    /// How long a device may wait for a better battery.
    pub battery_wait: Duration,
    /// What metered links may carry.
    pub metered: Metered,
}

/// What a rollout may fetch over links that cost by the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metered {
    /// Anything.
    Allow,
    /// Deltas alone.
    DeltasOnly,
    /// Nothing.
    Never,
}

tidegate_protocol::words!(Metered("metered policy") {
    Allow = "allow",
    DeltasOnly = "deltas_only",
    Never = "never",
});

/// A wave as admission sees it.
#[derive(Debug, Clone)]
pub struct WavePlan {
    /// A name for people.
    pub name: String,
    /// Whom it concerns.
    pub selector: Selector,
    /// How far it has admitted.
    pub frontier: Frontier,
    /// Where it stands.
    pub state: WaveState,
}

/// A deployment as admission sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentFacts {
    /// Its id.
    pub id: DeploymentId,
    /// In which wave.
    pub wave: u32,
    /// Where it stands.
    pub state: DeploymentState,
    /// What the device ran before the rollout.
    pub from: Option<Version>,
    /// The release of the present leg.
    pub leg: Version,
    /// Why it stands there.
    pub reason: Option<Explained>,
    /// Attempts begun.
    pub attempts: u32,
    /// Whether the device has begun to install in this attempt: from then on silence says
    /// something about the release.
    pub took: bool,
    /// How often it failed, by reason.
    pub failures: BTreeMap<Reason, u32>,
    /// When its state last changed.
    pub updated_at: Timestamp,
}

/// A device as admission sees it.
#[derive(Debug, Clone)]
pub struct DeviceFacts<'a> {
    /// Whether it may take part.
    pub active: bool,
    /// Whether it is kept from everything but the way back.
    pub isolated: bool,
    /// Its platform.
    pub platform: &'a Platform,
    /// Its region.
    pub region: &'a Region,
    /// Its channel.
    pub channel: Channel,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its ring position.
    pub ring: Ring,
    /// What runs on it.
    pub release: Option<&'a Version>,
    /// The image of what runs on it.
    pub image: Option<Sha256>,
    /// Its battery.
    pub battery: Battery,
    /// Since when its battery has been low without a pause.
    pub low_since: Option<Timestamp>,
    /// Whether its link costs by the byte.
    pub metered: bool,
    /// Its deployments in rollouts of the plan.
    pub deployments: &'a BTreeMap<RolloutId, DeploymentFacts>,
    /// Releases that it came back from.
    pub quarantine: &'a BTreeSet<Version>,
}

impl<'a> DeviceFacts<'a> {
    /// What selectors look at.
    pub fn selectable(&self) -> selector::Facts<'a> {
        selector::Facts {
            region: self.region,
            platform: self.platform,
            labels: self.labels,
            release: self.release,
        }
    }
}

//! What admission rests on: the plan and the device, as facts.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_protocol::{
    Battery, Channel, DeploymentId, DeploymentState, Explained, Image, Platform, ProductName,
    Region, RolloutId, Sha256, Stage, Timestamp, Version,
};

use crate::ring::{Frontier, Ring};
use crate::rollout::{RolloutState, WaveState};
use crate::selector::Selector;

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
}

/// A release as admission sees it.
#[derive(Debug, Clone)]
pub struct ReleasePlan {
    /// Its stage.
    pub stage: Stage,
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
}

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
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl DeploymentFacts {
    /// Whether the device went back because of what it saw itself, not by order.
    pub fn came_back_by_itself(&self) -> bool {
        self.reason.as_ref().is_some_and(|r| r.code.is_failure())
    }
}

/// A device as admission sees it.
#[derive(Debug, Clone)]
pub struct DeviceFacts<'a> {
    /// Whether it may take part.
    pub active: bool,
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
    /// Its deployments in rollouts of the plan.
    pub deployments: &'a BTreeMap<RolloutId, DeploymentFacts>,
    /// Releases that it came back from.
    pub quarantine: &'a BTreeSet<Version>,
}

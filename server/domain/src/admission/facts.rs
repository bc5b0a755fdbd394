//! Inputs of admission: the plan and the device, as facts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_protocol::{
    Battery, Channel, DeploymentState, Image, Platform, ProductName, Region, RolloutId, Sha256,
    Stage, Timestamp, Version,
};

use crate::client::GatePolicy;
use crate::deployment::DeploymentFacts;
use crate::hold::Hold;
use crate::ring::{Frontier, Ring};
use crate::rollout::{RolloutState, WaveState};
use crate::selector::{self, Selector};
use crate::transport::Metered;
use crate::window::Windows;

/// Input of all decisions about a fleet. Immutable; replaced as a whole.
#[derive(Debug, Clone, Default)]
pub struct FleetPlan {
    /// Plans by product.
    pub products: BTreeMap<ProductName, ProductPlan>,
}

/// The releases and rollouts of one product.
#[derive(Debug, Clone, Default)]
pub struct ProductPlan {
    /// Its releases.
    pub releases: BTreeMap<Version, ReleasePlan>,
    /// Rollouts that concern devices: live ones, and completed ones that still update late devices;
    /// newest goal first.
    pub rollouts: Vec<RolloutPlan>,
    /// Holds.
    pub holds: Vec<Hold>,
    /// Policy signed by the offline keys, by channel.
    pub signed: BTreeMap<Channel, SignedPolicy>,
    /// Requirements that business servers set for clients.
    pub gate: GatePolicy,
}

/// Policy in the offline-signed role of a channel, beyond its images. Devices obey it whatever the
/// server says, so the server does not offer what they would refuse.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignedPolicy {
    /// The oldest release that may be installed.
    pub min_release: Option<Version>,
    /// Releases that may not be installed any more.
    pub eol: BTreeSet<Version>,
    /// Images that it lists: a device of the channel takes no other one.
    pub listed: BTreeSet<(Version, Platform)>,
}

impl SignedPolicy {
    /// Returns whether a release may be installed under it.
    pub fn allows(&self, release: &Version) -> bool {
        self.min_release.as_ref().is_none_or(|min| release >= min) && !self.eol.contains(release)
    }
}

/// A release as admission sees it.
#[derive(Debug, Clone)]
pub struct ReleasePlan {
    /// Its stage.
    pub stage: Stage,
    /// Announced end of life, past or future, with the notice.
    pub eol: Option<(Timestamp, String)>,
    /// Its artifacts.
    pub artifacts: BTreeMap<Platform, ArtifactPlan>,
}

/// An artifact as admission sees it. Path rules come from offline-signed metadata and may differ by
/// platform.
#[derive(Debug, Clone)]
pub struct ArtifactPlan {
    /// Its image.
    pub image: Image,
    /// Whether a device may not skip it.
    pub stepping_stone: bool,
    /// Oldest release it may be installed over; `None` for any.
    pub min_from: Option<Version>,
    /// Whether a device may be ordered back from it to an older release.
    pub allow_rollback: bool,
    /// Bytes of the smallest full payload.
    pub full_bytes: u64,
    /// Size of each delta in bytes, keyed by its source image.
    pub deltas: BTreeMap<Sha256, u64>,
}

/// A rollout as admission sees it.
#[derive(Debug, Clone)]
pub struct RolloutPlan {
    /// Its id.
    pub id: RolloutId,
    /// The release that it installs.
    pub release: Version,
    /// Current state.
    pub state: RolloutState,
    /// Generation that an offer must name; a halt raises it.
    pub generation: i64,
    /// Its salt.
    pub salt: Ring,
    /// Its waves.
    pub waves: Vec<WavePlan>,
    /// Maximum number of attempts per device.
    pub max_attempts: u32,
    /// The rollback window after a healthy start, in seconds.
    pub rollback_window_s: u32,
    /// Windows in which devices may be updated.
    pub windows: Windows,
    /// Time over which devices are spread when their window opens.
    pub ramp: Duration,
    /// Time by which it should be finished.
    pub deadline: Option<Timestamp>,
    /// Longest time a device may wait for its battery to charge.
    pub battery_wait: Duration,
    /// Policy for metered links.
    pub metered: Metered,
}

/// A wave as admission sees it.
#[derive(Debug, Clone)]
pub struct WavePlan {
    /// A name for people.
    pub name: String,
    /// Devices that it selects.
    pub selector: Selector,
    /// Frontier up to which it has admitted devices.
    pub frontier: Frontier,
    /// Current state.
    pub state: WaveState,
}

/// Version that a device keeps from before its deployment, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keeps<'a> {
    /// It was not heard since the server started.
    #[default]
    Unknown,
    /// None, or its agent is too old to say so.
    Nothing,
    /// This release: it returns to it without a download, listed or not.
    Release(&'a Version),
}

/// A device as admission sees it.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that a device has or has not"
)]
pub struct DeviceFacts<'a> {
    /// Whether it may take part.
    pub active: bool,
    /// Whether it waits for a person to accept it; it is not active then.
    pub awaiting: bool,
    /// Whether it is isolated: it gets no updates, but can still be ordered back.
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
    /// The release that it runs, if any.
    pub release: Option<&'a Version>,
    /// Image of the release that it runs, if known.
    pub image: Option<Sha256>,
    /// Version that it keeps.
    pub keeps: Keeps<'a>,
    /// Its battery.
    pub battery: Battery,
    /// Time since which its battery has been low without interruption; `None` if it is not low.
    pub low_since: Option<Timestamp>,
    /// Whether its link costs by the byte.
    pub metered: bool,
    /// Its deployments in rollouts of the plan.
    pub deployments: &'a BTreeMap<RolloutId, DeploymentFacts>,
    /// Releases that it rolled back from.
    pub quarantine: &'a BTreeSet<Version>,
}

impl<'a> DeviceFacts<'a> {
    /// Returns whether the device keeps the version that a deployment would return it to. One that was
    /// not heard yet keeps it for as long as its deployment is in the rollback window.
    pub fn keeps_for(&self, deployment: &DeploymentFacts) -> bool {
        match self.keeps {
            Keeps::Unknown => matches!(
                deployment.state,
                DeploymentState::Probation | DeploymentState::RollingBack
            ),
            Keeps::Nothing => false,
            Keeps::Release(kept) => deployment.from.as_ref() == Some(kept),
        }
    }

    /// Returns the facts that selectors test.
    pub fn selectable(&self) -> selector::Facts<'a> {
        selector::Facts {
            region: self.region,
            platform: self.platform,
            labels: self.labels,
            release: self.release,
        }
    }
}

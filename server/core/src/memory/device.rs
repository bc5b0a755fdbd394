//! One device in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_domain::admission::{self, DeploymentFacts, DeviceFacts, Keeps};
use tidegate_domain::contact::later;
use tidegate_domain::event::budget::Steps;
use tidegate_domain::rollout::Outcome;
use tidegate_protocol::{
    DeploymentState, DeploymentStatus, Explained, Kept, Left, RolloutId, Timestamp, Version,
};
use tidegate_store::devices::Device;
use tokio::sync::Notify;

use crate::memory::plan::PlanSnapshot;

/// One device. Locked only for a few assignments, never across an await.
pub struct DeviceEntry {
    state: Mutex<DeviceState>,
    /// Notified when a person changed something about the device, to end its held check-in.
    pub changed: Notify,
}

/// State of a device.
#[derive(Debug, Clone)]
pub struct DeviceState {
    /// Stored row, with newer heartbeats.
    pub device: Device,
    /// Its deployments.
    pub deployments: BTreeMap<RolloutId, DeploymentFacts>,
    /// Quarantined releases.
    pub quarantine: BTreeSet<Version>,
    /// Deployment status it last reported.
    pub status: Option<DeploymentStatus>,
    /// Version that it keeps from before its deployment, as it last said; only meaningful once it was
    /// `heard`.
    pub kept: Option<Kept>,
    /// Whether it has checked in since the server started.
    pub heard: bool,
    /// Health of the running release, as last reported; `None` if not reported.
    pub healthy: Option<bool>,
    /// Reason it refused its last order.
    pub refused: Option<Explained>,
    /// Data that it keeps aside for its owner, as it last said.
    pub left: Option<Left>,
    /// Diagnosis from the last time it was cut off, and when it was received.
    pub diagnosis: Option<(Timestamp, String)>,
    /// Whether a heartbeat is waiting to be written.
    pub dirty: bool,
    /// Steps of its deployments that it reported here within an hour.
    pub(crate) steps: Steps,
}

/// Outcome under which a deployment is watched for silence; `None` if it is not.
pub(super) fn watched_as(deployment: &DeploymentFacts) -> Option<Outcome> {
    match deployment.state {
        DeploymentState::Installing | DeploymentState::Verifying => Some(Outcome::Taking),
        DeploymentState::Probation => Some(Outcome::Probation),
        _ => None,
    }
}

impl DeviceState {
    /// Returns whether its silence matters.
    pub(super) fn is_watched(&self) -> bool {
        self.deployments.values().any(|d| watched_as(d).is_some())
    }

    /// Facts for the domain.
    pub fn facts(&self) -> DeviceFacts<'_> {
        DeviceFacts {
            active: self.device.active,
            awaiting: self.device.awaiting,
            isolated: !self.device.isolated.is_empty(),
            platform: &self.device.platform,
            region: &self.device.region,
            channel: self.device.channel,
            labels: &self.device.labels,
            ring: self.device.ring,
            release: self.device.release.as_ref(),
            image: self.device.image,
            keeps: match &self.kept {
                Some(kept) => Keeps::Release(&kept.release),
                None if self.heard => Keeps::Nothing,
                None => Keeps::Unknown,
            },
            battery: self.device.battery,
            low_since: self.device.low_since,
            metered: self.device.metered,
            deployments: &self.deployments,
            quarantine: &self.quarantine,
        }
    }

    /// Decides what the device would be told now.
    pub fn decide(
        &self,
        plan: &PlanSnapshot,
        room: &impl Fn(RolloutId) -> u64,
        now: Timestamp,
        trace: &mut impl admission::Trace,
    ) -> admission::Decision {
        admission::decide(
            plan.product(&self.device.product),
            &self.facts(),
            now,
            room,
            trace,
        )
    }
}

impl DeviceEntry {
    /// Creates the entry of a device.
    pub(super) fn new(state: DeviceState) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        })
    }

    /// Locks the state of the device.
    pub fn lock(&self) -> MutexGuard<'_, DeviceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Merges a newer check-in. The running release is not part of a heartbeat: it changes only by
/// reports, in the order in which they are committed.
pub(super) fn merge_heartbeat(device: &mut Device, heard: &Device) {
    // Whatever is newer otherwise; but an isolated device starts over once it is readmitted.
    if device.isolated.is_empty() && heard.isolated.is_empty() {
        device.contact = later(device.contact.take(), heard.contact.clone());
    }
    if heard.last_seen > device.last_seen {
        device.last_seen = heard.last_seen;
        device.battery = heard.battery;
        device.agent_version.clone_from(&heard.agent_version);
        device.metered = heard.metered;
        device.low_since = heard.low_since;
        device.unhealthy_at = heard.unhealthy_at;
    }
}

/// State of a device of which only the row is known.
pub(crate) fn new_state(device: Device) -> DeviceState {
    DeviceState {
        device,
        deployments: BTreeMap::new(),
        quarantine: BTreeSet::new(),
        status: None,
        kept: None,
        heard: false,
        healthy: None,
        refused: None,
        left: None,
        diagnosis: None,
        dirty: false,
        steps: Steps::default(),
    }
}

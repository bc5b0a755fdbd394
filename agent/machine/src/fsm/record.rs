//! Persistent state of the agent, in one small record.

use serde::{Deserialize, Serialize};
use tidegate_protocol::{
    DeploymentId, DeploymentState, Explained, Image, Report, Sha256, Timestamp, Version,
};
use tidegate_trust::assignment::{Action, Payload};
use tidegate_trust::{CommandLine, Floors};

/// One of the two slots for a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotId {
    /// The first.
    A,
    /// The second.
    B,
}

impl SlotId {
    /// Returns the other slot.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Name of the slot on the medium.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// A whole version in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The release.
    pub release: Version,
    /// The artifact's bytes, kept as the base of the next delta.
    pub image: Image,
    /// Format of the artifact: `tar` or `raw`.
    #[serde(default = "tar")]
    pub format: String,
    /// Health check, as the publisher signed it; `None` for no check.
    #[serde(default)]
    pub health: Option<CommandLine>,
}

fn tar() -> String {
    tidegate_trust::ImageFacts::TAR.into()
}

/// A verified assignment that the device works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Deployment it belongs to.
    pub deployment: DeploymentId,
    /// Install, or roll back.
    pub action: Action,
    /// Version to run.
    pub target: Installed,
    /// Rollback window: time for which the old slot is kept after a healthy start, in seconds.
    pub rollback_window_s: u32,
    /// The window that the assignment was signed with: what the server says afterwards, unsigned, may
    /// make it longer, and shorter again down to this.
    #[serde(default)]
    pub signed_window_s: u32,
    /// Seconds from its arrival within which it must be activated, or asked for again; `None` for
    /// no limit.
    #[serde(default)]
    pub switch_within_s: Option<u32>,
    /// Whether a person has lifted what keeps this device from it.
    #[serde(default)]
    pub again: bool,
    /// Payloads to fetch it from, best first.
    pub payloads: Vec<Payload>,
    /// Index of the payload being tried.
    pub payload: usize,
    /// Target slot.
    pub slot: SlotId,
    /// Bytes fetched so far.
    pub bytes: u64,
    /// Whether its slot is believed to hold it already: then it is verified, not fetched.
    #[serde(default)]
    pub kept: bool,
    /// Restarts of the agent while staging it from the present payload.
    #[serde(default)]
    pub cuts: u32,
    /// Oldest release that the signed policy allows: the floor after a healthy start.
    #[serde(default)]
    pub min_release: Option<Version>,
}

impl Job {
    /// Returns a job that restores the version of a slot, outside of a deployment.
    pub fn anew(target: Installed, slot: SlotId, payloads: Vec<Payload>) -> Self {
        Self {
            deployment: DeploymentId::from_random([0; 16]),
            action: Action::Rollback,
            target,
            rollback_window_s: 0,
            signed_window_s: 0,
            switch_within_s: None,
            again: false,
            payloads,
            payload: 0,
            slot,
            bytes: 0,
            kept: false,
            cuts: 0,
            min_release: None,
        }
    }
}

/// Phase of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing to do.
    Idle,
    /// Fetching chunks; the inactive slot is dirty.
    Downloading {
        /// Update under way.
        job: Job,
    },
    /// Writing the new version into the inactive slot.
    Staging {
        /// Update under way.
        job: Job,
    },
    /// The new version is whole in its slot and waits for the maintenance window.
    Staged {
        /// Update under way.
        job: Job,
    },
    /// The new version runs; its health is not known yet.
    Trial {
        /// Update under way.
        job: Job,
        /// Starts of the new version so far.
        tries: u32,
        /// Whether the switch was made: if it is found undone later, the version has failed.
        #[serde(default)]
        switched: bool,
    },
    /// Healthy; the old slot is kept.
    Probation {
        /// Update under way.
        job: Job,
        /// Seconds of the window that have passed.
        elapsed_s: u32,
        /// Reboots in the window, and whether it runs steadily since.
        #[serde(default)]
        restarts: Restarts,
    },
    /// Going back to the old slot.
    Returning {
        /// The job that is undone.
        job: Job,
        /// Deployment to report for: a rollback may be ordered by a later one.
        deployment: DeploymentId,
        /// Reason for the rollback.
        reason: Explained,
    },
}

/// Reboots of a healthy version in its rollback window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// Starts of the machine since it last ran steadily.
    pub count: u32,
    /// Seconds of the window that have passed since the last of these starts.
    pub steady_s: u32,
}

/// Everything that must survive a power cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this structure.
    pub schema: u32,
    /// The slot in use; `None` when nothing is installed.
    pub active: Option<SlotId>,
    /// Whole version in slot A, if any.
    pub a: Option<Installed>,
    /// Whole version in slot B, if any.
    pub b: Option<Installed>,
    /// Phase of the update under way.
    pub phase: Phase,
    /// Identifier of the last known start, such as a boot id; empty if unknown.
    #[serde(default)]
    pub start: String,
    /// Images that failed here: never installed again without a person's approval.
    pub bad: Vec<Sha256>,
    /// The highest assignment counter accepted.
    pub counter: u64,
    /// The oldest release that may ever be installed; rises after a healthy start only.
    pub floor: Option<Version>,
    /// The newest time that an offline key has vouched for.
    pub time_floor: Timestamp,
    /// Newest versions of signed metadata that were seen, and under whose keys.
    #[serde(default)]
    pub floors: Floors,
    /// Number of the last signed request: two machines with one identity give themselves away by
    /// it.
    #[serde(default)]
    pub requests: u64,
    /// Downtime of the updated software in the present deployment, in milliseconds.
    #[serde(default)]
    pub downtime_ms: Option<u64>,
    /// Start of the current downtime by the machine's clock, in milliseconds since the epoch: no
    /// other clock keeps running across a reboot.
    #[serde(default)]
    pub down_since: Option<i64>,
    /// The number of the last report made.
    pub report_seq: u64,
    /// Reports that the server has not acknowledged.
    pub outbox: Vec<Report>,
    /// Newest report that a server has acknowledged. It has to be sent again if it was not recorded:
    /// nobody signs an acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Report>,
}

/// Upper bound on the images remembered as bad.
const MAX_BAD: usize = 32;
/// Upper bound on the reports kept while the server does not answer; the oldest makes room, since
/// each report tells the whole state.
const MAX_OUTBOX: usize = 48;

impl Record {
    /// The record of a device with nothing installed.
    pub fn new() -> Self {
        Self {
            schema: 1,
            active: None,
            a: None,
            b: None,
            phase: Phase::Idle,
            start: String::new(),
            bad: Vec::new(),
            counter: 0,
            floor: None,
            time_floor: Timestamp::ZERO,
            floors: Floors::default(),
            requests: 0,
            downtime_ms: None,
            down_since: None,
            report_seq: 0,
            outbox: Vec::new(),
            told: None,
        }
    }

    /// Returns the whole version in a slot, if any.
    pub fn slot(&self, id: SlotId) -> Option<&Installed> {
        match id {
            SlotId::A => self.a.as_ref(),
            SlotId::B => self.b.as_ref(),
        }
    }

    /// Sets the version in a slot.
    pub fn set_slot(&mut self, id: SlotId, installed: Option<Installed>) {
        match id {
            SlotId::A => self.a = installed,
            SlotId::B => self.b = installed,
        }
    }

    /// Returns the version in use, if any.
    pub fn running(&self) -> Option<&Installed> {
        self.slot(self.active?)
    }

    /// The slot that is not in use.
    pub fn inactive(&self) -> SlotId {
        self.active.map_or(SlotId::A, SlotId::other)
    }

    /// Version kept from before the deployment under way, which the device may be ordered back to:
    /// only while the rollback window is open, and never to an image that has failed here.
    pub fn kept(&self) -> Option<&Installed> {
        let (Phase::Trial { job, .. }
        | Phase::Probation { job, .. }
        | Phase::Returning { job, .. }) = &self.phase
        else {
            return None;
        };
        let kept = self.slot(job.slot.other())?;
        let ordered = job.action == Action::Install;
        (ordered && !self.bad.contains(&kept.image.sha256)).then_some(kept)
    }

    /// Deployment under way, its state, and the seconds left of its rollback window: for check-ins.
    pub fn status(&self) -> Option<(DeploymentId, DeploymentState, Option<u32>)> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Downloading { job } => {
                Some((job.deployment, DeploymentState::Downloading, None))
            }
            Phase::Staging { job } => Some((job.deployment, DeploymentState::Installing, None)),
            Phase::Staged { job } => Some((job.deployment, DeploymentState::Deferred, None)),
            Phase::Trial { job, .. } => Some((job.deployment, DeploymentState::Verifying, None)),
            Phase::Probation { job, elapsed_s, .. } => Some((
                job.deployment,
                DeploymentState::Probation,
                Some(job.rollback_window_s.saturating_sub(*elapsed_s)),
            )),
            Phase::Returning { deployment, .. } => {
                Some((*deployment, DeploymentState::RollingBack, None))
            }
        }
    }

    pub(super) fn remember_bad(&mut self, image: Sha256) {
        if !self.bad.contains(&image) {
            self.bad.push(image);
            if self.bad.len() > MAX_BAD {
                self.bad.remove(0);
            }
        }
    }

    /// Queues a report, in the same journal write as the state that it tells of.
    pub(super) fn report(
        &mut self,
        deployment: DeploymentId,
        state: DeploymentState,
        reason: Option<Explained>,
        bytes: u64,
    ) {
        self.report_seq += 1;
        let running = self.running();
        let report = Report {
            seq: self.report_seq,
            deployment,
            state,
            reason,
            release: running.map(|i| i.release.clone()),
            image: running.map(|i| i.image.sha256),
            bytes_downloaded: bytes,
            downtime_ms: self.downtime_ms,
            signature: None,
        };
        if self.outbox.len() >= MAX_OUTBOX {
            self.outbox.remove(0);
        }
        self.outbox.push(report);
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

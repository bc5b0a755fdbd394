//! Events and effects of the state machine.

use tidegate_protocol::{DeploymentId, Explained};

use super::medium::{Activation, Medium};
use super::record::{Installed, Job, Phase, Record, SlotId};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent starts.
    Started {
        /// State of the slots on the medium.
        medium: Medium,
        /// Identifier of this start, most often the machine's boot id; empty if unknown.
        start: String,
    },
    /// A verified assignment, with its counter.
    Assigned(Box<Job>, u64),
    /// The server called a deployment off.
    CalledOff(DeploymentId),
    /// All chunks are fetched and verified.
    Downloaded {
        /// Bytes fetched for it in all.
        bytes: u64,
    },
    /// The download was given up.
    DownloadFailed(Explained),
    /// The new version is whole in its slot, verified and durable.
    Staged,
    /// The same, but the time within which it may be activated is over.
    StagedTooLate,
    /// The previous version must be kept for at least this many seconds from now.
    KeepPrevious(u32),
    /// The new version could not be staged.
    StageFailed(Explained),
    /// The switch is made.
    Switched(Activation),
    /// The update waits for something on this machine: battery charge, or its owner.
    Waits(Explained),
    /// The update goes on.
    GoesOn,
    /// The machine or the agent is about to restart: start of the downtime, in milliseconds since
    /// the epoch.
    GoesDown(i64),
    /// Downtime of the updated software.
    Downtime {
        /// Milliseconds, from before the switch to the first good check.
        ms: u64,
    },
    /// The health check passed.
    Healthy,
    /// The health check failed, or the restart did.
    Unhealthy(Explained),
    /// This many more seconds of the rollback window have passed.
    WindowPassed(u32),
    /// The old slot is in use again.
    Returned,
    /// The version to roll back to is damaged, and no source has it any more.
    NotReturned(Explained),
    /// A slot that is not in use was emptied, to give its room back.
    Emptied(SlotId),
    /// The server has reports up to this number.
    Acknowledged(u64),
    /// The server has recorded reports up to this number, as its newest answer says.
    Recorded(u64),
}

/// An action for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Fetch the job's present payload.
    Download(Box<Job>),
    /// Stage the new version from what was fetched, or verify the one that was kept.
    Stage(Box<Job>),
    /// Activate a slot and restart what runs from it, then send [`Event::Switched`].
    Switch(SlotId),
    /// Restart the machine, or the agent: the activated version runs after that.
    Restart,
    /// Check the health of the version in use.
    CheckHealth(Installed),
    /// Roll back: activate the slot, then send [`Event::Returned`].
    Return(Option<SlotId>),
    /// Discard what was fetched.
    DropDownload,
    /// Give back what a failed attempt at a job has taken, where that is the room that it lacked.
    GiveBack(Box<Job>),
}

/// Takes the phase out of a record, which is idle until it gets another.
pub(super) fn take_phase(record: &mut Record) -> Phase {
    std::mem::replace(&mut record.phase, Phase::Idle)
}

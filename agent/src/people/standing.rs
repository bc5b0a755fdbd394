//! State of a device for people, from its journal.

use serde::{Deserialize, Serialize};
use tidegate_machine::fsm::{Record, SlotId};
use tidegate_protocol::{DeploymentId, DeploymentState, Sha256, Version};

/// Summary of a device's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// The release that runs.
    pub(crate) release: Option<Version>,
    /// Its image.
    pub(crate) image: Option<Sha256>,
    /// Slot in use according to the journal.
    pub(crate) slot: Option<SlotId>,
    /// Deployment under way.
    pub(crate) deployment: Option<DeploymentId>,
    /// State of that deployment.
    pub(crate) state: Option<DeploymentState>,
    /// Seconds left of the rollback window.
    pub(crate) rollback_window_left_s: Option<u32>,
    /// Release that can be rolled back to.
    pub(crate) kept: Option<Version>,
    /// Number of reports that the server has not acknowledged.
    pub(crate) reports_waiting: usize,
    /// Images that failed here.
    pub(crate) bad_images: Vec<Sha256>,
}

impl Standing {
    /// Summarizes a record. `used` is the slot in use on the medium, which may differ from the
    /// journal's while a switch is intended and not made.
    pub(crate) fn of(record: &Record, used: Option<SlotId>) -> Self {
        let used = used.or(record.active);
        let running = used.and_then(|slot| record.slot(slot));
        let kept = used.map_or(record.inactive(), SlotId::other);
        let status = record.status();
        Self {
            release: running.map(|i| i.release.clone()),
            image: running.map(|i| i.image.sha256),
            slot: record.active,
            deployment: status.map(|(id, ..)| id),
            state: status.map(|(_, state, _)| state),
            rollback_window_left_s: status.and_then(|(.., left)| left),
            kept: record.slot(kept).map(|i| i.release.clone()),
            reports_waiting: record.outbox.len(),
            bad_images: record.bad.clone(),
        }
    }
}

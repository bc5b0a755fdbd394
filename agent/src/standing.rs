//! How a device stands, for people: as its journal says it.

use serde::{Deserialize, Serialize};
use tidegate_protocol::{DeploymentId, DeploymentState, Sha256, Version};

use crate::fsm::{Record, SlotId};

/// What a person wants to know of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// The release that runs.
    pub(crate) release: Option<Version>,
    /// Its image.
    pub(crate) image: Option<Sha256>,
    /// The slot that the journal says is in use.
    pub(crate) slot: Option<SlotId>,
    /// The deployment that is worked on.
    pub(crate) deployment: Option<DeploymentId>,
    /// How far it is.
    pub(crate) state: Option<DeploymentState>,
    /// What is left of the rollback window, in seconds.
    pub(crate) window_left_s: Option<u32>,
    /// The release that can be gone back to.
    pub(crate) kept: Option<Version>,
    /// Reports that the server has not heard.
    pub(crate) reports_waiting: usize,
    /// Images that failed here.
    pub(crate) bad_images: Vec<Sha256>,
}

impl Standing {
    /// Of a record, when this slot is in use: the medium may say another one than the journal, while
    /// a switch is meant and not made.
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
            window_left_s: status.and_then(|(.., left)| left),
            kept: record.slot(kept).map(|i| i.release.clone()),
            reports_waiting: record.outbox.len(),
            bad_images: record.bad.clone(),
        }
    }
}

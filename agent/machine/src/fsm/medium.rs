//! State of the slots, as the machine reports it.

use serde::{Deserialize, Serialize};

use super::record::SlotId;

/// State of the slots on the medium at the start of the agent: it is believed, not the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Medium {
    /// The slot that runs.
    pub active: Option<SlotId>,
    /// The slot that runs after the next boot.
    pub next: Option<SlotId>,
    /// Whether a boot loader or a guard switches back by itself when a version does not start.
    pub falls_back: bool,
}

impl Medium {
    /// State of slots that nobody else switches.
    pub fn only(active: Option<SlotId>) -> Self {
        Self {
            active,
            next: active,
            falls_back: false,
        }
    }

    /// Returns whether a boot loader or a guard has turned away from a slot that was activated.
    pub(super) fn fell_back_from(self, slot: SlotId) -> bool {
        self.falls_back && self.active != Some(slot) && self.next != Some(slot)
    }
}

/// Step needed for an activated version to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// A restart of its service, nothing more.
    Live,
    /// A reboot of the machine, or a restart of the agent itself.
    Restart,
}

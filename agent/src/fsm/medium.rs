//! What the machine says of the slots.

use serde::{Deserialize, Serialize};

use super::record::SlotId;

/// What the medium says when the agent starts: it is believed, not the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Medium {
    /// The slot that runs.
    pub active: Option<SlotId>,
    /// The slot that runs after the next start of the machine.
    pub next: Option<SlotId>,
    /// Whether something else, a boot loader or a guard, turns the switch back by itself when a
    /// version does not start.
    pub falls_back: bool,
}

impl Medium {
    /// Of slots whose switch nobody else turns.
    pub fn only(active: Option<SlotId>) -> Self {
        Self {
            active,
            next: active,
            falls_back: false,
        }
    }

    /// Whether something else has turned away from a slot that was put to use.
    pub(super) fn fell_back_from(self, slot: SlotId) -> bool {
        self.falls_back && self.active != Some(slot) && self.next != Some(slot)
    }
}

/// What has to happen for a version to run that was put to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// Nothing more than that its service is restarted.
    Live,
    /// The machine, or the agent itself, must start again.
    Restart,
}

//! The switch between two slots that takes effect with a start of the machine.

use tidegate_machine::fsm::{Activation, SlotId};

use super::SlotError;

/// The boot loader, or what stands in for it. All calls are idempotent.
pub trait BootSwitch: Send + Sync {
    /// The slot that runs.
    fn booted(&self) -> Result<Option<SlotId>, SlotError>;
    /// The slot that the next boot takes.
    fn next(&self) -> Result<Option<SlotId>, SlotError>;
    /// Makes the next boot take a slot, on trial: the boot loader goes back by itself if the slot
    /// does not start and is not confirmed.
    fn set(&self, slot: SlotId) -> Result<(), SlotError>;
    /// Makes a slot permanent.
    fn confirm(&self, slot: SlotId) -> Result<(), SlotError>;
}

/// Step needed for an activated slot to run; an error if neither this nor the next start takes it.
pub(super) fn activation(
    verb: &str,
    slot: SlotId,
    active: Option<SlotId>,
    next: Option<SlotId>,
) -> Result<Activation, SlotError> {
    let name = |slot: Option<SlotId>| slot.map_or("none", SlotId::name);
    if active == Some(slot) {
        Ok(Activation::Live)
    } else if next == Some(slot) {
        Ok(Activation::Restart)
    } else {
        Err(SlotError::Hook {
            verb: verb.to_owned(),
            what: format!(
                "slot {} was activated, but it reports {} now and {} next",
                slot.name(),
                name(active),
                name(next)
            ),
        })
    }
}

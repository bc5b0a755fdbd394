//! The agenda: events through the state machine, the journal before each effect.

use std::collections::VecDeque;

use crate::fsm::{Effect, Event, Phase, step};
use crate::journal::{Journal, JournalError};

/// Processes an event that has no effects.
pub fn note(journal: &mut Journal, event: Event) -> Result<(), JournalError> {
    let (record, _) = step(journal.draft(), event);
    journal.write(record)
}

/// Events not processed yet, and effects still to be performed.
#[derive(Default)]
pub struct Agenda {
    events: VecDeque<Event>,
    effects: VecDeque<Effect>,
}

impl Agenda {
    /// Returns an agenda that begins with an event.
    pub fn of(event: Event) -> Self {
        Self {
            events: VecDeque::from([event]),
            effects: VecDeque::new(),
        }
    }

    /// Adds an event, if there is one.
    pub fn add(&mut self, event: Option<Event>) {
        self.events.extend(event);
    }

    /// Processes all pending events, journal first, and returns the next effect to perform; `None`
    /// when nothing is left. `told` is called with each new phase.
    pub fn next(
        &mut self,
        journal: &mut Journal,
        told: &mut dyn FnMut(&Phase),
    ) -> Result<Option<Effect>, JournalError> {
        while let Some(event) = self.events.pop_front() {
            let before = std::mem::discriminant(&journal.record().phase);
            let (record, wanted) = step(journal.draft(), event);
            journal.write(record)?;
            if std::mem::discriminant(&journal.record().phase) != before {
                // Effects of the old phase are obsolete.
                self.effects.clear();
                told(&journal.record().phase);
            }
            self.effects.extend(wanted);
        }
        Ok(self.effects.pop_front())
    }
}

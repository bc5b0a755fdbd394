//! The journal on this machine.

use std::path::Path;
use std::sync::Arc;

use tidegate_machine::fs::Fs;
pub(crate) use tidegate_machine::journal::RESERVE;
pub use tidegate_machine::journal::{Journal, JournalError};

use crate::log;

/// Minimum size of a record in bytes, so that a later one fits over it: during a rollback the
/// reason of a failure, up to 2,200 characters, is in it three times. Smaller in tests, which keep
/// simulated media by the thousand.
const ROOM: usize = if cfg!(test) { 1 << 10 } else { 16 << 10 };

/// Opens the journal of an enrolled device. A lost one is an error: a new one would forget the
/// floors.
pub fn open_enrolled(fs: Arc<dyn Fs>, dir: &Path) -> Result<Journal, JournalError> {
    Journal::open_enrolled(fs, dir, ROOM).inspect(note_damage)
}

/// Opens the journal of a state directory, or begins one if there is none.
pub fn open(fs: Arc<dyn Fs>, dir: &Path) -> Result<Journal, JournalError> {
    Journal::open(fs, dir, ROOM).inspect(note_damage)
}

fn note_damage(journal: &Journal) {
    if journal.has_damaged_copy() {
        log::line("one copy of the journal is damaged; the other one is used");
    }
}

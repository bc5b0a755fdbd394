//! Own events that are already in memory.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Numbers of this replica's own events that are already in its memory, kept until the follower has
/// passed them.
#[derive(Default)]
pub(crate) struct Applied(Mutex<BTreeSet<i64>>);

impl Applied {
    /// Notes events as applied.
    pub(crate) fn add(&self, numbers: Vec<i64>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(numbers);
    }

    /// Returns whether an event was already applied, and forgets it: asked once per event.
    pub(crate) fn take(&self, number: i64) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&number)
    }
}

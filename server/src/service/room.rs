//! The places of a rollout, as this replica knows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Held check-ins woken at once when places are granted; what is granted beyond wakes the rest.
const WAKE: u64 = 1_024;

/// How many more devices a rollout may expose, as this replica knows it. The database has the
/// last word; this keeps those who would be refused from asking it. It may show more than there
/// are, never for long fewer: nobody would ask, and nothing would put it right.
#[derive(Default)]
pub struct Room {
    left: AtomicU64,
    /// Held check-ins that wait for a place.
    pub freed: Notify,
}

impl Room {
    /// Places left.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Takes a place, if there is one. It comes back when it is not kept.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .ok()?;
        Some(Place(Some(Arc::clone(self))))
    }

    /// Sets the places and wakes as many who wait for one.
    pub fn set(&self, left: u64) {
        let before = self.left.swap(left, Ordering::Relaxed);
        match left.saturating_sub(before) {
            more if more > WAKE => self.freed.notify_waiters(),
            more => (0..more).for_each(|_| self.freed.notify_one()),
        }
    }
}

/// A place that is taken for as long as it takes to write the offer. Whose write fails, or who
/// hangs up before its end, gives it back; the next check-in may have it. Nobody is woken for it:
/// with a database that is down that would make everybody ask in turn.
#[must_use]
pub struct Place(Option<Arc<Room>>);

impl Place {
    /// The database has counted it, or the places are read anew after this.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(room) = &self.0 {
            room.left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_kept_is_free_again() {
        let room = Arc::new(Room::default());
        assert!(room.take().is_none());
        room.set(2);
        let first = room.take().unwrap();
        let second = room.take().unwrap();
        assert!(room.take().is_none());
        drop(first);
        second.keep();
        assert_eq!(room.left(), 1);
    }
}

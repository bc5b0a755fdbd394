//! Permits of a rollout for exposing devices, as known to this replica.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Maximum number of held check-ins woken one by one when permits are granted; above it all are
/// woken.
const WAKE: u64 = 1_024;

/// Number of further devices a rollout may expose, as known to this replica. The database decides;
/// this keeps devices that would be refused from asking it. It may be too high, but never too low
/// for long: nobody would ask, and nothing would correct it.
#[derive(Default)]
pub struct Permits {
    left: AtomicU64,
    /// Notifies held check-ins that wait for a permit.
    pub freed: Notify,
}

impl Permits {
    /// Number of permits left.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Takes a permit, if there is one. It is returned unless it is kept.
    pub fn take(self: &Arc<Self>) -> Option<Permit> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .ok()?;
        Some(Permit(Some(Arc::clone(self))))
    }

    /// Sets the number of permits and wakes as many check-ins that wait for one.
    pub fn set(&self, left: u64) {
        let before = self.left.swap(left, Ordering::Relaxed);
        match left.saturating_sub(before) {
            more if more > WAKE => self.freed.notify_waiters(),
            more => (0..more).for_each(|_| self.freed.notify_one()),
        }
    }
}

/// Permit held while an offer is written. Dropping it frees it, if the write fails or the client
/// hangs up; the next check-in may take it. Nobody is woken for it: with the database down, that
/// would make every device ask in turn.
#[must_use]
pub struct Permit(Option<Arc<Permits>>);

impl Permit {
    /// Uses up the permit: the database has counted it, or the permits are reloaded after this.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = &self.0 {
            permits.left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_kept_is_free_again() {
        let permits = Arc::new(Permits::default());
        assert!(permits.take().is_none());
        permits.set(2);
        let first = permits.take().unwrap();
        let second = permits.take().unwrap();
        assert!(permits.take().is_none());
        drop(first);
        second.keep();
        assert_eq!(permits.left(), 1);
    }
}

//! Single entry point for writes: no other module opens a writing transaction.
//!
//! A use case passes a closure that gets the transaction and returns its result and the events
//! describing the change. The events are appended, the transaction is committed, the change is
//! applied to this replica's memory, the other replicas are notified, and the planner, the builder
//! and held check-ins are woken. Writes without an event are in [`silent`], by name.
//!
//! Nothing can fail after the commit: if this replica's memory cannot be refreshed at once,
//! following the events (`jobs/follow.rs`) catches up.

mod bound;
pub(crate) mod group;
mod host;
mod silent;

use std::collections::BTreeSet;

use tidegate_domain::event::{Actor, Event, Touches, spoken};
use tidegate_protocol::{DeviceId, error_chain};
use tidegate_store::{StoreError, Tx, events};

use crate::CoreError;
use crate::app::App;

pub(crate) use host::{first_token, host_token};
pub(crate) use silent::first_secrets;

/// Outcome of a change.
pub(crate) enum Done<T> {
    /// Commit, with the events and the actor of each.
    Commit(T, Vec<(Actor, Event)>),
    /// Write nothing, and return the result all the same.
    Leave(T),
}

impl<T> Done<T> {
    /// Builds a commit whose events all have one actor.
    pub(crate) fn by(actor: &Actor, value: T, events: impl IntoIterator<Item = Event>) -> Self {
        let events = events.into_iter().map(|event| (actor.clone(), event));
        Self::Commit(value, events.collect())
    }

    /// Adds an event that comes before the others, if there is one.
    pub(crate) fn and(self, actor: &Actor, first: Option<Event>) -> Self {
        let Some(first) = first else { return self };
        let (value, mut events) = match self {
            Self::Commit(value, events) => (value, events),
            Self::Leave(value) => (value, Vec::new()),
        };
        events.insert(0, (actor.clone(), first));
        Self::Commit(value, events)
    }
}

/// An open change. Only this module can commit it.
pub(crate) struct Change(Tx);

impl Change {
    /// Transaction to pass to the store.
    pub(crate) fn tx(&mut self) -> &mut Tx {
        &mut self.0
    }
}

/// Committed changes not yet applied to memory.
#[must_use]
pub(crate) struct Committed {
    numbers: Vec<i64>,
    touches: Touches,
    devices: BTreeSet<DeviceId>,
}

impl Committed {
    fn and(mut self, other: Self) -> Self {
        self.numbers.extend(other.numbers);
        self.touches = self.touches.and(other.touches);
        self.devices.extend(other.devices);
        self
    }
}

impl App {
    /// Commits what the closure writes; writes nothing if it fails.
    pub(crate) async fn change<T>(
        &self,
        actor: &Actor,
        work: impl AsyncFnOnce(&mut Tx) -> Result<(T, Vec<Event>), CoreError>,
    ) -> Result<T, CoreError> {
        self.change_or_leave(async |tx| {
            let (value, events) = work(tx).await?;
            Ok(Done::by(actor, value, events))
        })
        .await
    }

    /// Like [`App::change`], for a change that may turn out to need no write, or has several
    /// actors.
    pub(crate) async fn change_or_leave<T>(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> Result<Done<T>, CoreError>,
    ) -> Result<T, CoreError> {
        let mut change = self.open_change().await?;
        let done = work(&mut change.0).await?;
        self.close_change(change, done).await
    }

    /// Opens a change whose work is retried when a concurrent change came first. Dropping it writes
    /// nothing.
    pub(crate) async fn open_change(&self) -> Result<Change, StoreError> {
        self.db.make_room();
        Ok(Change(self.db.begin_write().await?))
    }

    /// Ends a change: commits it, or rolls it back if there is nothing to write.
    pub(crate) async fn close_change<T>(
        &self,
        change: Change,
        done: Done<T>,
    ) -> Result<T, CoreError> {
        match done {
            Done::Leave(value) => Ok(value),
            Done::Commit(value, events) => {
                let committed = self.seal(change.0, &events).await?;
                self.take_over(committed).await;
                Ok(value)
            }
        }
    }

    /// Like [`App::change_or_leave`], but leaves applying it to memory to the caller, who has
    /// several. Returns `None` if nothing was written.
    pub(crate) async fn change_later(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> Result<Done<()>, CoreError>,
    ) -> Result<Option<Committed>, CoreError> {
        self.db.make_room();
        let mut tx = self.db.begin_write().await?;
        match work(&mut tx).await? {
            Done::Leave(()) => Ok(None),
            Done::Commit((), events) => Ok(Some(self.seal(tx, &events).await?)),
        }
    }

    /// Applies several committed changes to memory at once.
    pub(crate) async fn take_over_all(&self, changes: Vec<Committed>) {
        if let Some(all) = changes.into_iter().reduce(Committed::and) {
            self.take_over(all).await;
        }
    }

    /// Appends the events and commits. The events come last because the lock on their counter is
    /// held until the end.
    pub(crate) async fn seal(
        &self,
        mut tx: Tx,
        events: &[(Actor, Event)],
    ) -> Result<Committed, StoreError> {
        let mut committed = Committed {
            numbers: Vec::new(),
            touches: Touches::default(),
            devices: BTreeSet::new(),
        };
        if !events.is_empty() {
            let now = self.now();
            let kept = self.bounded(&mut tx, events, now).await?;
            if !kept.is_empty() {
                let numbers = events::append(&mut tx, &self.origin, now, &kept).await?;
                committed.numbers.extend(numbers);
            }
        }
        // Also for those that were counted alone: what they say is written all the same.
        for (_, event) in events {
            let touches = event.touches();
            committed.touches = committed.touches.and(touches);
            if touches.device {
                committed.devices.extend(event.device());
            }
        }
        tx.commit().await?;
        for (actor, event) in events {
            tracing::debug!(kind = event.kind(), "{}", spoken(actor, event));
        }
        Ok(committed)
    }

    /// Applies committed changes to this replica's memory and wakes the tasks waiting for them.
    pub(crate) async fn take_over(&self, committed: Committed) {
        let Committed {
            numbers,
            touches,
            devices,
        } = committed;
        match self.read_anew(touches, &devices).await {
            Ok(()) => self.applied.add(numbers),
            Err(error) => tracing::warn!(
                error = error_chain(&error),
                "a committed change could not be loaded into memory; it will be applied when the events are followed"
            ),
        }
        if touches.planner {
            self.wake_planner();
        }
        if touches.builder {
            self.wake_builder();
        }
    }

    /// Reloads the parts of memory that the events touch. The plan comes first: a halt must not
    /// wait behind hundreds of devices.
    pub(crate) async fn read_anew(
        &self,
        touches: Touches,
        devices: &BTreeSet<DeviceId>,
    ) -> Result<(), StoreError> {
        if touches.plan {
            self.fleet.reload_plan(&self.db).await?;
        } else if touches.permits {
            self.fleet.reload_permits(&self.db).await?;
        }
        if touches.access {
            self.access.reload(&self.db).await?;
        }
        for device in devices {
            self.fleet.reload_device(&self.db, *device).await?;
        }
        Ok(())
    }
}

//! The one door for writes. Nothing else opens a writing transaction.
//!
//! A use case hands over a closure, which gets the transaction and gives its result and the events that
//! tell what was changed. The door appends the events, commits, takes them over into this replica's
//! memory, notifies the other replicas, and wakes the planner, the builder and held check-ins. What is
//! written without an event is in [`silent`], by name.
//!
//! After the commit nothing can fail any more: a replica whose memory cannot be read anew at once is made
//! good by following the events (`jobs/follow.rs`).

pub(crate) mod group;
mod silent;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tidegate_domain::event::{Actor, Event, Touches};
use tidegate_protocol::{DeviceId, error_chain};

pub(crate) use silent::{first_secrets, first_token};

use crate::app::App;
use crate::service::ServiceError;
use crate::store::{StoreError, Tx, events};

/// What a change came to.
pub(crate) enum Done<T> {
    /// It is to be committed, with what happened and through whom.
    Commit(T, Vec<(Actor, Event)>),
    /// Nothing is to be written; the answer all the same.
    Leave(T),
}

impl<T> Done<T> {
    /// A change with one actor.
    pub(crate) fn by(actor: &Actor, value: T, events: impl IntoIterator<Item = Event>) -> Self {
        let events = events.into_iter().map(|event| (actor.clone(), event));
        Self::Commit(value, events.collect())
    }
}

/// A change that is being written. It can be ended by the door alone.
pub(crate) struct Change(Tx);

impl Change {
    /// The transaction, for the store.
    pub(crate) fn tx(&mut self) -> &mut Tx {
        &mut self.0
    }
}

/// Numbers of this replica's own events that its memory has taken over already, until the follower
/// has passed them.
#[derive(Default)]
pub(crate) struct Applied(Mutex<BTreeSet<i64>>);

impl Applied {
    fn add(&self, numbers: Vec<i64>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(numbers);
    }

    /// Whether an event was taken over; asked once for each.
    pub(crate) fn take(&self, number: i64) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&number)
    }
}

/// What is committed and not yet taken over.
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
    /// Writes what the closure writes, or nothing at all if it fails.
    pub(crate) async fn change<T>(
        &self,
        actor: &Actor,
        work: impl AsyncFnOnce(&mut Tx) -> Result<(T, Vec<Event>), ServiceError>,
    ) -> Result<T, ServiceError> {
        self.change_or_leave(async |tx| {
            let (value, events) = work(tx).await?;
            Ok(Done::by(actor, value, events))
        })
        .await
    }

    /// Like [`App::change`], for what may turn out to need no writing, or has several actors.
    pub(crate) async fn change_or_leave<T>(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> Result<Done<T>, ServiceError>,
    ) -> Result<T, ServiceError> {
        let mut change = self.open_change().await?;
        let done = work(&mut change.0).await?;
        self.close_change(change, done).await
    }

    /// Opens a change whose work is tried again when somebody else was faster. Dropped, it writes
    /// nothing.
    pub(crate) async fn open_change(&self) -> Result<Change, StoreError> {
        Ok(Change(self.db.begin_write().await?))
    }

    /// Ends a change.
    pub(crate) async fn close_change<T>(
        &self,
        change: Change,
        done: Done<T>,
    ) -> Result<T, ServiceError> {
        match done {
            Done::Leave(value) => Ok(value),
            Done::Commit(value, events) => {
                let committed = self.seal(change.0, &events).await?;
                self.take_over(committed).await;
                Ok(value)
            }
        }
    }

    /// Like [`App::change_or_leave`], and leaves taking it over to the caller, who has several: `None`
    /// where nothing was written.
    pub(crate) async fn change_later(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> Result<Done<()>, ServiceError>,
    ) -> Result<Option<Committed>, ServiceError> {
        let mut tx = self.db.begin_write().await?;
        match work(&mut tx).await? {
            Done::Leave(()) => Ok(None),
            Done::Commit((), events) => Ok(Some(self.seal(tx, &events).await?)),
        }
    }

    /// Takes several changes over at once.
    pub(crate) async fn take_over_all(&self, changes: Vec<Committed>) {
        if let Some(all) = changes.into_iter().reduce(Committed::and) {
            self.take_over(all).await;
        }
    }

    /// Appends the events last, as the lock on their counter is held until the end, and commits.
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
            let numbers = events::append(&mut tx, &self.origin, now, events).await?;
            committed.numbers.extend(numbers);
        }
        for (_, event) in events {
            let touches = event.touches();
            committed.touches = committed.touches.and(touches);
            if touches.device {
                committed.devices.extend(event.device());
            }
        }
        tx.commit().await?;
        Ok(committed)
    }

    /// Brings this replica's memory up to what was committed and wakes who waits for it.
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
                "what was committed is not in memory yet; following the events makes it good"
            ),
        }
        if touches.planner {
            self.wake_planner();
        }
        if touches.builder {
            self.wake_builder();
        }
    }

    /// Reads the parts of memory that something touches. The plan first: a halt must not be heard
    /// behind hundreds of devices.
    pub(crate) async fn read_anew(
        &self,
        touches: Touches,
        devices: &BTreeSet<DeviceId>,
    ) -> Result<(), StoreError> {
        if touches.plan {
            self.fleet.reload_plan(&self.db).await?;
        } else if touches.permits {
            self.fleet.reload_rooms(&self.db).await?;
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

//! Follows events: brings every committed change into this replica's memory, whichever replica
//! wrote it. The writer normally applies its change at once; this catches those where that failed
//! or was interrupted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate_domain::event::{Topic, Touches};

use crate::app::App;
use crate::service::ServiceError;
use crate::store::devices;
use crate::store::events;

/// Number of events read at once.
const BATCH: i64 = 500;
/// Overlap when reading the heartbeats of other replicas, since clocks differ a little.
const OVERLAP: Duration = Duration::from_secs(30);

impl App {
    /// Applies all events committed so far.
    pub(crate) async fn follow_events(&self) -> Result<(), ServiceError> {
        let mut cursor = self.cursor.lock().await;
        loop {
            let batch = events::after(&mut self.db.read().await?, *cursor, BATCH).await?;
            let Some(last) = batch.last() else {
                return Ok(());
            };
            let head = last.seq;
            let mut touches = Touches::default();
            let mut devices = BTreeSet::new();
            for event in &batch {
                // Own events are already in memory, except those whose reload failed or was
                // interrupted.
                if event.origin == self.origin && self.applied.take(event.seq) {
                    continue;
                }
                // Decide by topic: a newer replica may write kinds that this one does not know.
                match event.topic {
                    Some(Topic::Release | Topic::Rollout | Topic::Trust) => {
                        touches.plan |= self.fleet.plan_lacks(event.seq);
                    }
                    Some(Topic::Pace) => touches.permits |= self.fleet.permits_lack(event.seq),
                    Some(Topic::Access) => touches.access = true,
                    Some(Topic::Device | Topic::Deployment) => devices.extend(event.device),
                    Some(Topic::Incident) | None => {}
                }
            }
            self.read_anew(touches, &devices).await?;
            *cursor = head;
        }
    }
}

/// Follows events until the server stops: when notified by other replicas, and at least once a
/// second.
pub(super) async fn run(app: Arc<App>) {
    let mut listener = None;
    let mut next_heartbeats = app.now();
    while !app.stopping.is_cancelled() {
        if listener.is_none() && app.db.is_shared() {
            listener = app.db.listener().await.ok().flatten();
        }
        super::log("following events", app.follow_events().await);
        // Every replica shows which devices are online, not only the leader.
        if app.now() >= next_heartbeats {
            next_heartbeats = app.now().plus(app.settings.jobs.flush);
            super::log("reading heartbeats", app.read_heartbeats().await);
        }
        let woken = async {
            match &mut listener {
                Some(listener) => listener.recv().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let lost = tokio::select! {
            ok = woken => !ok,
            () = tokio::time::sleep(Duration::from_secs(1)) => false,
            () = app.stopping.cancelled() => return,
        };
        if lost {
            listener = None;
        }
    }
}

/// Writes gathered heartbeats periodically, all of them in one transaction.
pub(super) async fn flush_heartbeats(app: Arc<App>) {
    loop {
        let stopping = tokio::select! {
            () = tokio::time::sleep(app.settings.jobs.flush) => false,
            () = app.stopping.cancelled() => true,
        };
        super::log("writing heartbeats", app.flush_heartbeats().await);
        if stopping {
            return;
        }
    }
}

impl App {
    /// Writes the pending heartbeats; they stay pending if that fails.
    pub(crate) async fn flush_heartbeats(&self) -> Result<(), ServiceError> {
        let mut waiting = Vec::new();
        for entry in self.fleet.devices() {
            let mut state = entry.lock();
            if std::mem::take(&mut state.dirty) {
                waiting.push(state.device.clone());
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        waiting.sort_by_key(|d| d.id);
        let written = self.write_heartbeats(&waiting).await;
        if written.is_err() {
            for device in &waiting {
                if let Some(entry) = self.fleet.device(device.id) {
                    entry.lock().dirty = true;
                }
            }
        }
        Ok(written?)
    }

    /// Reads the heartbeats written by other replicas: the planner needs to know which devices are
    /// online.
    pub(crate) async fn read_heartbeats(&self) -> Result<(), ServiceError> {
        if !self.db.is_shared() {
            return Ok(());
        }
        let since = {
            let mut at = self.heartbeats_read.lock().await;
            let since = at.minus(OVERLAP);
            *at = self.now();
            since
        };
        let heard = devices::flushed_after(&mut self.db.read().await?, since).await?;
        self.fleet.merge_heartbeats(&heard);
        Ok(())
    }
}

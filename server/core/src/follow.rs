//! Follows events: brings every committed change into this replica's memory, whichever replica
//! wrote it. The writer normally applies its change at once; this catches those where that failed
//! or was interrupted.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_domain::event::{Topic, Touches};
use tidegate_store::{Listener, devices, events};

use crate::CoreError;
use crate::app::App;

/// Number of events read at once.
const BATCH: i64 = 500;
/// Overlap when reading the heartbeats of other replicas, since clocks differ a little.
const OVERLAP: Duration = Duration::from_secs(30);

impl App {
    /// Applies all events committed so far.
    pub async fn follow_events(&self) -> Result<(), CoreError> {
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

impl App {
    /// Writes the pending heartbeats; they stay pending if that fails.
    pub async fn flush_heartbeats(&self) -> Result<(), CoreError> {
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
    pub async fn read_heartbeats(&self) -> Result<(), CoreError> {
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
        for device in self.fleet.merge_heartbeats(&heard) {
            self.fleet.reload_device(&self.db, device).await?;
        }
        Ok(())
    }
}

/// Wake-ups by other replicas that have written events. They only wake: the events table is the
/// source of truth.
#[derive(Default)]
pub struct Notices(Option<Listener>);

impl Notices {
    /// Begins to listen if it does not yet. Without other replicas there is nothing to hear.
    pub async fn listen(&mut self, app: &App) {
        if self.0.is_none() && app.db.is_shared() {
            self.0 = app.db.listener().await.ok().flatten();
        }
    }

    /// Waits for the next wake-up; for ever while none can be heard.
    pub async fn next(&mut self) {
        let Some(listener) = &mut self.0 else {
            return std::future::pending().await;
        };
        if !listener.heard().await {
            self.0 = None;
        }
    }
}

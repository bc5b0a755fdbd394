//! Following events: what was written reaches this replica's memory, by whomever it was written.
//! Who writes takes it over at once as a rule; what failed or was cut short then is made good here.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::service::ServiceError;
use crate::store::devices;
use crate::store::events::{self, EventKind};

/// Events read at once.
const BATCH: i64 = 500;
/// Heartbeats of other replicas are read with this overlap, since clocks differ a little.
const OVERLAP: Duration = Duration::from_secs(30);

impl App {
    /// Takes over all events that are committed by now.
    pub(crate) async fn follow_events(&self) -> Result<(), ServiceError> {
        let mut cursor = self.cursor.lock().await;
        loop {
            let batch = events::after(&mut self.db.read().await?, *cursor, BATCH).await?;
            let Some(last) = batch.last() else {
                return Ok(());
            };
            let head = last.seq;
            let (mut plan, mut access, mut rooms, mut changed) = (false, false, false, Vec::new());
            for event in &batch {
                let foreign = event.origin != self.origin;
                match event.event.kind {
                    EventKind::Release | EventKind::Rollout | EventKind::Trust => {
                        plan |= self.fleet.plan_lacks(event.seq);
                    }
                    EventKind::Pace => rooms |= self.fleet.rooms_lack(event.seq),
                    EventKind::Access => access = true,
                    EventKind::Device => changed.extend(event.event.device),
                    // Our own are taken over by the writer, many at once.
                    EventKind::Deployment if foreign => changed.extend(event.event.device),
                    EventKind::Deployment => {}
                }
            }
            changed.sort_unstable();
            changed.dedup();
            for device in changed {
                self.fleet.reload_device(&self.db, device).await?;
            }
            if access {
                self.access.reload(&self.db).await?;
            }
            if plan {
                self.fleet.reload_plan(&self.db).await?;
            } else if rooms {
                self.fleet.reload_rooms(&self.db).await?;
            }
            *cursor = head;
        }
    }
}

/// Follows until the server stops: woken by other replicas, and once a second in any case.
pub(super) async fn run(app: Arc<App>) {
    let mut listener = None;
    let mut next_heartbeats = app.now();
    while !app.stopping.is_cancelled() {
        if listener.is_none() && app.db.is_shared() {
            listener = app.db.listener().await.ok().flatten();
        }
        super::log("following events", app.follow_events().await);
        // Every replica shows who is online, not only the one that plans.
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

/// Writes heartbeats behind, all that have gathered in one transaction.
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
    /// Writes the heartbeats that wait.
    pub(crate) async fn flush_heartbeats(&self) -> Result<(), ServiceError> {
        let now = self.now();
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
        let written = async {
            let mut tx = self.db.write().await?;
            for device in &waiting {
                devices::heartbeat(&mut tx, device, now).await?;
            }
            tx.commit().await
        }
        .await;
        if written.is_err() {
            for device in &waiting {
                if let Some(entry) = self.fleet.device(device.id) {
                    entry.lock().dirty = true;
                }
            }
        }
        Ok(written?)
    }

    /// Takes over the heartbeats that other replicas wrote: the planner asks who is online.
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

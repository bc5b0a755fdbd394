//! Following of events, and writing of heartbeats.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{App, Notices};

use crate::{Job, log};

/// Brings what other replicas have written into memory.
pub(crate) struct Follow;

impl Job for Follow {
    fn name(&self) -> &'static str {
        "following events"
    }

    fn run(&self, app: Arc<App>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(run(app))
    }
}

/// Writes the heartbeats that were gathered.
pub(crate) struct Heartbeats;

impl Job for Heartbeats {
    fn name(&self) -> &'static str {
        "writing heartbeats"
    }

    fn run(&self, app: Arc<App>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(flush_heartbeats(app))
    }
}

/// Follows events until the server stops: when notified by other replicas, and at least once a
/// second.
async fn run(app: Arc<App>) {
    let mut notices = Notices::default();
    let mut next_heartbeats = app.now();
    while !app.stopping().is_cancelled() {
        notices.listen(&app).await;
        log("following events", app.follow_events().await);
        // Every replica shows which devices are online, not only the leader.
        if app.now() >= next_heartbeats {
            next_heartbeats = app.now().plus(app.settings().jobs.flush);
            log("reading heartbeats", app.read_heartbeats().await);
        }
        tokio::select! {
            () = notices.next() => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = app.stopping().cancelled() => return,
        }
    }
}

/// Writes gathered heartbeats periodically, all of them in one transaction.
async fn flush_heartbeats(app: Arc<App>) {
    loop {
        let stopping = tokio::select! {
            () = tokio::time::sleep(app.settings().jobs.flush) => false,
            () = app.stopping().cancelled() => true,
        };
        log("writing heartbeats", app.flush_heartbeats().await);
        if stopping {
            return;
        }
    }
}

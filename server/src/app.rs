//! State shared by all tasks of one server.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tidegate_protocol::Timestamp;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::blob::Blobs;
use crate::commit::Applied;
use crate::commit::group::Writer;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::service::ServiceError;
use crate::service::access::Access;
use crate::service::execute::Watch;
use crate::service::fleet::Fleet;
use crate::store::Db;

/// State shared by all tasks of one server.
pub struct App {
    pub(crate) settings: Settings,
    pub(crate) db: Db,
    pub(crate) blobs: Blobs,
    pub(crate) fleet: Fleet,
    pub(crate) access: Access,
    pub(crate) writer: Writer,
    pub(crate) metrics: Metrics,
    /// Name of this replica in events and leases.
    pub(crate) origin: String,
    /// Own events already applied to memory.
    pub(crate) applied: Applied,
    pub(crate) stopping: CancellationToken,
    /// Number of the newest event applied to memory.
    pub(crate) cursor: Mutex<i64>,
    pub(crate) heartbeats_read: Mutex<Timestamp>,
    /// State the planner keeps between rounds.
    pub(crate) watch: Mutex<Watch>,
    /// Number of requests in progress.
    pub(crate) requests: AtomicUsize,
    pub(crate) planner: Notify,
    pub(crate) builder: Notify,
}

impl App {
    pub(crate) fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    /// Wakes the planner: something changed that it may want to act on.
    pub(crate) fn wake_planner(&self) {
        self.planner.notify_one();
    }

    /// Wakes held check-ins so that they are decided again.
    pub(crate) fn wake_held(&self) {
        self.fleet.wake_held();
    }

    pub(crate) async fn planner_woken(&self) {
        self.planner.notified().await;
    }

    pub(crate) fn wake_builder(&self) {
        self.builder.notify_one();
    }

    pub(crate) async fn builder_woken(&self) {
        self.builder.notified().await;
    }

    /// Current plan.
    pub fn plan(&self) -> Arc<crate::service::plan::PlanSnapshot> {
        self.fleet.plan()
    }

    /// Time the database takes to open a read transaction: the median of nine tries.
    pub async fn round_trip(&self) -> Result<Duration, ServiceError> {
        let mut tries = Vec::new();
        for _ in 0..9 {
            let began = std::time::Instant::now();
            drop(self.db.read().await?);
            tries.push(began.elapsed());
        }
        tries.sort_unstable();
        Ok(tries[tries.len() / 2])
    }

    /// Number of statements this server has run.
    pub fn statements_run(&self) -> u64 {
        self.db.statements_run()
    }
}

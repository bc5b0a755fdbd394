//! State shared by all tasks of one server.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tidegate_protocol::Timestamp;
use tidegate_store::{Db, HeadroomStanding};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::CoreError;
use crate::blob::Blobs;
use crate::memory::access::Access;
use crate::memory::applied::Applied;
use crate::memory::fleet::Fleet;
use crate::memory::plan::PlanSnapshot;
use crate::memory::watch::Watch;
use crate::metrics::Metrics;
use crate::queue::Writer;
use crate::settings::Settings;

/// State shared by all tasks of one server. The use cases are its methods, in the folders of their
/// subjects.
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
    /// Held while a join token is looked up. Anybody can ask for that: all who do share one of the
    /// database's connections, so that they cannot keep an operator from theirs.
    pub(crate) joining: Mutex<()>,
    pub(crate) planner: Notify,
    pub(crate) builder: Notify,
}

/// Parts that can serve requests now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The database answers.
    pub database: bool,
    /// Blobs can be read.
    pub blobs: bool,
    /// The server is not stopping.
    pub serving: bool,
    /// Reason that the last write of the database failed for; the jobs write every few seconds.
    pub unwritable: Option<String>,
    /// Sentences for people about what else is wrong or about to be.
    pub problems: Vec<String>,
}

impl App {
    /// Time of the server's clock.
    pub fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    /// Settings it was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Name of this replica in events and leases.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Counters and gauges.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Number of requests in progress, kept by the HTTP layer. Check-ins read it to spread out.
    pub fn requests(&self) -> &AtomicUsize {
        &self.requests
    }

    /// Cancelled when the server stops.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Wakes the planner: something changed that it may want to act on.
    pub(crate) fn wake_planner(&self) {
        self.planner.notify_one();
    }

    /// Waits until the planner is woken.
    pub async fn planner_woken(&self) {
        self.planner.notified().await;
    }

    pub(crate) fn wake_builder(&self) {
        self.builder.notify_one();
    }

    /// Waits until the builder is woken.
    pub async fn builder_woken(&self) {
        self.builder.notified().await;
    }

    /// Current plan.
    pub fn plan(&self) -> Arc<PlanSnapshot> {
        self.fleet.plan()
    }

    /// Number of devices known.
    pub fn devices_known(&self) -> usize {
        self.fleet.len()
    }

    /// Checks whether requests can be served.
    pub async fn readiness(&self) -> Readiness {
        let room = self.db.room();
        let short = room.space.filter(|_| room.missing > 0).map(|space| {
            format!(
                "the disk of the database has {} MiB left, and {} of {} MiB of its ballast: make room on it",
                space.free >> 20,
                room.ballast >> 20,
                room.ballast.saturating_add(room.missing) >> 20
            )
        });
        let unwritable = room
            .failing
            .map(|reason| format!("orders such as a halt cannot be written: {reason}"));
        Readiness {
            database: self.db.is_ready().await,
            blobs: self.blobs.is_ready().await,
            serving: !self.stopping.is_cancelled(),
            unwritable,
            problems: [short, self.blobs.refuses()]
                .into_iter()
                .flatten()
                .collect(),
        }
    }

    /// Headroom of the database: whether it can be written, and what its disk has left.
    pub fn room(&self) -> HeadroomStanding {
        self.db.room()
    }

    /// Makes the ballast beside the database, or what is missing of it, if its disk has room.
    pub async fn keep_ballast(&self) {
        let db = self.db.clone();
        // It may have to write all of it.
        let _ = tokio::task::spawn_blocking(move || db.keep_ballast()).await;
    }

    /// Time the database takes to open a read transaction: the median of nine tries.
    pub async fn round_trip(&self) -> Result<Duration, CoreError> {
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

    /// Number of write transactions begun so far.
    pub fn writes_begun(&self) -> u64 {
        self.db.writes_begun()
    }

    /// Refreshes the database's statistics, by which it chooses indexes.
    pub async fn refresh_statistics(&self) -> Result<(), CoreError> {
        Ok(self.db.refresh_statistics().await?)
    }

    /// Closes the database; running transactions end first.
    pub async fn close(&self) {
        self.db.close().await;
    }
}

#![doc = include_str!("../README.md")]

mod build;
mod follow;
mod lead;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tidegate_core::{App, CoreError};
use tidegate_protocol::error_chain;
use tokio_util::task::TaskTracker;

/// Background work that runs until the server stops.
pub trait Job: Send + Sync {
    /// Name in the log.
    fn name(&self) -> &'static str;
    /// Runs until the server stops. Failures are logged and tried again: a job never gives up.
    fn run(&self, app: Arc<App>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Registry of all jobs.
pub fn all() -> Vec<Box<dyn Job>> {
    vec![
        Box::new(follow::Follow),
        Box::new(follow::Heartbeats),
        Box::new(lead::Lead),
        Box::new(build::Build),
    ]
}

/// Starts all jobs; each ends when the server stops.
pub fn spawn(app: &Arc<App>, tasks: &TaskTracker) {
    for job in all() {
        tracing::debug!(job = job.name(), "job starts");
        tasks.spawn(job.run(app.clone()));
    }
}

/// Logs a failed round; the next one retries.
pub(crate) fn log(what: &str, result: Result<(), CoreError>) {
    if let Err(error) = result {
        tracing::warn!(
            error = error_chain(&error),
            "{what} failed; will be retried"
        );
    }
}

//! Background tasks: following events, leading, building payloads, writing heartbeats.

mod build;
mod follow;
mod lead;

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::app::App;

/// Starts all background tasks; each ends when the server stops.
pub(crate) fn spawn(app: &Arc<App>, tasks: &TaskTracker) {
    tasks.spawn(follow::run(app.clone()));
    tasks.spawn(lead::run(app.clone()));
    tasks.spawn(build::run(app.clone()));
    tasks.spawn(follow::flush_heartbeats(app.clone()));
}

/// Logs a failed round; the next one retries.
pub(crate) fn log(what: &str, result: Result<(), crate::service::ServiceError>) {
    if let Err(error) = result {
        tracing::warn!(
            error = tidegate_protocol::error_chain(&error),
            "{what} failed; will be retried"
        );
    }
}

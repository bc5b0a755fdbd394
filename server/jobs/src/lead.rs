//! Leader: one replica plans, times out silent deployments and re-signs metadata. Another takes
//! over when its lease expires; a stale leader's writes are refused by revision.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{App, CoreError};

use crate::{Job, log};

const LEASE: &str = "leader";
/// Interval between checks for silent devices.
const TIMEOUTS: Duration = Duration::from_secs(10);
/// Interval between signatures of `snapshot` and `timestamp`: hourly, as a `timestamp` is valid for
/// a day.
const SIGN: Duration = Duration::from_hours(1);
/// Interval between attempts after one has failed.
const SIGN_AGAIN: Duration = Duration::from_mins(1);
/// Interval between refreshes of SQLite's statistics.
const STATISTICS: Duration = Duration::from_mins(5);
/// Time an idempotency key is kept.
const REMEMBER: Duration = Duration::from_hours(24);
/// Delay after a wake-up, so that changes arriving together are planned in one round.
const GATHER: Duration = Duration::from_millis(20);

/// Work of which one replica does it all.
pub(crate) struct Lead;

impl Job for Lead {
    fn name(&self) -> &'static str {
        "leading"
    }

    fn run(&self, app: Arc<App>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(run(app))
    }
}

async fn run(app: Arc<App>) {
    let mut leading = false;
    let mut next_timeouts = app.now();
    let mut next_sign = app.now();
    let mut next_statistics = app.now();
    while !app.stopping().is_cancelled() {
        match app.claim_lease(LEASE, app.settings().jobs.lease).await {
            Ok(mine) => {
                if mine != leading {
                    tracing::info!(leading = mine, "leadership changed");
                }
                leading = mine;
            }
            Err(error) => {
                log("claiming the lease", Err(error));
                leading = false;
            }
        }
        app.metrics().leading.set(i64::from(leading));
        if leading {
            log("planning", round(&app).await);
            let now = app.now();
            if now >= next_timeouts {
                next_timeouts = now.plus(TIMEOUTS);
                log("timing out silent deployments", app.time_out_silent().await);
                let kept = app.forget_idempotency(now.minus(REMEMBER)).await;
                log("forgetting idempotency keys", kept);
                log("applying announced ends of life", app.end_lives().await);
                log("telling withheld events", app.tell_withheld().await);
                log("closing incidents", app.close_incidents().await);
                app.keep_ballast().await;
            }
            if now >= next_statistics {
                next_statistics = now.plus(STATISTICS);
                let refreshed = app.refresh_statistics().await;
                log("refreshing the database statistics", refreshed);
            }
            if now >= next_sign {
                // A restart signs again, which is harmless: versions only rise.
                let signed = app.sign_again().await;
                next_sign = now.plus(if signed.is_ok() { SIGN } else { SIGN_AGAIN });
                log("re-signing the metadata", signed);
                log("collecting deltas", app.collect_deltas().await);
            }
        }
        tokio::select! {
            () = app.planner_woken() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(app.settings().jobs.tick) => {}
            () = app.stopping().cancelled() => {}
        }
    }
    let _ = app.release_lease(LEASE).await;
}

async fn round(app: &App) -> Result<(), CoreError> {
    app.follow_events().await?;
    app.start_due().await?;
    app.plan_rollouts().await
}

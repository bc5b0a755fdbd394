//! Leader: one replica plans, times out silent deployments and re-signs metadata. Another takes
//! over when its lease expires; a stale leader's writes are refused by revision.

use std::sync::Arc;
use std::time::Duration;

use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::event::Actor;
use tidegate_protocol::{Explained, Reason, Timestamp};

use crate::app::App;
use crate::commit::group::Write;
use crate::service::ServiceError;
use crate::store::deployments;

const LEASE: &str = "leader";
/// Interval between checks for silent devices.
const TIMEOUTS: Duration = Duration::from_secs(10);
/// Interval between signatures of `snapshot` and `timestamp`: hourly, as a `timestamp` is valid for
/// a day.
const SIGN: Duration = Duration::from_hours(1);
/// Interval between refreshes of SQLite's statistics.
const STATISTICS: Duration = Duration::from_mins(5);
/// Time an idempotency key is kept.
const REMEMBER: Duration = Duration::from_hours(24);
/// Maximum number of silent deployments handled in one round.
const SILENT: i64 = 500;
/// Delay after a wake-up, so that changes arriving together are planned in one round.
const GATHER: Duration = Duration::from_millis(20);

pub(super) async fn run(app: Arc<App>) {
    let mut leading = false;
    let mut next_timeouts = app.now();
    let mut next_sign = app.now();
    let mut next_statistics = app.now();
    while !app.stopping.is_cancelled() {
        match app.claim_lease(LEASE, app.settings.jobs.lease).await {
            Ok(mine) => {
                if mine != leading {
                    tracing::info!(leading = mine, "leadership changed");
                }
                leading = mine;
            }
            Err(error) => {
                super::log("claiming the lease", Err(error.into()));
                leading = false;
            }
        }
        app.metrics.leading.set(i64::from(leading));
        if leading {
            super::log("planning", round(&app).await);
            let now = app.now();
            if now >= next_timeouts {
                next_timeouts = now.plus(TIMEOUTS);
                super::log("timing out silent deployments", time_out(&app, now).await);
                super::log("applying announced ends of life", app.end_lives().await);
                super::log("closing incidents", app.close_incidents().await);
            }
            if now >= next_statistics {
                next_statistics = now.plus(STATISTICS);
                let refreshed = app.db.refresh_statistics().await;
                super::log(
                    "refreshing the database statistics",
                    refreshed.map_err(Into::into),
                );
            }
            if now >= next_sign {
                // A restart signs again, which is harmless: versions only rise.
                next_sign = now.plus(SIGN);
                super::log("re-signing the metadata", app.sign_again().await);
                super::log("collecting deltas", app.collect_deltas().await);
            }
        }
        tokio::select! {
            () = app.planner_woken() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(app.settings.jobs.tick) => {}
            () = app.stopping.cancelled() => {}
        }
    }
    let _ = app.release_lease(LEASE).await;
}

async fn round(app: &App) -> Result<(), ServiceError> {
    app.follow_events().await?;
    app.start_due().await?;
    app.plan_rollouts().await
}

async fn time_out(app: &App, now: Timestamp) -> Result<(), ServiceError> {
    let silent = deployments::silent(&mut app.db.read().await?, now, SILENT).await?;
    for deployment in silent {
        let reason = Explained::from(Reason::TimedOut);
        let order = Write::Order(deployment.facts.id, DeploymentEvent::TimedOut, reason);
        let device = deployment.device;
        app.writer.write(Actor::Planner, device, order).await?;
    }
    Ok(app.forget_idempotency(now.minus(REMEMBER)).await?)
}

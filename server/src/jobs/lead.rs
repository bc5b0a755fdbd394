//! Leading: one replica plans, times out the silent and signs again. Another takes over when
//! its lease lapses; a stale leader's writes are refused by revisions.

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
/// How often the silent are looked for.
const TIMEOUTS: Duration = Duration::from_secs(10);
/// How often `snapshot` and `timestamp` are signed again: a day's life, an hour's rhythm.
const SIGN: Duration = Duration::from_hours(1);
/// Interval between looks at SQLite's statistics.
const STATISTICS: Duration = Duration::from_mins(5);
/// How long an idempotency key is remembered.
const REMEMBER: Duration = Duration::from_hours(24);
/// Silent devices handled in one round.
const SILENT: i64 = 500;
/// What has gathered within this time after a wake-up is planned in one round.
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
                super::log("timing out", time_out(&app, now).await);
                super::log("ending lives", app.end_lives().await);
                super::log("closing incidents", app.close_incidents().await);
            }
            if now >= next_statistics {
                next_statistics = now.plus(STATISTICS);
                let refreshed = app.db.refresh_statistics().await;
                super::log("counting the rows", refreshed.map_err(Into::into));
            }
            if now >= next_sign {
                // A restart signs again: harmless, and the versions rise.
                next_sign = now.plus(SIGN);
                super::log("signing again", app.sign_again().await);
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

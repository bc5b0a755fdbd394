//! Rollouts: creation, start, stop and rollback.

mod accept;
mod aggregate;
pub mod approvals;
pub mod create;
mod execute;
pub(crate) mod order;
mod page;
mod population;
pub mod preview;
pub mod schedule;

use std::collections::BTreeMap;

use tidegate_domain::rollout::{Forecast, RolloutState, RolloutView, forecast, plan};
use tidegate_protocol::{Explained, ProblemCode, RolloutId, Timestamp};
use tidegate_store::Tx;
use tidegate_store::rollouts::{self, Rollout};
use tidegate_store::waves::{self, WaveRow};

use crate::CoreError;
use crate::app::App;
use crate::rollout::approvals::Waiting;
use crate::rollout::preview::Preview;

/// Rollout with its current counts.
#[derive(Debug, Clone)]
pub struct RolloutStanding {
    /// Stored row.
    pub rollout: Rollout,
    /// Its waves.
    pub waves: Vec<WaveRow>,
    /// View for the planner.
    pub view: RolloutView,
    /// Reason it does not proceed.
    pub waiting: Explained,
    /// Forecast of its finish.
    pub forecast: Forecast,
    /// Preview of its effect; only if it was asked for.
    pub preview: Option<Preview>,
    /// Change that waits for approvals.
    pub asked: Option<Waiting>,
}

/// Result of an order.
#[derive(Debug, Clone)]
pub struct Ordered {
    /// Rollout after the order.
    pub standing: RolloutStanding,
    /// Whether this was a dry run.
    pub dry_run: bool,
}

impl Ordered {
    /// Result of an order that was carried out.
    pub(crate) fn done(standing: RolloutStanding) -> Self {
        Self {
            standing,
            dry_run: false,
        }
    }
}

impl App {
    /// Returns a rollout with its current counts.
    pub async fn rollout(&self, id: RolloutId) -> Result<RolloutStanding, CoreError> {
        let mut tx = self.db.read().await?;
        let (rollout, rows) = read(&mut tx, id).await?;
        self.standing(&mut tx, rollout, rows).await
    }

    pub(crate) async fn standing(
        &self,
        tx: &mut Tx,
        rollout: Rollout,
        waves: Vec<WaveRow>,
    ) -> Result<RolloutStanding, CoreError> {
        let view = self.read_view(tx, &rollout, &waves).await?;
        let asked = self.asked(tx, &rollout, &waves).await?;
        Ok(self.with_view(rollout, waves, view, asked))
    }

    /// Standing of a rollout that is not stored, or has exposed no device.
    fn unread(&self, rollout: Rollout, waves: Vec<WaveRow>) -> RolloutStanding {
        let nothing = tidegate_domain::rollout::Progress::default();
        let view = self.view(
            &rollout,
            &waves,
            &BTreeMap::new(),
            &Vec::new(),
            nothing,
            Vec::new(),
        );
        self.with_view(rollout, waves, view, None)
    }

    fn with_view(
        &self,
        rollout: Rollout,
        waves: Vec<WaveRow>,
        view: RolloutView,
        asked: Option<Waiting>,
    ) -> RolloutStanding {
        let now = self.now();
        let waiting = waiting(&rollout, &view, now);
        let forecast = forecast(&view, now);
        RolloutStanding {
            rollout,
            waves,
            view,
            waiting,
            forecast,
            preview: None,
            asked,
        }
    }

    /// Returns a rollout as this transaction sees it.
    pub(crate) async fn standing_in(
        &self,
        tx: &mut Tx,
        id: RolloutId,
    ) -> Result<RolloutStanding, CoreError> {
        let (rollout, waves) = read(tx, id).await?;
        self.standing(tx, rollout, waves).await
    }
}

/// Reason a rollout does not proceed: its own if it is stopped, otherwise what it waits for.
fn waiting(rollout: &Rollout, view: &RolloutView, now: Timestamp) -> Explained {
    // A stopped rollout keeps the reason it was stopped with.
    let stopped = matches!(
        rollout.state,
        RolloutState::Halted
            | RolloutState::Paused
            | RolloutState::RolledBack
            | RolloutState::RolledBackPartly
            | RolloutState::Cancelled
    );
    // What it waits for is that of the request, if somebody else has not approved it yet.
    let asked =
        rollout.state == RolloutState::AwaitingApproval && !rollout.reason.detail.is_empty();
    if stopped || asked {
        rollout.reason.clone()
    } else {
        plan(view, now).waiting
    }
}

/// Refuses an order based on an older revision of the rollout.
pub(crate) fn same_revision(rollout: &Rollout, seen: Option<i64>) -> Result<(), CoreError> {
    if seen.is_some_and(|seen| seen != rollout.revision) {
        return Err(CoreError::refuse(
            ProblemCode::PreconditionFailed,
            format!(
                "the rollout is now at revision {}; read it again",
                rollout.revision
            ),
        ));
    }
    Ok(())
}

pub(crate) async fn read(tx: &mut Tx, id: RolloutId) -> Result<(Rollout, Vec<WaveRow>), CoreError> {
    let rollout = rollouts::one(tx, id)
        .await?
        .ok_or_else(|| CoreError::not_found(format!("rollout {id}")))?;
    let waves = waves::waves(tx, id).await?;
    Ok((rollout, waves))
}

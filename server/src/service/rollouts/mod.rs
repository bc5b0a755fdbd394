//! Rollouts: made, started, stopped, taken back.

pub mod create;
pub(super) mod order;

use std::collections::BTreeMap;

use tidegate_domain::rollout::{Forecast, RolloutState, RolloutView, forecast, plan};
use tidegate_protocol::{Explained, ProblemCode, RolloutId, Timestamp};

use super::ServiceError;
use super::approvals::Waiting;
use super::population::Preview;
use crate::app::App;
use crate::store::Tx;
use crate::store::rollouts::{self, Rollout, WaveRow};

/// A rollout with what is counted of it now.
#[derive(Debug, Clone)]
pub struct RolloutStanding {
    /// As stored.
    pub rollout: Rollout,
    /// Its waves.
    pub waves: Vec<WaveRow>,
    /// As the planner sees it.
    pub view: RolloutView,
    /// Why nothing more happens.
    pub waiting: Explained,
    /// When it will be finished.
    pub forecast: Forecast,
    /// What it would do, for those who asked for that.
    pub preview: Option<Preview>,
    /// What waits for approvals.
    pub asked: Option<Waiting>,
}

/// What an order did.
#[derive(Debug, Clone)]
pub struct Ordered {
    /// The rollout after it.
    pub standing: RolloutStanding,
    /// Whether it was only tried.
    pub dry_run: bool,
}

impl Ordered {
    /// What was really done.
    pub(super) fn done(standing: RolloutStanding) -> Self {
        Self {
            standing,
            dry_run: false,
        }
    }
}

impl App {
    /// A rollout with what is counted of it now.
    pub async fn rollout(&self, id: RolloutId) -> Result<RolloutStanding, ServiceError> {
        let mut tx = self.db.read().await?;
        let (rollout, rows) = read(&mut tx, id).await?;
        self.standing(&mut tx, rollout, rows).await
    }

    pub(super) async fn standing(
        &self,
        tx: &mut Tx,
        rollout: Rollout,
        waves: Vec<WaveRow>,
    ) -> Result<RolloutStanding, ServiceError> {
        let view = self.read_view(tx, &rollout, &waves).await?;
        let asked = self.asked(tx, &rollout, &waves).await?;
        Ok(self.with_view(rollout, waves, view, asked))
    }

    /// Of a rollout that is not stored, or has exposed nobody.
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

    /// A rollout as this transaction sees it.
    pub(super) async fn standing_in(
        &self,
        tx: &mut Tx,
        id: RolloutId,
    ) -> Result<RolloutStanding, ServiceError> {
        let (rollout, waves) = read(tx, id).await?;
        self.standing(tx, rollout, waves).await
    }
}

/// Why a rollout does no more: its own reason where it stands still, else what it waits for.
fn waiting(rollout: &Rollout, view: &RolloutView, now: Timestamp) -> Explained {
    // A rollout that stands still stands still for the reason that was given.
    let stopped = matches!(
        rollout.state,
        RolloutState::Halted
            | RolloutState::Paused
            | RolloutState::RolledBack
            | RolloutState::Cancelled
    );
    if stopped {
        rollout.reason.clone()
    } else {
        plan(view, now).waiting
    }
}

/// Refuses an order of somebody who looked at an older rollout.
pub(super) fn same_revision(rollout: &Rollout, seen: Option<i64>) -> Result<(), ServiceError> {
    if seen.is_some_and(|seen| seen != rollout.revision) {
        return Err(ServiceError::refuse(
            ProblemCode::PreconditionFailed,
            format!(
                "the rollout is at revision {} by now; look at it again",
                rollout.revision
            ),
        ));
    }
    Ok(())
}

pub(super) async fn read(
    tx: &mut Tx,
    id: RolloutId,
) -> Result<(Rollout, Vec<WaveRow>), ServiceError> {
    let rollout = rollouts::one(tx, id)
        .await?
        .ok_or_else(|| ServiceError::not_found(format!("rollout {id}")))?;
    let waves = rollouts::waves(tx, id).await?;
    Ok((rollout, waves))
}

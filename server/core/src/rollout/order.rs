//! Orders to a rollout: start, stop, resume, roll back.

use tidegate_domain::event::Event;
use tidegate_domain::rollout::{RolloutEvent, RolloutState, WaveProgress, WaveState};
use tidegate_protocol::{ChangeId, Explained, Reason, RolloutId};
use tidegate_store::Tx;
use tidegate_store::rollouts::{self, Rollout};
use tidegate_store::waves::{self, WaveRow};

use crate::CoreError;
use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::rollout::{Ordered, read, same_revision};

/// Maximum number of tries of a change that finds the rollout changed in the meantime.
pub(crate) const TRIES: usize = 20;

/// Repeats a change until the rollout has not changed in the meantime: in an incident the planner
/// may change the row concurrently, and an order to stop must not be given up for that. A macro,
/// because a closure that borrows a transaction and awaits cannot be shown to be `Send` within
/// another one.
macro_rules! until_current {
    ($app:expr, $tx:ident => $work:expr) => {{
        for _ in 0..$crate::rollout::order::TRIES {
            let mut change = $app.open_change().await?;
            let $tx = change.tx();
            let ended = match $work.await {
                Ok(Some(done)) => $app.close_change(change, done).await,
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            // A full disk has failed it, and room was made by that: nothing of it was written.
            if ended.as_ref().is_err_and($crate::CoreError::is_full) && $app.db.has_made_room() {
                continue;
            }
            return ended;
        }
        Err($crate::CoreError::refuse(
            tidegate_protocol::ProblemCode::Conflict,
            "the rollout keeps changing; try again",
        ))
    }};
}
pub(crate) use until_current;

/// Order, with its operator and reason.
pub(crate) struct Given<'a> {
    pub(crate) by: &'a Operator,
    pub(crate) order: RolloutEvent,
    pub(crate) reason: &'a str,
    /// Approved change that it carries out; `None` if none was needed.
    pub(crate) change: Option<ChangeId>,
}

/// Reason that a rollout shows after an order.
fn explained(by: &Operator, order: RolloutEvent, reason: &str) -> Explained {
    let code = match order {
        RolloutEvent::Start
        | RolloutEvent::Resume
        | RolloutEvent::Edit
        | RolloutEvent::Complete
        | RolloutEvent::CompletePartly
        | RolloutEvent::DoNothing
        | RolloutEvent::Returned
        | RolloutEvent::ReturnedPartly => Reason::WaveInFlight,
        RolloutEvent::AskApproval => Reason::ApprovalNeeded,
        RolloutEvent::Schedule => Reason::RolloutNotStarted,
        RolloutEvent::Pause => Reason::RolloutPaused,
        RolloutEvent::Halt => Reason::RolloutHalted,
        RolloutEvent::RollBack => Reason::RollbackOrdered,
        RolloutEvent::Cancel => Reason::CancelOrdered,
    };
    Explained::new(code, format!("{}: {reason}", by.name))
}

impl App {
    /// Gives a rollout an order. `revision` is the one the caller last saw, if it matters to them;
    /// halting and rolling back never require it.
    pub async fn order_rollout(
        &self,
        by: &Operator,
        id: RolloutId,
        order: RolloutEvent,
        reason: &str,
        revision: Option<i64>,
        dry_run: bool,
    ) -> Result<Ordered, CoreError> {
        if dry_run {
            return self.try_order(by, id, order, reason, revision).await;
        }
        let given = Given {
            by,
            order,
            reason,
            change: None,
        };
        until_current!(self, tx => self.order_in(tx, id, &given, revision))
    }

    /// Previews an order.
    async fn try_order(
        &self,
        by: &Operator,
        id: RolloutId,
        order: RolloutEvent,
        reason: &str,
        revision: Option<i64>,
    ) -> Result<Ordered, CoreError> {
        let mut tx = self.db.read().await?;
        let (rollout, waves) = read(&mut tx, id).await?;
        same_revision(&rollout, revision)?;
        let would = Rollout {
            state: rollout.state.apply(order)?,
            reason: explained(by, order, reason),
            ..rollout
        };
        let mut standing = self.standing(&mut tx, would, waves).await?;
        drop(tx);
        if matches!(order, RolloutEvent::Start | RolloutEvent::Schedule) {
            let plan = self.fleet.plan();
            standing.preview = Some(self.preview(&plan, &standing.rollout, &standing.waves));
        }
        Ok(Ordered {
            standing,
            dry_run: true,
        })
    }

    /// Gives an order within a transaction; `None` if the rollout has just changed.
    pub(crate) async fn order_in(
        &self,
        tx: &mut Tx,
        id: RolloutId,
        given: &Given<'_>,
        revision: Option<i64>,
    ) -> Result<Option<Done<Ordered>>, CoreError> {
        let now = self.now();
        let (rollout, waves) = read(tx, id).await?;
        same_revision(&rollout, revision)?;
        let state = rollout.state.apply(given.order)?;
        if state == rollout.state {
            let standing = self.standing(tx, rollout, waves).await?;
            return Ok(Some(Done::Leave(Ordered::done(standing))));
        }
        let why = explained(given.by, given.order, given.reason);
        if !rollouts::set_state(tx, &rollout, state, &why, now).await? {
            return Ok(None);
        }
        if given.order == RolloutEvent::Resume {
            reopen_failed_waves(tx, &rollout, &waves).await?;
            if rollout.state == RolloutState::Halted {
                // Whoever resumes has seen the failures so far: the gate judges only later ones.
                let view = self.read_view(tx, &rollout, &waves).await?;
                let seen = (0u32..)
                    .zip(&view.waves)
                    .map(|(i, w)| (i, (w.tally.failed(), w.tally.silent())))
                    .collect();
                rollouts::excuse(tx, rollout.id, &seen).await?;
            }
        }
        let moved = Event::RolloutMoved {
            product: rollout.product.clone(),
            rollout: id,
            order: given.order,
            from: rollout.state,
            to: state,
            change: given.change,
            reason: given.reason.to_owned(),
        };
        // Built within the transaction: no failed read after the commit can turn this into a
        // failure.
        let standing = self.standing_in(tx, id).await?;
        let ordered = Ordered::done(standing);
        Ok(Some(Done::by(&given.by.actor, ordered, [moved])))
    }
}

/// Reopens the failed wave when a person resumes a halted rollout.
async fn reopen_failed_waves(
    tx: &mut Tx,
    rollout: &Rollout,
    waves: &[WaveRow],
) -> Result<(), CoreError> {
    for (index, wave) in waves.iter().enumerate() {
        if wave.progress.state == WaveState::Failed {
            let wave = WaveProgress {
                state: WaveState::Running,
                ended_at: None,
                ..wave.progress
            };
            waves::set_wave(tx, rollout.id, index, &wave).await?;
        }
    }
    Ok(())
}

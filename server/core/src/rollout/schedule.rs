//! Scheduled starts of rollouts, and explanations of a rollout's state.

use tidegate_domain::event::Event;
use tidegate_domain::rollout::{Cluster, RolloutEvent, RolloutState, Sample, find_cluster};
use tidegate_protocol::{ProblemCode, RolloutId, Timestamp};
use tidegate_store::changes::ChangeKind;
use tidegate_store::{Tx, aggregates, rollouts};

use crate::CoreError;
use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::rollout::accept::note_accepted;
use crate::rollout::approvals::{Asking, others};
use crate::rollout::order::{Given, until_current};
use crate::rollout::preview::Preview;
use crate::rollout::{Ordered, RolloutStanding, read};

/// Explanation of a rollout's state.
#[derive(Debug, Clone)]
pub struct RolloutWhy {
    /// Its current state.
    pub standing: RolloutStanding,
    /// Devices it applies to and those it does not, counted now.
    pub preview: Preview,
    /// Known outcomes, grouped by what devices have in common.
    pub samples: Vec<Sample>,
    /// Group of devices in which the failures concentrate.
    pub cluster: Option<Cluster>,
}

impl App {
    /// Explains the state of a rollout: what it waits for, which devices are kept from it, what
    /// failed and what the failures have in common.
    pub async fn why_rollout(&self, id: RolloutId) -> Result<RolloutWhy, CoreError> {
        let mut tx = self.db.read().await?;
        let (rollout, rows) = read(&mut tx, id).await?;
        let samples = aggregates::samples(&mut tx, id).await?;
        let cluster = find_cluster(&samples, rollout.policy.gate.max_failure);
        let preview = self.preview(&self.fleet.plan(), &rollout, &rows);
        Ok(RolloutWhy {
            standing: self.standing(&mut tx, rollout, rows).await?,
            preview,
            samples,
            cluster,
        })
    }

    /// Schedules the start of a draft.
    pub async fn schedule_rollout(
        &self,
        by: &Operator,
        id: RolloutId,
        at: Timestamp,
        accepted: Option<u64>,
        dry_run: bool,
    ) -> Result<Ordered, CoreError> {
        let now = self.now();
        if at <= now {
            return Err(CoreError::invalid("at: must be in the future"));
        }
        let reason = format!("starts at {at}");
        let order = RolloutEvent::Schedule;
        if dry_run {
            self.needs_no_approval(&mut self.db.read().await?, id)
                .await?;
            return self.order_rollout(by, id, order, &reason, None, true).await;
        }
        let accepted = self.check_way_back(id, accepted).await?;
        until_current!(self, tx => self.schedule_in(tx, by, id, (at, accepted), &reason))
    }

    async fn schedule_in(
        &self,
        tx: &mut Tx,
        by: &Operator,
        id: RolloutId,
        (at, accepted): (Timestamp, Option<u64>),
        reason: &str,
    ) -> Result<Option<Done<Ordered>>, CoreError> {
        self.needs_no_approval(tx, id).await?;
        let noted = note_accepted(tx, id, accepted).await?;
        let given = Given {
            by,
            order: RolloutEvent::Schedule,
            reason,
            change: None,
        };
        let done = self.order_in(tx, id, &given, None).await?;
        // After the order, so that a refused one does not change the time.
        rollouts::set_starts(tx, id, at, &by.name).await?;
        Ok(done.map(|done| match done {
            Done::Commit(ordered, events) => {
                Done::Commit(ordered.at(at), events).and(&by.actor, noted)
            }
            // Already scheduled: only the time changes.
            Done::Leave(ordered) => {
                let rollout = &ordered.standing.rollout;
                let moved = Event::RolloutMoved {
                    product: rollout.product.clone(),
                    rollout: id,
                    order: RolloutEvent::Schedule,
                    from: rollout.state,
                    to: rollout.state,
                    change: None,
                    reason: reason.to_owned(),
                };
                Done::by(&by.actor, ordered.at(at), [moved]).and(&by.actor, noted)
            }
        }))
    }

    /// Starts rollouts whose time has come. Called only by the leader.
    pub async fn start_due(&self) -> Result<(), CoreError> {
        let due = rollouts::due(&mut self.db.read().await?, self.now()).await?;
        for rollout in due {
            // The others that are due do not wait for one that cannot start.
            if let Err(error) = self.start_one_due(rollout.id).await {
                let error = tidegate_protocol::error_chain(&error);
                tracing::warn!(rollout = %rollout.id, error, "a scheduled rollout was not started");
            }
        }
        Ok(())
    }

    async fn start_one_due(&self, id: RolloutId) -> Result<Ordered, CoreError> {
        until_current!(self, tx => self.start_due_in(tx, id))
    }

    /// Starts a rollout whose time has come, or asks for the approvals that this needs by now: the rule
    /// may have become stricter since it was scheduled.
    async fn start_due_in(
        &self,
        tx: &mut Tx,
        id: RolloutId,
    ) -> Result<Option<Done<Ordered>>, CoreError> {
        let (rollout, waves) = read(tx, id).await?;
        let due = rollout.starts_at.is_some_and(|at| at <= self.now());
        if rollout.state != RolloutState::Scheduled || !due {
            let standing = self.standing(tx, rollout, waves).await?;
            return Ok(Some(Done::Leave(Ordered::done(standing))));
        }
        let by = Operator::planner();
        let needed = self.needed(tx, &rollout).await?;
        if needed == 0 {
            let given = Given {
                by: &by,
                order: RolloutEvent::Start,
                reason: "scheduled start reached",
                change: None,
            };
            return self.order_in(tx, id, &given, None).await;
        }
        // Whoever scheduled it wants it, and agrees to it as little as if they had just asked.
        let asked_by = rollout.starts_by.as_ref().unwrap_or(&rollout.created_by);
        let asking = Asking {
            actor: &by.actor,
            asked_by,
            kind: ChangeKind::Start,
            policy: None,
            needed,
            why: format!(
                "by {}: its time has come, and since {asked_by} scheduled it starts need approvals",
                others(needed)
            ),
            reason: "scheduled start reached",
        };
        self.ask_in(tx, &rollout, &waves, asking).await
    }

    async fn needs_no_approval(&self, tx: &mut Tx, id: RolloutId) -> Result<(), CoreError> {
        let (rollout, _) = read(tx, id).await?;
        if self.needed(tx, &rollout).await? == 0 {
            return Ok(());
        }
        Err(CoreError::refuse(
            ProblemCode::Conflict,
            "the start of this rollout needs approvals: start it without a time, and it begins when they are given",
        ))
    }
}

impl Ordered {
    fn at(mut self, at: Timestamp) -> Self {
        self.standing.rollout.starts_at = Some(at);
        self
    }
}

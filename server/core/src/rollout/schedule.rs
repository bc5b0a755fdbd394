//! Scheduled starts of rollouts, and explanations of a rollout's state.

use tidegate_domain::event::Event;
use tidegate_domain::rollout::{Cluster, RolloutEvent, Sample, find_cluster};
use tidegate_protocol::{ProblemCode, RolloutId, Timestamp};
use tidegate_store::{Tx, aggregates, products, rollouts};

use crate::CoreError;
use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::rollout::accept::note_accepted;
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
            needs_no_approval(&mut self.db.read().await?, id).await?;
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
        needs_no_approval(tx, id).await?;
        let noted = note_accepted(tx, id, accepted).await?;
        let given = Given {
            by,
            order: RolloutEvent::Schedule,
            reason,
            change: None,
        };
        let done = self.order_in(tx, id, &given, None).await?;
        // After the order, so that a refused one does not change the time.
        rollouts::set_starts(tx, id, at).await?;
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
            let by = Operator::planner();
            let order = RolloutEvent::Start;
            self.order_rollout(
                &by,
                rollout.id,
                order,
                "scheduled start reached",
                None,
                false,
            )
            .await?;
        }
        Ok(())
    }
}

impl Ordered {
    fn at(mut self, at: Timestamp) -> Self {
        self.standing.rollout.starts_at = Some(at);
        self
    }
}

async fn needs_no_approval(tx: &mut Tx, id: RolloutId) -> Result<(), CoreError> {
    let (rollout, _) = read(tx, id).await?;
    let settings = products::all_settings(tx).await?;
    let approvals = settings
        .iter()
        .find(|(p, _)| *p == rollout.product)
        .map_or(0, |(_, s)| s.approvals);
    if approvals == 0 {
        return Ok(());
    }
    Err(CoreError::refuse(
        ProblemCode::Conflict,
        "the start of this product's rollouts needs approvals: start it, and it begins when they \
         are given",
    ))
}

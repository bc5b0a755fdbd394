//! Rollouts that start later, and why a rollout does what it does.

use tidegate_domain::event::Event;
use tidegate_domain::rollout::{Cluster, RolloutEvent, Sample, find_cluster};
use tidegate_protocol::{ProblemCode, RolloutId, Timestamp};

use super::ServiceError;
use super::access::Operator;
use super::population::Preview;
use super::rollouts::order::{Given, until_current};
use super::rollouts::{Ordered, RolloutStanding, read};
use crate::app::App;
use crate::commit::Done;
use crate::store::{Tx, aggregates, products, rollouts};

/// Why a rollout does what it does.
#[derive(Debug, Clone)]
pub struct RolloutWhy {
    /// As it stands.
    pub standing: RolloutStanding,
    /// Whom it concerns and whom not, counted now.
    pub preview: Preview,
    /// Known outcomes by what devices have in common.
    pub samples: Vec<Sample>,
    /// The devices that carry the failures.
    pub cluster: Option<Cluster>,
}

impl App {
    /// Why a rollout does what it does: whom it waits for, who is kept from it, what failed and
    /// what the failures have in common.
    pub async fn why_rollout(&self, id: RolloutId) -> Result<RolloutWhy, ServiceError> {
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

    /// Notes when a draft is to start by itself.
    pub async fn schedule_rollout(
        &self,
        by: &Operator,
        id: RolloutId,
        at: Timestamp,
        dry_run: bool,
    ) -> Result<Ordered, ServiceError> {
        let now = self.now();
        if at <= now {
            return Err(ServiceError::invalid("at: a time that is still to come"));
        }
        let reason = format!("starts at {at}");
        let order = RolloutEvent::Schedule;
        if dry_run {
            needs_no_approval(&mut self.db.read().await?, id).await?;
            return self.order_rollout(by, id, order, &reason, None, true).await;
        }
        until_current!(self, tx => self.schedule_in(tx, by, id, at, &reason))
    }

    async fn schedule_in(
        &self,
        tx: &mut Tx,
        by: &Operator,
        id: RolloutId,
        at: Timestamp,
        reason: &str,
    ) -> Result<Option<Done<Ordered>>, ServiceError> {
        needs_no_approval(tx, id).await?;
        let given = Given {
            by,
            order: RolloutEvent::Schedule,
            reason,
            change: None,
        };
        let done = self.order_in(tx, id, &given, None).await?;
        // Behind the order: one that is refused changes no time.
        rollouts::set_starts(tx, id, at).await?;
        Ok(done.map(|done| match done {
            Done::Commit(ordered, events) => Done::Commit(ordered.at(at), events),
            // Scheduled already: for another time now.
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
                Done::by(&by.actor, ordered.at(at), [moved])
            }
        }))
    }

    /// Starts rollouts whose time has come. Only the leader calls it.
    pub(crate) async fn start_due(&self) -> Result<(), ServiceError> {
        let due = rollouts::due(&mut self.db.read().await?, self.now()).await?;
        for rollout in due {
            let by = Operator::planner();
            let order = RolloutEvent::Start;
            self.order_rollout(&by, rollout.id, order, "its time has come", None, false)
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

async fn needs_no_approval(tx: &mut Tx, id: RolloutId) -> Result<(), ServiceError> {
    let (rollout, _) = read(tx, id).await?;
    let settings = products::all_settings(tx).await?;
    let approvals = settings
        .iter()
        .find(|(p, _)| *p == rollout.product)
        .map_or(0, |(_, s)| s.approvals);
    if approvals == 0 {
        return Ok(());
    }
    Err(ServiceError::refuse(
        ProblemCode::Conflict,
        "the start of this product's rollouts needs approvals: start it, and it begins when they \
         are given",
    ))
}

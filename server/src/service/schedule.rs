//! Rollouts that start later, and why a rollout does what it does.

use tidegate_domain::rollout::{Cluster, RolloutEvent, Sample, find_cluster};
use tidegate_protocol::{ProblemCode, RolloutId, Timestamp};

use super::ServiceError;
use super::access::Operator;
use super::population::Preview;
use super::rollouts::{Ordered, RolloutStanding, read};
use crate::app::App;
use crate::store::{aggregates, products, rollouts};

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
        let mut tx = self.db.write().await?;
        let (rollout, _) = read(&mut tx, id).await?;
        let settings = products::all_settings(&mut tx).await?;
        let approvals = settings
            .iter()
            .find(|(p, _)| *p == rollout.product)
            .map_or(0, |(_, s)| s.approvals);
        if approvals > 0 {
            return Err(ServiceError::refuse(
                ProblemCode::Conflict,
                "the start of this product's rollouts needs approvals: start it, and it begins when \
                 they are given",
            ));
        }
        if !dry_run {
            rollouts::set_starts(&mut tx, id, at).await?;
            tx.commit().await?;
        }
        let reason = format!("starts at {at}");
        self.order_rollout(by, id, RolloutEvent::Schedule, &reason, None, dry_run)
            .await
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

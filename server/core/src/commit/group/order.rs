//! Orders: the server cancels a deployment, or sends it back.

use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::event::{Actor, Event};
use tidegate_domain::rollout::Outcome;
use tidegate_protocol::{DeploymentId, DeviceId, Explained};
use tidegate_store::StoreError;
use tidegate_store::deployments::{self, Deployment};

use crate::commit::group::Batch;
use crate::queue::Written;

impl Batch<'_> {
    /// Applies an order to a deployment; `Outdated` if it has already moved on.
    pub(crate) async fn order(
        &mut self,
        actor: &Actor,
        device: DeviceId,
        id: DeploymentId,
        order: DeploymentEvent,
        reason: &Explained,
    ) -> Result<Written, StoreError> {
        let Some(was) = deployments::one(&mut self.tx, id).await? else {
            return Ok(Written::Outdated);
        };
        let Ok(facts) = was.facts.after(order, Some(reason.clone()), self.now) else {
            return Ok(Written::Outdated);
        };
        // None of these orders ends in a failure that is retried, so the rollout's limit on
        // attempts does not matter.
        let is = Deployment {
            outcome: Outcome::of(&facts, 0),
            facts,
            ..was.clone()
        };
        if !deployments::update(&mut self.tx, &is, was.facts.state).await? {
            return Ok(Written::Outdated);
        }
        self.gathered.count(Some(&was), &is, self.now);
        let moved = Event::DeploymentMoved {
            rollout: is.rollout,
            device,
            deployment: id,
            leg: is.facts.leg,
            from: was.facts.state,
            to: is.facts.state,
            code: reason.code,
            detail: reason.detail.clone(),
        };
        self.gathered.events.push((actor.clone(), moved));
        Ok(Written::Done)
    }
}

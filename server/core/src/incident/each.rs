//! Orders back of single devices: those that a selector names, and those that were left behind.

use tidegate_domain::admission::way_back;
use tidegate_domain::deployment::DeploymentEvent;
use tidegate_protocol::{Explained, Reason, RolloutId};
use tidegate_store::deployments::{self, Deployment};
use tidegate_store::incidents::Incident;

use crate::CoreError;
use crate::app::App;
use crate::memory::access::Operator;
use crate::queue::Write;

/// Devices of a rollout to order back one by one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    /// Those that run its release, or may.
    Selected,
    /// Those that an earlier order has left on it.
    LeftBehind,
}

/// Number of devices read at once, when they are ordered back one by one.
const PAGE: i64 = 500;

impl App {
    /// Orders devices of a rollout back one by one, in order of deployment id; returns their number. Those
    /// that an earlier order has left behind are reached if they still run the release, and have a way
    /// back by now: a release was published, or a policy changed.
    pub(super) async fn return_each(
        &self,
        by: &Operator,
        incident: &Incident,
        rollout: RolloutId,
        which: Which,
    ) -> Result<u64, CoreError> {
        let mut after = String::new();
        let mut ordered = 0;
        loop {
            let mut tx = self.db.read().await?;
            let page = match which {
                Which::Selected => deployments::switched(&mut tx, rollout, &after, PAGE).await?,
                Which::LeftBehind => deployments::stuck(&mut tx, rollout, &after, PAGE).await?,
            };
            drop(tx);
            let Some(last) = page.last() else {
                return Ok(ordered);
            };
            after = last.facts.id.to_string();
            for deployment in page {
                if !self.reaches(incident, &deployment) {
                    continue;
                }
                let why = Explained::new(Reason::RollbackOrdered, &incident.reason);
                let order = Write::Order(deployment.facts.id, DeploymentEvent::ReturnOrdered, why);
                let (actor, device) = (by.actor.clone(), deployment.device);
                self.writer.write(actor, device, order).await?;
                ordered += 1;
            }
        }
    }

    /// Returns whether an order reaches a device: it is selected, and if it was left behind before it still
    /// runs the release and can go back now.
    fn reaches(&self, incident: &Incident, deployment: &Deployment) -> bool {
        let Some(entry) = self.fleet.device(deployment.device) else {
            return false;
        };
        let state = entry.lock();
        let facts = state.facts();
        let plan = self.fleet.plan();
        let product = plan.product(&incident.product);
        incident.selector.matches(facts.selectable())
            && (!deployment.facts.is_stuck()
                || (facts.release == Some(&deployment.facts.leg)
                    && way_back(product, &facts, &deployment.facts).is_ok()))
    }
}

//! Offers: exposing one device to a rollout.

use std::collections::BTreeMap;

use tidegate_domain::admission::{DeploymentFacts, Offer};
use tidegate_domain::event::{Actor, Event};
use tidegate_domain::rollout::Outcome;
use tidegate_protocol::{DeploymentId, DeploymentState, DeviceId};
use tidegate_store::deployments::{self, Deployment};
use tidegate_store::{StoreError, aggregates, devices};

use crate::commit::group::Batch;
use crate::queue::Written;
use crate::random;

impl Batch<'_> {
    /// Offers a device a leg if it may be exposed. The rollout's fence is held.
    pub(crate) async fn offer(
        &mut self,
        actor: &Actor,
        device: DeviceId,
        offer: &Offer,
    ) -> Result<Written, StoreError> {
        let (tx, now) = (&mut self.tx, self.now);
        let Some(row) = devices::one(tx, device).await?.filter(|d| d.active) else {
            return Ok(Written::Outdated);
        };
        let previous = match offer.retry_of {
            Some(id) => deployments::one(tx, id).await?,
            None => None,
        };
        let id = if let Some(previous) = previous {
            let facts = &previous.facts;
            if !facts.state.is_final()
                || !deployments::retry(tx, facts.id, facts.state, &offer.leg, offer.generation, now)
                    .await?
            {
                return Ok(Written::Outdated);
            }
            let again = Deployment {
                facts: facts.again(offer.leg.clone(), now),
                outcome: Outcome::Waiting,
                ..previous.clone()
            };
            self.gathered.count(Some(&previous), &again, now);
            again.facts.id
        } else {
            let deployment = Deployment {
                rollout: offer.rollout,
                device,
                facts: DeploymentFacts {
                    id: DeploymentId::from_random(random::bytes()),
                    wave: offer.wave,
                    state: DeploymentState::Offered,
                    from: row.release.clone(),
                    leg: offer.leg.clone(),
                    reason: None,
                    attempts: 1,
                    took: false,
                    failures: BTreeMap::new(),
                    updated_at: now,
                },
                bytes_downloaded: 0,
                downtime_ms: None,
                created_at: now,
                region: row.region.to_string(),
                platform: row.platform.to_string(),
                model: row.labels.get("model").cloned().unwrap_or_default(),
                outcome: Outcome::Waiting,
            };
            if !deployments::insert(tx, &deployment, offer.generation).await? {
                return Ok(Written::Outdated);
            }
            if !aggregates::expose(tx, offer.rollout, now).await? {
                deployments::undo_offer(tx, deployment.facts.id).await?;
                return Ok(Written::NoPermit);
            }
            self.gathered.count(None, &deployment, now);
            deployment.facts.id
        };
        let offered = Event::DeploymentOffered {
            rollout: offer.rollout,
            device,
            deployment: id,
            leg: offer.leg.clone(),
            wave: offer.wave,
            name: row.name,
        };
        self.gathered.events.push((actor.clone(), offered));
        Ok(Written::Offered(id))
    }
}

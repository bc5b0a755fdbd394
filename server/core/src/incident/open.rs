//! Opening an incident together with the order that it is about.

use tidegate_domain::event::Event;
use tidegate_domain::rollout::RolloutEvent;
use tidegate_protocol::RolloutId;
use tidegate_store::Tx;
use tidegate_store::incidents::{self, Incident};

use crate::CoreError;
use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::rollout::Ordered;
use crate::rollout::order::{Given, until_current};

impl App {
    /// Gives a rollout its order, and opens the incident in the same transaction unless it is open.
    pub(crate) async fn order_for_incident(
        &self,
        by: &Operator,
        id: RolloutId,
        order: RolloutEvent,
        incident: &Incident,
        dry_run: bool,
    ) -> Result<Ordered, CoreError> {
        let reason = incident.reason.as_str();
        if dry_run {
            return self.order_rollout(by, id, order, reason, None, true).await;
        }
        let given = Given {
            by,
            order,
            reason,
            change: None,
        };
        until_current!(self, tx => self.order_and_open(tx, id, &given, incident))
    }

    async fn order_and_open(
        &self,
        tx: &mut Tx,
        id: RolloutId,
        given: &Given<'_>,
        incident: &Incident,
    ) -> Result<Option<Done<Ordered>>, CoreError> {
        let Some(done) = self.order_in(tx, id, given, None).await? else {
            return Ok(None);
        };
        if open_one(tx, incident).await?.is_some() {
            return Ok(Some(done));
        }
        let (ordered, mut events) = match done {
            Done::Commit(ordered, events) => (ordered, events),
            Done::Leave(ordered) => (ordered, Vec::new()),
        };
        events.push((given.by.actor.clone(), opened_event(incident)));
        Ok(Some(Done::Commit(ordered, events)))
    }
}

/// Returns the open incident for the same devices; if there is none, inserts this one.
pub(crate) async fn open_one(
    tx: &mut Tx,
    incident: &Incident,
) -> Result<Option<Incident>, CoreError> {
    for rollout in &incident.rollouts {
        let open = incidents::open_of(tx, *rollout).await?;
        if let Some(open) = open.filter(|open| open.selector == incident.selector) {
            return Ok(Some(open));
        }
    }
    incidents::insert(tx, incident).await?;
    Ok(None)
}

pub(crate) fn opened_event(incident: &Incident) -> Event {
    Event::IncidentOpened {
        incident: incident.id,
        product: incident.product.clone(),
        rollout: incident.rollouts.first().copied(),
        release: incident.release.clone(),
        selector: incident.selector.to_string(),
        rollouts: incident.rollouts.clone(),
        reason: incident.reason.clone(),
    }
}

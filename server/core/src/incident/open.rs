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
    // Opened by an earlier transaction of the same order, and perhaps closed since: where no device
    // can come back, an incident is over at once.
    if let Some(opened) = incidents::one(tx, incident.id).await? {
        return Ok(Some(opened));
    }
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

#[cfg(test)]
mod tests {
    use tidegate_domain::event::Actor;
    use tidegate_domain::selector::Selector;
    use tidegate_protocol::IncidentId;
    use tidegate_store::products;

    use super::*;
    use crate::blob::BlobSettings;
    use crate::clock::Clock;
    use crate::settings::{DeviceSettings, JobSettings, Settings};

    #[tokio::test]
    async fn an_incident_that_was_closed_at_once_is_not_opened_again_by_its_own_order() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            devices: DeviceSettings::default(),
            jobs: JobSettings::default(),
            max_upload: 1 << 20,
            clock: Clock::default(),
        };
        let database = format!("sqlite:{}", dir.path().join("t.db").display());
        let blobs = BlobSettings::Folder(dir.path().join("blobs"));
        let opened = crate::open(settings, &database, &blobs, |_| Ok(())).await;
        let app = opened.unwrap().app;
        let incident = Incident {
            id: IncidentId::from_random([7; 16]),
            product: "app".parse().unwrap(),
            release: "1.2.0".parse().unwrap(),
            selector: Selector::default(),
            rollouts: vec![RolloutId::from_random([1; 16])],
            reason: "too loud".into(),
            opened_at: app.now(),
            opened_by: "admin".into(),
            closed_at: None,
        };
        app.change(&Actor::System, async |tx| {
            products::insert_product(tx, &incident.product, app.now()).await?;
            assert_eq!(open_one(tx, &incident).await?, None);
            // No device can come back: the leader closes it before the order has ended.
            assert!(incidents::close(tx, incident.id, app.now()).await?);
            let again = open_one(tx, &incident).await?.unwrap();
            assert_eq!(again.id, incident.id);
            assert!(again.closed_at.is_some());
            Ok(((), Vec::new()))
        })
        .await
        .unwrap();
    }
}

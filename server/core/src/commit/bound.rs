//! Bounds the events that devices cause, before they are appended.

use std::collections::BTreeMap;

use tidegate_domain::event::budget::{Budget, Cost, HOUR};
use tidegate_domain::event::{Actor, Event};
use tidegate_protocol::{DeviceId, Timestamp};
use tidegate_store::{StoreError, Tx, budgets};

use crate::CoreError;
use crate::app::App;
use crate::commit::Done;

/// Most devices whose counts are told in one round.
const AT_ONCE: i64 = 100;

impl App {
    /// Returns the events to append: those that devices may cause, and what is told of the others. Other
    /// replicas learn what a withheld event says from the device's row.
    pub(super) async fn bounded(
        &self,
        tx: &mut Tx,
        events: &[(Actor, Event)],
        now: Timestamp,
    ) -> Result<Vec<(Actor, Event)>, StoreError> {
        let costs: Vec<Option<DeviceId>> = events
            .iter()
            .map(|(_, event)| self.payer(event, now))
            .collect();
        let mut held: BTreeMap<DeviceId, Budget> = BTreeMap::new();
        let mut kept = Vec::with_capacity(events.len());
        // In the order of their ids, as everywhere: two transactions must not wait for each other.
        for device in costs.iter().flatten() {
            held.entry(*device).or_insert(Budget::new(now));
        }
        for (device, budget) in &mut held {
            *budget = budgets::hold(tx, *device, now).await?;
            let told = budget.renew(*device, now);
            kept.extend(told.map(|event| (Actor::System, event)));
        }
        for ((actor, event), payer) in events.iter().zip(costs) {
            let budget = payer.and_then(|device| held.get_mut(&device));
            if budget.is_none_or(Budget::take) {
                kept.push((actor.clone(), event.clone()));
            } else {
                self.metrics.events_withheld.inc();
            }
        }
        for (device, budget) in &held {
            budgets::set(tx, *device, budget).await?;
        }
        Ok(kept)
    }

    /// Returns the device that an event costs a row of its hour.
    fn payer(&self, event: &Event, now: Timestamp) -> Option<DeviceId> {
        match event.cost() {
            Cost::Free => None,
            Cost::Note(device) => Some(device),
            Cost::Step(device) => {
                let entry = self.fleet.device(device)?;
                let free = entry.lock().steps.take(now);
                (!free).then_some(device)
            }
        }
    }

    /// Tells what was withheld of devices whose hour is over and who have been quiet since.
    pub async fn tell_withheld(&self) -> Result<(), CoreError> {
        let before = self.now().minus(HOUR);
        let due = budgets::due(&mut self.db.read().await?, before, AT_ONCE).await?;
        for device in due {
            self.change_or_leave(async |tx| {
                let mut budget = budgets::hold(tx, device, self.now()).await?;
                let Some(told) = budget.renew(device, self.now()) else {
                    return Ok(Done::Leave(()));
                };
                budgets::set(tx, device, &budget).await?;
                Ok(Done::by(&Actor::System, (), [told]))
            })
            .await?;
        }
        Ok(())
    }
}

//! Site bundles: orders for devices without a network, to be carried to them, and the reports
//! carried back.

use std::time::Duration;

use tidegate_domain::event::Event;
use tidegate_domain::selector::{Facts, Selector};
use tidegate_protocol::{
    Abilities, CheckIn, DeviceId, Encoding, Explained, Format, ReportBatch, ReportsAccepted,
    RolloutId,
};
use tidegate_store as store;
use tidegate_trust::lifetime::CARRIED_MAX;

use crate::app::App;
use crate::memory::access::Operator;
use crate::{CoreError, random};

/// Maximum number of devices in one bundle.
const MAX_DEVICES: usize = 2_000;

/// Order to one device of a site.
#[derive(Debug)]
pub struct Carried {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Its signed assignment, or the reason there is none.
    pub order: Result<String, Explained>,
}

impl App {
    /// Decides for each selected device of a rollout as if it checked in now, and signs its order
    /// with a validity in days. Waves, pace, holds and approvals apply as for any other device.
    pub async fn make_bundle(
        &self,
        rollout: RolloutId,
        selector: &Selector,
        days: u16,
        by: &Operator,
    ) -> Result<Vec<Carried>, CoreError> {
        let lives = Duration::from_secs(u64::from(days) * 86_400);
        if lives.is_zero() || lives > CARRIED_MAX {
            let most = CARRIED_MAX.as_secs() / 86_400;
            return Err(CoreError::invalid(format!("days: must be 1 to {most}")));
        }
        let row = store::rollouts::one(&mut self.db.read().await?, rollout)
            .await?
            .ok_or_else(|| CoreError::not_found(format!("rollout {rollout}")))?;
        let selected: Vec<_> = self
            .fleet
            .devices()
            .into_iter()
            .filter_map(|entry| {
                let state = entry.lock();
                let device = &state.device;
                let facts = Facts {
                    region: &device.region,
                    platform: &device.platform,
                    labels: &device.labels,
                    release: device.release.as_ref(),
                };
                let wanted = device.product == row.product && selector.matches(facts);
                let found = (device.id, device.name.clone());
                drop(state);
                wanted.then_some((found, entry))
            })
            .collect();
        if selected.len() > MAX_DEVICES {
            let text = format!(
                "{} devices are selected; a bundle holds at most {MAX_DEVICES}",
                selected.len()
            );
            return Err(CoreError::invalid(text));
        }
        let mut carried = Vec::new();
        for ((device, name), entry) in selected {
            let request = self.on_behalf(&entry);
            let answer = self.carried(by, device, &entry, &request, lives).await?;
            carried.push(Carried {
                device,
                name,
                order: answer.assignment.ok_or(answer.reason),
            });
        }
        carried.sort_by(|a, b| a.name.cmp(&b.name));
        let made = carried.iter().filter(|c| c.order.is_ok()).count();
        let event = Event::BundleMade {
            product: row.product,
            rollout,
            devices: made as u64,
            days: days.into(),
        };
        self.change(&by.actor, async |_| Ok((carried, vec![event])))
            .await
    }

    /// Builds the check-in that a device would send, as far as it is known here. Its counter is
    /// not: the time in milliseconds is higher than any, and rises with each bundle.
    fn on_behalf(&self, entry: &crate::memory::device::DeviceEntry) -> CheckIn {
        let state = entry.lock();
        let device = &state.device;
        let now = u64::try_from(self.now().as_micros() / 1_000).unwrap_or(0);
        CheckIn {
            format: Format::CURRENT,
            nonce: hex::encode(random::bytes::<32>()),
            counter: now.saturating_sub(1),
            turn: 0,
            acknowledged: None,
            wait: 0,
            agent_version: device.agent_version.clone(),
            release: device.release.clone(),
            image: device.image,
            battery: device.battery,
            metered: false,
            abilities: Abilities {
                encodings: Encoding::ALL.iter().map(ToString::to_string).collect(),
                ..Abilities::default()
            },
            healthy: None,
            deployment: None,
            kept: state.kept.clone(),
            refused: None,
            restore: None,
            left: None,
            diagnosis: None,
        }
    }

    /// Takes reports that were carried back. They are signed by the device, so it does not matter
    /// who carried them.
    pub async fn take_carried(
        &self,
        device: DeviceId,
        batch: ReportBatch,
        by: &Operator,
    ) -> Result<ReportsAccepted, CoreError> {
        let count = batch.reports.len();
        let accepted = self.take_reports(device, batch).await?;
        let event = Event::ReportsCarried {
            device,
            reports: count as u64,
        };
        self.change(&by.actor, async |_| Ok((accepted, vec![event])))
            .await
    }
}

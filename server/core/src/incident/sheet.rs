//! The blast-radius sheet of an incident, from memory.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_domain::admission::way_back;
use tidegate_domain::incident::{Exposed, Sheet, Standing, standing};
use tidegate_protocol::{DeploymentState, DeviceId, RolloutId};
use tidegate_store::incidents::Incident;

use crate::app::App;

/// Device that is not back yet.
#[derive(Debug, Clone)]
pub struct Worst {
    /// The device.
    pub device: DeviceId,
    /// Its name, for people.
    pub name: String,
    /// Its position in the rollback.
    pub standing: Standing,
    /// Whether it has missed its usual check-in.
    pub silent: bool,
}

/// Maximum number of devices listed.
const WORST: usize = 100;

impl App {
    /// Positions of the devices of an incident, from memory: a slow database keeps nobody from
    /// seeing it. Worst first: devices that cannot go back, are past the point of no return, have
    /// to download the old version, still keep it.
    pub(crate) fn sheet(&self, incident: &Incident) -> (Sheet, Vec<Worst>) {
        self.sheet_for(incident, false)
    }

    /// Like [`Self::sheet`]; `ordering` as if the order were given now.
    pub(crate) fn sheet_for(&self, incident: &Incident, ordering: bool) -> (Sheet, Vec<Worst>) {
        let plan = self.fleet.plan();
        let product = plan.product(&incident.product);
        let windows: BTreeMap<RolloutId, Duration> = plan
            .rollouts
            .iter()
            .filter(|(id, _)| incident.rollouts.contains(id))
            .map(|(id, (r, _))| {
                let seconds = u64::from(r.rollback_window_s) + u64::from(r.extended_s);
                (*id, Duration::from_secs(seconds))
            })
            .collect();
        let quiet_before = self.now().minus(self.settings.devices.offline_after());
        let mut sheet = Sheet::default();
        let mut worst = Vec::new();
        for entry in self.fleet.devices() {
            let state = entry.lock();
            let facts = state.facts();
            if !incident.selector.matches(facts.selectable()) {
                continue;
            }
            for id in &incident.rollouts {
                let Some(deployment) = state.deployments.get(id) else {
                    continue;
                };
                let back = way_back(product, &facts, deployment).map_err(|e| e.code);
                let device = Exposed {
                    deployment,
                    silent: state.device.last_seen < quiet_before,
                    runs_it: state.device.release.as_ref() == Some(&deployment.leg),
                    rollback_window: windows.get(id).copied().unwrap_or_default(),
                    way_back: back,
                    ordering,
                };
                sheet.add(&device);
                let standing = standing(&device);
                if !matches!(
                    standing,
                    Standing::Returned
                        | Standing::FailedByItself
                        | Standing::CalledOff
                        | Standing::MovedOn
                ) {
                    worst.push(Worst {
                        device: state.device.id,
                        name: state.device.name.clone(),
                        standing,
                        silent: device.silent,
                    });
                }
            }
        }
        worst.sort_by_key(|w| (rank(w.standing), !w.silent, w.device));
        worst.truncate(WORST);
        (sheet, worst)
    }
}

/// Sort key of a standing: the worst first.
fn rank(standing: Standing) -> u8 {
    match standing {
        Standing::CannotReturn(_) => 0,
        Standing::Switching => 1,
        Standing::OutsideWindow => 2,
        Standing::InsideWindow => 3,
        Standing::Returning => 4,
        Standing::BeforeSwitch => 5,
        Standing::FailedByItself | Standing::Returned | Standing::CalledOff | Standing::MovedOn => {
            6
        }
    }
}

/// Returns the API's word for a standing.
pub fn standing_word(standing: Standing) -> String {
    match standing {
        Standing::BeforeSwitch => "before_switch".into(),
        Standing::Switching => "switching".into(),
        Standing::InsideWindow => "inside_window".into(),
        Standing::OutsideWindow => "outside_window".into(),
        Standing::Returning => DeploymentState::RollingBack.to_string(),
        Standing::Returned => "returned".into(),
        Standing::FailedByItself => "failed_by_itself".into(),
        Standing::CalledOff => "called_off".into(),
        Standing::MovedOn => "moved_on".into(),
        Standing::CannotReturn(reason) => format!("cannot_return: {reason}"),
    }
}

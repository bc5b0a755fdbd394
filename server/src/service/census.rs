//! Counting the fleet for the planner.

use std::collections::BTreeMap;

use tidegate_domain::admission::Verdict;
use tidegate_domain::ring::{Frontier, Place};
use tidegate_domain::rollout::{Census, RolloutView, WaveState, WaveView};
use tidegate_domain::selector;
use tidegate_protocol::{Reason, Region, Timestamp};

use super::fleet::DeviceState;
use super::plan::PlanSnapshot;
use crate::app::App;
use crate::store::rollouts::{Rollout, WaveRow};

/// A rollout as the planner sees it, and what an executor needs to act.
#[derive(Debug, Clone)]
pub struct Counted {
    /// For the planner.
    pub view: RolloutView,
    /// Places of the members of each wave.
    pub places: Vec<Vec<Place>>,
    /// Devices that the rollout concerns, by region.
    pub by_region: BTreeMap<Region, u64>,
    /// Devices that it selects and does not concern, by the reason.
    pub blocked: BTreeMap<Reason, u64>,
}

impl Counted {
    /// The frontier of a wave that admits this many members; never below the present one.
    pub fn frontier(&mut self, wave: usize, members: Option<u64>, present: Frontier) -> Frontier {
        let wanted = match members {
            None => Frontier::ALL,
            Some(count) => Frontier::admitting(&mut self.places[wave], count),
        };
        wanted.max(present)
    }
}

impl App {
    /// Counts a rollout's devices.
    pub fn count(
        &self,
        plan: &PlanSnapshot,
        rollout: &Rollout,
        waves: &[WaveRow],
        now: Timestamp,
    ) -> Counted {
        let mut counted = Counted {
            view: RolloutView {
                state: rollout.state,
                waves: waves
                    .iter()
                    .map(|row| WaveView {
                        wave: row.wave.clone(),
                        state: row.state,
                        soak_started: row.soak_started,
                        census: Census::default(),
                    })
                    .collect(),
                gate: rollout.gate.clone(),
                pace: rollout.pace,
            },
            places: vec![Vec::new(); waves.len()],
            by_region: BTreeMap::new(),
            blocked: BTreeMap::new(),
        };
        let silent_before = now.minus(self.settings.devices.offline_after());
        for entry in self.fleet.devices() {
            let state = entry.lock();
            if state.device.product == rollout.product {
                count_device(
                    plan,
                    rollout,
                    waves,
                    &state,
                    silent_before,
                    now,
                    &mut counted,
                );
            }
        }
        counted
    }
}

fn count_device(
    plan: &PlanSnapshot,
    rollout: &Rollout,
    waves: &[WaveRow],
    state: &DeviceState,
    silent_before: Timestamp,
    now: Timestamp,
    counted: &mut Counted,
) {
    let device = &state.device;
    let deployment = state.deployments.get(&rollout.id);
    let facts = selector::Facts {
        region: &device.region,
        platform: &device.platform,
        labels: &device.labels,
    };
    let selected: Vec<usize> = waves
        .iter()
        .enumerate()
        .filter(|(_, w)| w.wave.selector.matches(facts))
        .map(|(i, _)| i)
        .collect();
    if selected.is_empty() && deployment.is_none() {
        return;
    }
    if deployment.is_none()
        && let Some(reason) = not_concerned(plan, rollout, state)
    {
        *counted.blocked.entry(reason).or_default() += 1;
        return;
    }
    *counted.by_region.entry(device.region.clone()).or_default() += 1;
    let place = device.ring.place(rollout.salt);
    // The wave that has the device: where it was deployed, or the first that admits it.
    let taken_by = deployment.map(|d| d.wave as usize).or_else(|| {
        selected
            .iter()
            .copied()
            .find(|i| waves[*i].state != WaveState::Pending && waves[*i].frontier.admits(place))
    });
    for index in selected {
        let census = &mut counted.view.waves[index].census;
        census.selected += 1;
        if taken_by.is_none_or(|taken| taken >= index) {
            census.members += 1;
            counted.places[index].push(place);
        }
        if taken_by == Some(index) {
            census.admitted += 1;
        }
    }
    let Some(taken) = taken_by else { return };
    let Some(wave) = counted.view.waves.get_mut(taken) else {
        return;
    };
    if let Some(deployment) = deployment {
        wave.census.tally.count(deployment, rollout.max_attempts);
    } else if device.last_seen >= silent_before {
        let decision = state.decide(plan, now, &mut ());
        let asks = matches!(decision.verdict, Verdict::Offer(o) if o.rollout == rollout.id);
        wave.census.expected += u64::from(asks);
    }
}

/// Why a rollout does not concern a device that it selects; `None` when it does.
fn not_concerned(plan: &PlanSnapshot, rollout: &Rollout, state: &DeviceState) -> Option<Reason> {
    let device = &state.device;
    let release = plan.product(&device.product).releases.get(&rollout.version);
    if !device.active {
        return Some(Reason::DeviceRevoked);
    }
    if device.release.as_ref() == Some(&rollout.version) {
        return Some(Reason::UpToDate);
    }
    if device
        .release
        .as_ref()
        .is_some_and(|r| *r > rollout.version)
    {
        return Some(Reason::NewerInstalled);
    }
    if state.quarantine.contains(&rollout.version) {
        return Some(Reason::Quarantined);
    }
    let Some(release) = release else {
        return Some(Reason::ReleaseNotOffered);
    };
    if !device.channel.takes(release.stage) {
        return Some(Reason::ChannelDoesNotTakeStage);
    }
    if !release.artifacts.contains_key(&device.platform) {
        return Some(Reason::NoArtifactForPlatform);
    }
    None
}

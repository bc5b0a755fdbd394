//! Membership of waves: counted exactly, once, when a wave starts, by a walk along the ring through
//! an index; and previews, counted over the fleet in memory on demand.

use std::collections::BTreeMap;

use tidegate_domain::admission::{Candidate, ProductPlan, not_concerned, way_to};
use tidegate_domain::hold;
use tidegate_domain::ring::{Frontier, Place, Ring};
use tidegate_domain::rollout::{Population, WaveSize, WaveState};
use tidegate_domain::selector;
use tidegate_protocol::{Platform, ProductName, Reason, Region, Version};

use super::ServiceError;
use super::fleet::DeviceState;
use super::plan::{PlanSnapshot, rollout_plan};
use crate::app::App;
use crate::store::devices;
use crate::store::rollouts::{Rollout, WaveRow};

/// Number of devices read at once on the walk.
const PAGE: i64 = 2_000;
/// Last position of the ring.
const LAST: u64 = (1 << 63) - 1;

/// Stretches of the ring that start at a place, in order of places.
fn stretches(from: u64, salt: Ring) -> Vec<(u64, u64)> {
    let first = Ring::at_place(from, salt).get();
    if first >= salt.get() {
        let mut list = vec![(first, LAST)];
        if salt.get() > 0 {
            list.push((0, salt.get() - 1));
        }
        list
    } else {
        vec![(first, salt.get() - 1)]
    }
}

impl App {
    /// Counts the devices that a wave takes, and finds the frontier that admits them.
    pub async fn population(
        &self,
        plan: &PlanSnapshot,
        rollout: &Rollout,
        waves: &[WaveRow],
        index: usize,
    ) -> Result<Population, ServiceError> {
        let product = plan.product(&rollout.product);
        let wave = &waves[index].wave;
        let region = wave.selector.pinned_region();
        let earlier: Vec<&WaveRow> = waves[..index]
            .iter()
            .filter(|w| w.progress.state != WaveState::Pending)
            .collect();
        // A share refers to all devices that the selector matches; a count can skip those that
        // earlier waves with the same selector have taken.
        let from = match wave.size {
            WaveSize::Share(_) => 0,
            WaveSize::All | WaveSize::Count(_) => earlier
                .iter()
                .filter(|w| w.wave.selector == wave.selector)
                .map(|w| w.progress.frontier.get())
                .max()
                .unwrap_or(0),
        };
        let mut found = Walk::default();
        if from <= LAST {
            let wanted = match wave.size {
                WaveSize::Count(count) => count,
                WaveSize::All | WaveSize::Share(_) => u64::MAX,
            };
            let mut tx = self.db.read().await?;
            'walk: for (first, last) in stretches(from, rollout.salt) {
                let mut next = first;
                loop {
                    let stretch = (next, last);
                    let page = devices::along_ring(
                        &mut tx,
                        &rollout.product,
                        region.as_ref(),
                        stretch,
                        &rollout.version,
                        PAGE,
                    )
                    .await?;
                    let full = i64::try_from(page.len()).is_ok_and(|n| n >= PAGE);
                    for device in &page {
                        next = device.ring.get().saturating_add(1);
                        found.see(product, rollout, waves, index, &earlier, device);
                        if found.places.len() as u64 >= wanted {
                            break 'walk;
                        }
                    }
                    if !full || next > last {
                        break;
                    }
                }
            }
        }
        let left = found.places.len() as u64;
        let quota = wave.size.quota(found.selected, left);
        let frontier = match (wave.size, quota.checked_sub(1)) {
            (WaveSize::All, _) => Frontier::ALL,
            (_, Some(last)) => usize::try_from(last)
                .ok()
                .and_then(|last| found.places.get(last))
                .map_or(Frontier::NONE, |place| Frontier::beyond(*place)),
            (_, None) => Frontier::NONE,
        };
        Ok(Population { quota, frontier })
    }
}

/// Results of a walk.
#[derive(Default)]
struct Walk {
    /// Devices that the selector matches and the rollout applies to.
    selected: u64,
    /// Places of those that no earlier wave has taken, in order.
    places: Vec<Place>,
}

impl Walk {
    fn see(
        &mut self,
        product: &ProductPlan,
        rollout: &Rollout,
        waves: &[WaveRow],
        index: usize,
        earlier: &[&WaveRow],
        device: &devices::Candidate,
    ) {
        let facts = selector::Facts {
            region: &device.region,
            platform: &device.platform,
            labels: &device.labels,
            release: device.release.as_ref(),
        };
        if !waves[index].wave.selector.matches(facts) {
            return;
        }
        let candidate = Candidate {
            active: device.active,
            platform: &device.platform,
            channel: device.channel,
            release: device.release.as_ref(),
            quarantined: device.barred,
        };
        let place = device.ring.place(rollout.salt);
        let taken = earlier
            .iter()
            .any(|w| w.wave.selector.matches(facts) && w.progress.frontier.admits(place));
        // A device taken by an earlier wave may already run the release, and still counts towards
        // the total.
        if !taken && not_concerned(product, &rollout.version, candidate).is_some() {
            return;
        }
        self.selected += 1;
        if !taken {
            self.places.push(place);
        }
    }
}

/// Update path of devices that are alike.
#[derive(Debug, Clone)]
pub struct PathCount {
    /// Release they run; `None` for bare devices.
    pub from: Option<Version>,
    /// Their platform.
    pub platform: Platform,
    /// Releases to install, in order.
    pub legs: Vec<Version>,
    /// Bytes that each device downloads.
    pub bytes: u64,
    /// Number of devices.
    pub devices: u64,
}

/// Effect a rollout would have, counted now.
#[derive(Debug, Clone, Default)]
pub struct Preview {
    /// Number of devices that each wave would take.
    pub waves: Vec<u64>,
    /// The same, by region.
    pub waves_by_region: Vec<BTreeMap<Region, u64>>,
    /// Devices the rollout applies to, by region.
    pub by_region: BTreeMap<Region, u64>,
    /// Devices it selects but will not update, by reason.
    pub blocked: BTreeMap<Reason, u64>,
    /// Devices that would have to wait now, by reason.
    pub waiting: BTreeMap<Reason, u64>,
    /// Update paths, most devices first.
    pub paths: Vec<PathCount>,
    /// Bytes to download in all.
    pub bytes: u64,
}

impl App {
    /// Counts the effect of a rollout if it started now.
    pub fn preview(&self, plan: &PlanSnapshot, rollout: &Rollout, waves: &[WaveRow]) -> Preview {
        let mut counting = Counting {
            product: plan.product(&rollout.product),
            rollout,
            as_planned: rollout_plan(rollout, waves),
            waves,
            members: Vec::new(),
            preview: Preview::default(),
        };
        for entry in self.fleet.devices() {
            let state = entry.lock();
            if state.device.product == rollout.product {
                counting.see(&state);
            }
        }
        counting.finish()
    }
}

impl App {
    /// Number of devices in each region that a release applies to.
    pub fn concerned_by_region(
        &self,
        product: &ProductName,
        goal: &Version,
    ) -> BTreeMap<Region, u64> {
        let plan = self.fleet.plan();
        let product_plan = plan.product(product);
        let mut counts = BTreeMap::new();
        for entry in self.fleet.devices() {
            let state = entry.lock();
            let facts = state.facts();
            let candidate = Candidate {
                active: facts.active,
                platform: facts.platform,
                channel: facts.channel,
                release: facts.release,
                quarantined: facts.quarantine.contains(goal),
            };
            if state.device.product == *product
                && not_concerned(product_plan, goal, candidate).is_none()
            {
                *counts.entry(facts.region.clone()).or_default() += 1;
            }
        }
        counts
    }
}

type Way = (Option<Version>, Platform, Vec<Version>, u64);

struct Counting<'a> {
    product: &'a ProductPlan,
    rollout: &'a Rollout,
    as_planned: tidegate_domain::admission::RolloutPlan,
    waves: &'a [WaveRow],
    members: Vec<(Place, Region, Vec<usize>, Way)>,
    preview: Preview,
}

impl Counting<'_> {
    fn see(&mut self, state: &DeviceState) {
        let facts = state.facts();
        let selectable = facts.selectable();
        let selected: Vec<usize> = (0..self.waves.len())
            .filter(|i| self.waves[*i].wave.selector.matches(selectable))
            .collect();
        if selected.is_empty() {
            return;
        }
        let goal = &self.rollout.version;
        let candidate = Candidate {
            active: facts.active,
            platform: facts.platform,
            channel: facts.channel,
            release: facts.release,
            quarantined: facts.quarantine.contains(goal),
        };
        let blocked = not_concerned(self.product, goal, candidate)
            .or_else(|| hold::find(&self.product.holds, goal, selectable).map(|_| Reason::Held));
        if let Some(reason) = blocked {
            *self.preview.blocked.entry(reason).or_default() += 1;
            return;
        }
        let way = match way_to(
            self.product,
            &facts,
            goal,
            self.as_planned.whole_for(&facts),
        ) {
            Ok(path) => {
                let from = facts.release.cloned();
                (from, facts.platform.clone(), path.legs, path.bytes)
            }
            Err(refusal) => {
                *self.preview.blocked.entry(refusal.code).or_default() += 1;
                return;
            }
        };
        if facts.deployments.values().any(|d| !d.state.is_final()) {
            *self.preview.waiting.entry(Reason::InProgress).or_default() += 1;
        }
        if facts.battery.is_low() {
            *self.preview.waiting.entry(Reason::BatteryLow).or_default() += 1;
        }
        let place = facts.ring.place(self.rollout.salt);
        *self
            .preview
            .by_region
            .entry(facts.region.clone())
            .or_default() += 1;
        self.members
            .push((place, facts.region.clone(), selected, way));
    }

    fn finish(mut self) -> Preview {
        self.members.sort_by_key(|(place, ..)| *place);
        let mut taken = vec![false; self.members.len()];
        let mut ways: BTreeMap<Way, u64> = BTreeMap::new();
        for (index, row) in self.waves.iter().enumerate() {
            let mine: Vec<usize> = (0..self.members.len())
                .filter(|i| self.members[*i].2.contains(&index))
                .collect();
            let left: Vec<usize> = mine.iter().copied().filter(|i| !taken[*i]).collect();
            let quota = row.wave.size.quota(mine.len() as u64, left.len() as u64);
            let mut regions: BTreeMap<Region, u64> = BTreeMap::new();
            for member in left
                .into_iter()
                .take(usize::try_from(quota).unwrap_or(usize::MAX))
            {
                taken[member] = true;
                *ways.entry(self.members[member].3.clone()).or_default() += 1;
                *regions.entry(self.members[member].1.clone()).or_default() += 1;
            }
            self.preview.waves.push(quota);
            self.preview.waves_by_region.push(regions);
        }
        for ((from, platform, legs, bytes), devices) in ways {
            self.preview.bytes += bytes.saturating_mul(devices);
            self.preview.paths.push(PathCount {
                from,
                platform,
                legs,
                bytes,
                devices,
            });
        }
        self.preview
            .paths
            .sort_by_key(|path| std::cmp::Reverse(path.devices));
        self.preview
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stretches_of_the_ring_cover_every_place_once_and_in_order() {
        for salt in [0, 1, 77, LAST] {
            let salt = Ring::from_random(salt);
            for from in [0, 5, LAST / 2, LAST] {
                let list = stretches(from, salt);
                let length: u128 = list.iter().map(|(a, b)| u128::from(b - a) + 1).sum();
                assert_eq!(length, u128::from(LAST - from) + 1, "{salt:?} {from}");
                let places: Vec<u64> = list
                    .iter()
                    .flat_map(|(a, b)| [*a, *b])
                    .map(|ring| Ring::from_random(ring).place(salt).get())
                    .collect();
                assert_eq!(places.first(), Some(&from));
                assert_eq!(places.last(), Some(&LAST));
                assert!(places.is_sorted());
            }
        }
    }
}

//! Effect of a rollout, counted over the fleet in memory on demand.

use std::collections::BTreeMap;

use tidegate_domain::admission::{
    Candidate, DeviceFacts, Limit, ProductPlan, foresee, not_concerned, way_to,
};
use tidegate_domain::hold;
use tidegate_domain::ring::Place;
use tidegate_protocol::{Explained, Platform, ProductName, Reason, Region, Version};
use tidegate_store::rollouts::Rollout;
use tidegate_store::waves::WaveRow;

use crate::app::App;
use crate::memory::device::DeviceState;
use crate::memory::plan::{PlanSnapshot, rollout_plan};

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

/// Devices whose way back would be limited, alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// The limit.
    pub limit: Limit,
    /// Reason for it.
    pub reason: Explained,
    /// Number of devices.
    pub devices: u64,
    /// Names of some of them.
    pub examples: Vec<String>,
}

/// Number of devices named as examples.
const EXAMPLES: usize = 5;

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
    /// Devices that it would update and whose way back would be limited: the worst limit first.
    pub limited: Vec<Limited>,
}

impl Preview {
    /// Number of devices that it would update and that could not be ordered back.
    pub fn no_way_back(&self) -> u64 {
        let never = self.limited.iter().filter(|l| l.limit == Limit::Never);
        never.map(|l| l.devices).sum()
    }
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
            let candidate = candidate(&facts, goal);
            if state.device.product == *product
                && not_concerned(product_plan, goal, candidate).is_none()
            {
                *counts.entry(facts.region.clone()).or_default() += 1;
            }
        }
        counts
    }
}

/// Facts of a device that decide whether a release applies to it.
fn candidate<'a>(facts: &DeviceFacts<'a>, release: &Version) -> Candidate<'a> {
    Candidate {
        active: facts.active,
        platform: facts.platform,
        channel: facts.channel,
        release: facts.release,
        quarantined: facts.quarantine.contains(release),
    }
}

type Way = (Option<Version>, Platform, Vec<Version>, u64);

/// Device that the rollout applies to.
struct Member {
    place: Place,
    region: Region,
    /// Indices of the waves that select it.
    selected: Vec<usize>,
    way: Way,
    limits: Vec<(Limit, Explained)>,
    /// Its name, where its way back is limited.
    name: Option<String>,
}

struct Counting<'a> {
    product: &'a ProductPlan,
    rollout: &'a Rollout,
    as_planned: tidegate_domain::admission::RolloutPlan,
    waves: &'a [WaveRow],
    members: Vec<Member>,
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
        let goal = &self.rollout.release;
        let candidate = candidate(&facts, goal);
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
        let limits = foresee(self.product, &facts, &way.2);
        self.members.push(Member {
            place,
            region: facts.region.clone(),
            selected,
            name: (!limits.is_empty()).then(|| state.device.name.clone()),
            way,
            limits,
        });
    }

    fn finish(mut self) -> Preview {
        self.members.sort_by_key(|member| member.place);
        let mut taken = vec![false; self.members.len()];
        let mut ways: BTreeMap<Way, u64> = BTreeMap::new();
        let mut limited: BTreeMap<(Limit, Reason, String), (u64, Vec<String>)> = BTreeMap::new();
        for (index, row) in self.waves.iter().enumerate() {
            let mine: Vec<usize> = (0..self.members.len())
                .filter(|i| self.members[*i].selected.contains(&index))
                .collect();
            let left: Vec<usize> = mine.iter().copied().filter(|i| !taken[*i]).collect();
            let quota = row.wave.size.quota(mine.len() as u64, left.len() as u64);
            let mut regions: BTreeMap<Region, u64> = BTreeMap::new();
            for member in left
                .into_iter()
                .take(usize::try_from(quota).unwrap_or(usize::MAX))
            {
                taken[member] = true;
                let member = &self.members[member];
                *ways.entry(member.way.clone()).or_default() += 1;
                *regions.entry(member.region.clone()).or_default() += 1;
                for (limit, why) in &member.limits {
                    let alike = limited
                        .entry((*limit, why.code, why.detail.clone()))
                        .or_default();
                    alike.0 += 1;
                    if alike.1.len() < EXAMPLES {
                        alike.1.extend(member.name.clone());
                    }
                }
            }
            self.preview.waves.push(quota);
            self.preview.waves_by_region.push(regions);
        }
        for ((limit, code, detail), (devices, examples)) in limited {
            self.preview.limited.push(Limited {
                limit,
                reason: Explained::new(code, detail),
                devices,
                examples,
            });
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

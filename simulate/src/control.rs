//! The control plane without a database: the same decisions, with counts in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_domain::admission::{
    ArtifactPlan, Candidate, Metered, ProductPlan, ReleasePlan, RolloutPlan, WavePlan,
    not_concerned,
};
use tidegate_domain::ring::{Frontier, Place, Ring};
use tidegate_domain::rollout::policy::Policy;
use tidegate_domain::rollout::{
    Action, Lag, Plan, Population, Progress, RolloutEvent, RolloutState, RolloutView, Stratum,
    Tally, Wave, WaveProgress, WaveSize, WaveState, WaveView, check, plan,
};
use tidegate_protocol::{
    Explained, Image, Reason, Region, RolloutId, Sha256, Stage, Timestamp, Version,
};

use crate::device::Device;
use crate::scenario::{Group, RolloutSpec, Scenario, ScenarioError};

/// Time over which the devices of an opening window are spread, as on the server.
const RAMP: Duration = Duration::from_mins(10);

/// A rollout with all the counts kept for it.
#[derive(Debug, Clone)]
pub(crate) struct Rollout {
    pub(crate) id: RolloutId,
    pub(crate) goal: Version,
    pub(crate) state: RolloutState,
    pub(crate) reason: Explained,
    salt: Ring,
    pub(crate) waves: Vec<(Wave, WaveProgress)>,
    pub(crate) policy: Policy,
    pub(crate) rollback_window_s: u32,
    pub(crate) max_attempts: u32,
    pub(crate) timeout: u64,
    pub(crate) progress: Progress,
    pub(crate) tallies: Vec<Tally>,
    /// Counts of failed and silent devices in each wave that a person has seen and accepted.
    pub(crate) excused: Vec<(u64, u64)>,
    pub(crate) strata: Vec<Stratum>,
    pub(crate) lag: Lag,
    pub(crate) samples: BTreeMap<(u16, Option<Reason>), u64>,
    /// Second of the first failure in each wave.
    pub(crate) first_failure: Vec<Option<u64>>,
    /// Wave whose gate stopped the rollout.
    pub(crate) breached: Option<usize>,
}

/// The control plane.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) plan: ProductPlan,
    pub(crate) rollouts: Vec<Rollout>,
    poll: Duration,
    pub(crate) next_deployment: u128,
}

/// Returns an image for a release; any distinct bytes will do.
pub(crate) fn image(releases: &[crate::scenario::ReleaseSpec], version: &Version) -> Option<Image> {
    let index = releases.iter().position(|r| r.version == *version)?;
    Some(Image {
        sha256: Sha256::from_bytes([u8::try_from(index).ok()? + 1; 32]),
        length: releases[index].bytes,
    })
}

impl Control {
    pub(crate) fn new(scenario: &Scenario, naive: bool) -> Result<Self, ScenarioError> {
        let mut releases = BTreeMap::new();
        let wrong = |what: String| ScenarioError(what);
        for spec in &scenario.release {
            let own = image(&scenario.release, &spec.version).ok_or_else(|| {
                wrong("expected at most 255 releases, and releases that the scenario lists".into())
            })?;
            let mut deltas = BTreeMap::new();
            for (from, bytes) in spec.delta.iter().filter(|_| !naive) {
                let from = image(&scenario.release, from).ok_or_else(|| {
                    wrong(format!(
                        "a delta starts from {from}, which is not a release of this scenario"
                    ))
                })?;
                deltas.insert(from.sha256, *bytes);
            }
            let artifact = ArtifactPlan {
                image: own,
                stepping_stone: spec.stepping_stone,
                min_from: None,
                allow_rollback: true,
                full_bytes: spec.bytes,
                deltas,
            };
            let platforms = scenario.devices.iter().map(|g| g.platform.clone());
            let plan = ReleasePlan {
                stage: Stage::Ga,
                eol: None,
                artifacts: platforms.map(|p| (p, artifact.clone())).collect(),
            };
            releases.insert(spec.version.clone(), plan);
        }
        Ok(Self {
            plan: ProductPlan {
                releases,
                ..ProductPlan::default()
            },
            rollouts: Vec::new(),
            poll: Duration::from_secs(scenario.poll),
            next_deployment: 1,
        })
    }

    /// Creates a rollout and starts it.
    pub(crate) fn start(
        &mut self,
        scenario: &Scenario,
        spec: &RolloutSpec,
        naive: bool,
    ) -> Result<(), ScenarioError> {
        let mut devices: BTreeMap<Region, u64> = BTreeMap::new();
        for group in &scenario.devices {
            *devices.entry(group.region.clone()).or_default() += u64::from(group.count);
        }
        let (waves, preset) = spec.waves(&devices)?;
        let mut rules = spec.policy.clone();
        // As on the server: three usual check-in intervals, plus the longest hold.
        rules
            .silent_after_s
            .get_or_insert((3 * scenario.poll + 55).max(240));
        let mut policy = crate::scenario::policy(&rules, preset)?;
        if naive {
            policy.pace = tidegate_domain::rollout::Pace::AtOnce;
            policy.limits = tidegate_domain::rollout::Limits::default();
            policy.windows = tidegate_domain::window::Windows::default();
            policy.battery_wait = Duration::ZERO;
            policy.metered = Metered::Allow;
            policy.gate.max_failure = tidegate_domain::BasisPoints::ALL;
            policy.gate.max_silent = tidegate_domain::BasisPoints::ALL;
        }
        let number = self.rollouts.len();
        let spec_waves = waves.len();
        let waves: Vec<_> = waves
            .into_iter()
            .map(|w| {
                let estimate = w.selector.pinned_region().map_or_else(
                    || devices.values().sum(),
                    |r| devices.get(&r).copied().unwrap_or(0),
                );
                let quota = w.size.quota(estimate, estimate);
                (w, WaveProgress::pending(quota))
            })
            .collect();
        self.rollouts.push(Rollout {
            id: RolloutId::from_random([u8::try_from(number).unwrap_or(u8::MAX) + 1; 16]),
            goal: spec.release.clone(),
            state: RolloutState::Running,
            reason: Reason::WaveInFlight.into(),
            salt: Ring::from_random(scenario.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            tallies: vec![Tally::default(); waves.len()],
            waves,
            policy,
            rollback_window_s: u32::try_from(spec.rollback_window).unwrap_or(u32::MAX),
            max_attempts: if naive { u32::MAX } else { spec.max_attempts },
            timeout: spec.timeout,
            progress: Progress::default(),
            strata: Vec::new(),
            lag: Lag::default(),
            samples: BTreeMap::new(),
            first_failure: vec![None; spec_waves],
            breached: None,
            excused: vec![(0, 0); spec_waves],
        });
        self.publish();
        Ok(())
    }

    /// Copies what decisions rest on into the plan, as a replica does when it reloads.
    pub(crate) fn publish(&mut self) {
        let mut plans: Vec<RolloutPlan> = self
            .rollouts
            .iter()
            .map(|r| RolloutPlan {
                id: r.id,
                goal: r.goal.clone(),
                state: r.state,
                generation: 1,
                salt: r.salt,
                waves: r
                    .waves
                    .iter()
                    .map(|(wave, progress)| WavePlan {
                        name: wave.name.clone(),
                        selector: wave.selector.clone(),
                        frontier: progress.frontier,
                        state: progress.state,
                    })
                    .collect(),
                max_attempts: r.max_attempts,
                rollback_window_s: r.rollback_window_s,
                windows: r.policy.windows.clone(),
                ramp: RAMP,
                deadline: r.policy.deadline,
                battery_wait: r.policy.battery_wait,
                metered: r.policy.metered,
            })
            .collect();
        plans.sort_by(|a, b| {
            (a.state.is_final().cmp(&b.state.is_final())).then_with(|| b.goal.cmp(&a.goal))
        });
        self.plan.rollouts = plans;
    }

    pub(crate) fn rollout(&self, id: RolloutId) -> Option<&Rollout> {
        self.rollouts.iter().find(|r| r.id == id)
    }

    /// Number of further devices that a rollout may expose.
    pub(crate) fn permits(&self, id: RolloutId) -> u64 {
        self.rollout(id).map_or(0, |r| r.progress.permits())
    }

    /// Returns a rollout as the planner sees it.
    pub(crate) fn view(&self, index: usize) -> RolloutView {
        let r = &self.rollouts[index];
        RolloutView {
            state: r.state,
            waves: r
                .waves
                .iter()
                .zip(&r.tallies)
                .zip(&r.excused)
                .map(|(((wave, progress), tally), excused)| WaveView {
                    wave: wave.clone(),
                    progress: *progress,
                    tally: *tally,
                    excused: *excused,
                })
                .collect(),
            gate: r.policy.gate.clone(),
            pace: r.policy.pace,
            limits: r.policy.limits,
            windows: r.policy.windows.clone(),
            progress: r.progress,
            strata: r.strata.clone(),
            by_hand: r.policy.by_hand,
            released: 0,
            reach: self.poll * 2,
            rollback_window: Duration::from_secs(u64::from(r.rollback_window_s)),
            deadline: r.policy.deadline,
        }
    }

    /// Plans and acts until there is nothing more to do; returns what was done, in words. The plan
    /// checker checks every plan.
    pub(crate) fn tick(
        &mut self,
        index: usize,
        devices: &[Device],
        groups: &[Group],
        now: Timestamp,
    ) -> Result<Vec<String>, ScenarioError> {
        let mut said = Vec::new();
        loop {
            let view = self.view(index);
            let step: Plan = plan(&view, now);
            let wrong = check(&view, &step);
            if let Some(wrong) = wrong.first() {
                return Err(ScenarioError(format!(
                    "the plan checker rejected the plan: {wrong}"
                )));
            }
            if step.actions.is_empty() {
                self.rollouts[index].reason = step.waiting;
                return Ok(said);
            }
            for action in &step.actions {
                said.extend(self.act(index, action, devices, groups, now)?);
            }
        }
    }

    fn act(
        &mut self,
        index: usize,
        action: &Action,
        devices: &[Device],
        groups: &[Group],
        now: Timestamp,
    ) -> Result<Option<String>, ScenarioError> {
        let refused = |e: tidegate_domain::rollout::RolloutRefusal| ScenarioError(e.to_string());
        let state = match action.on_rollout() {
            Some(event) => self.rollouts[index].state.apply(event).map_err(refused)?,
            None => self.rollouts[index].state,
        };
        let found = match action {
            Action::StartWave(i) => Some(self.population(index, *i, devices, groups)),
            _ => None,
        };
        let rollout = &mut self.rollouts[index];
        rollout.state = state;
        let text = match action {
            Action::Grant { granted, at } => {
                rollout.progress.granted = *granted;
                rollout.progress.granted_at = Some(*at);
                return Ok(None);
            }
            Action::StartWave(i) | Action::Soak(i) | Action::Pass(i) => {
                let (wave, progress) = &mut rollout.waves[*i];
                *progress = action.on_wave(progress, found, now);
                let tally = &rollout.tallies[*i];
                match action {
                    Action::StartWave(_) => {
                        format!("wave {} starts with {} devices", wave.name, progress.quota)
                    }
                    Action::Soak(_) => format!(
                        "wave {} soaks: {} healthy, {} failed, {} not reached",
                        wave.name,
                        tally.healthy(),
                        tally.failed(),
                        progress.quota.saturating_sub(tally.exposed())
                    ),
                    _ => format!("wave {} passed", wave.name),
                }
            }
            Action::Breach { wave, reason, .. } => {
                rollout.breached.get_or_insert(*wave);
                let progress = &mut rollout.waves[*wave].1;
                *progress = action.on_wave(progress, None, now);
                format!("{state}: {}", reason.detail)
            }
            Action::Complete => "completed".into(),
            Action::Returned => "rolled back: the last device is back".into(),
        };
        self.publish();
        Ok(Some(text))
    }

    /// Population of a wave, by the same rule as the server's walk along the ring.
    fn population(
        &self,
        index: usize,
        wave: usize,
        devices: &[Device],
        groups: &[Group],
    ) -> Population {
        let r = &self.rollouts[index];
        let (mine, _) = &r.waves[wave];
        let earlier: Vec<_> = r.waves[..wave]
            .iter()
            .filter(|(_, p)| p.state != WaveState::Pending)
            .collect();
        let mut selected = 0;
        let mut places: Vec<Place> = Vec::new();
        for device in devices {
            let spec = &groups[usize::from(device.group)];
            let facts = device.facts(spec, 0);
            if !mine.selector.matches(facts.selectable()) {
                continue;
            }
            let place = device.ring.place(r.salt);
            let taken = earlier
                .iter()
                .any(|(w, p)| w.selector.matches(facts.selectable()) && p.frontier.admits(place));
            let candidate = Candidate {
                active: true,
                platform: facts.platform,
                channel: facts.channel,
                release: facts.release,
                quarantined: device.quarantine.contains(&r.goal),
            };
            if !taken && not_concerned(&self.plan, &r.goal, candidate).is_some() {
                continue;
            }
            selected += 1;
            if !taken {
                places.push(place);
            }
        }
        let quota = mine.size.quota(selected, places.len() as u64);
        let frontier = if mine.size == WaveSize::All {
            Frontier::ALL
        } else {
            Frontier::admitting(&mut places, quota)
        };
        Population { quota, frontier }
    }

    /// Applies a person's order.
    pub(crate) fn order(&mut self, index: usize, event: RolloutEvent) -> Result<(), ScenarioError> {
        let rollout = &mut self.rollouts[index];
        rollout.state = rollout
            .state
            .apply(event)
            .map_err(|e| ScenarioError(e.to_string()))?;
        if event == RolloutEvent::Resume {
            rollout.excused = rollout
                .tallies
                .iter()
                .map(|t| (t.failed(), t.silent()))
                .collect();
            for (_, progress) in &mut rollout.waves {
                if progress.state == WaveState::Failed {
                    progress.state = WaveState::Running;
                    progress.ended_at = None;
                }
            }
        }
        self.publish();
        Ok(())
    }
}

//! The control plane without a database: the same decisions, with counts in memory.

mod act;

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_domain::admission::{
    ArtifactPlan, Metered, ProductPlan, ReleasePlan, RolloutPlan, WavePlan,
};
use tidegate_domain::ring::Ring;
use tidegate_domain::rollout::policy::Policy;
use tidegate_domain::rollout::{
    Lag, Progress, RolloutState, RolloutView, Stratum, Tally, Wave, WaveProgress, WaveView,
};
use tidegate_protocol::{Explained, Image, Reason, Region, RolloutId, Sha256, Stage, Version};

use crate::scenario::{RolloutSpec, Scenario, ScenarioError};

/// Time over which the devices of an opening window are spread, as on the server.
const RAMP: Duration = Duration::from_mins(10);

/// A rollout with all the counts kept for it.
#[derive(Debug, Clone)]
pub(crate) struct Rollout {
    pub(crate) id: RolloutId,
    pub(crate) release: Version,
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
            release: spec.release.clone(),
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
                release: r.release.clone(),
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
            (a.state.is_final().cmp(&b.state.is_final())).then_with(|| b.release.cmp(&a.release))
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
}

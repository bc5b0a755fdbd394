//! The planner: what a rollout does now, and why it does no more.
//!
//! It sees aggregates, never devices. A wave's frontier rises once, when the wave starts, to the
//! devices that it takes; how many of them are exposed when is the grant, a single number that
//! every offer is checked against. So devices that are offline hold nobody up, and no device is
//! exposed beyond what the pace allows, whoever of the wave comes first.

use std::time::Duration;

use tidegate_protocol::{Explained, Reason, Timestamp};

use super::{
    Gate, Limits, OnBreach, Pace, Progress, RolloutEvent, RolloutState, Stratum, Tally, Wave,
    WaveProgress, WaveState,
};
use crate::ring::Frontier;
use crate::window::Windows;

/// A wave as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveView {
    /// As planned.
    pub wave: Wave,
    /// How far it has come.
    pub progress: WaveProgress,
    /// What became of the devices that it exposed.
    pub tally: Tally,
    /// Failed and silent devices that a person has seen and let pass, by resuming after a halt:
    /// the gate judges what happens from then on.
    pub excused: (u64, u64),
}

impl WaveView {
    /// What the gate judges.
    fn judged(&self) -> Tally {
        self.tally.excusing(self.excused.0, self.excused.1)
    }
}

/// A rollout as the planner sees it: aggregates, no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutView {
    /// Where it stands.
    pub state: RolloutState,
    /// Its waves in order.
    pub waves: Vec<WaveView>,
    /// Its limits on failure.
    pub gate: Gate,
    /// Its pace.
    pub pace: Pace,
    /// Caps on the pace.
    pub limits: Limits,
    /// When devices may be updated.
    pub windows: Windows,
    /// What it has exposed and may expose.
    pub progress: Progress,
    /// What was seen of devices on the new and on the old release, for the comparison.
    pub strata: Vec<Stratum>,
    /// Whether each wave after the first waits for a person's word.
    pub by_hand: bool,
    /// How many waves beyond the first a person has released.
    pub released: usize,
    /// How long nobody must take what is granted before the rest of a wave counts as out of
    /// reach: offline, busy or held back.
    pub reach: Duration,
    /// The rollback window after a healthy start.
    pub rollback_window: Duration,
    /// When it should be finished.
    pub deadline: Option<Timestamp>,
}

impl RolloutView {
    /// All waves together.
    pub fn tally(&self) -> Tally {
        self.waves.iter().map(|w| w.tally).sum()
    }

    /// Healthy devices that prove something for a wave: those of waves with its selector.
    fn proof(&self, wave: usize) -> u64 {
        let selector = &self.waves[wave].wave.selector;
        self.waves
            .iter()
            .filter(|w| w.wave.selector == *selector)
            .map(|w| w.tally.healthy())
            .sum()
    }
}

/// One thing to do. Each names what it expects, so that an executor can apply it or drop it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The wave's turn has come: count its devices and admit them.
    StartWave(usize),
    /// Let so many devices be exposed in all.
    Grant {
        /// So many.
        granted: u64,
        /// From when the next grant of a limited rate is reckoned.
        at: Timestamp,
    },
    /// The wave's devices are done.
    Soak(usize),
    /// The wave's gate held.
    Pass(usize),
    /// The wave's gate is breached: stop, and do what the gate says beyond that.
    Breach {
        /// Which wave.
        wave: usize,
        /// What was measured.
        reason: Explained,
        /// Halt only, or roll back as well.
        then: OnBreach,
    },
    /// The last wave passed.
    Complete,
    /// The last device is back.
    Returned,
}

/// The devices of a wave, as counted when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Population {
    /// How many it takes.
    pub quota: u64,
    /// The frontier that admits them.
    pub frontier: Frontier,
}

impl Action {
    /// What it makes of the wave that it concerns; `found` is what was counted for
    /// [`Action::StartWave`]. A wave that selects nobody is skipped.
    pub fn on_wave(
        &self,
        wave: &WaveProgress,
        found: Option<Population>,
        now: Timestamp,
    ) -> WaveProgress {
        match self {
            Self::StartWave(_) => {
                let quota = found.map_or(wave.quota, |f| f.quota);
                let frontier = found.map_or(wave.frontier, |f| f.frontier);
                let skipped = quota == 0;
                WaveProgress {
                    state: if skipped {
                        WaveState::Skipped
                    } else {
                        WaveState::Running
                    },
                    // A frontier never falls: a wave that is reopened keeps its devices.
                    frontier: wave.frontier.max(frontier),
                    quota,
                    started_at: wave.started_at.or(Some(now)),
                    soak_started: None,
                    ended_at: skipped.then_some(now),
                }
            }
            Self::Soak(_) => WaveProgress {
                state: WaveState::Soaking,
                soak_started: Some(now),
                ..*wave
            },
            Self::Pass(_) => WaveProgress {
                state: WaveState::Passed,
                ended_at: Some(now),
                ..*wave
            },
            Self::Breach { .. } => WaveProgress {
                state: WaveState::Failed,
                ended_at: Some(now),
                ..*wave
            },
            Self::Grant { .. } | Self::Complete | Self::Returned => *wave,
        }
    }

    /// What it does to the rollout's state.
    pub fn on_rollout(&self) -> Option<RolloutEvent> {
        match self {
            Self::Breach {
                then: OnBreach::Halt,
                ..
            } => Some(RolloutEvent::Halt),
            Self::Breach {
                then: OnBreach::HaltAndRollBack,
                ..
            } => Some(RolloutEvent::RollBack),
            Self::Complete => Some(RolloutEvent::Complete),
            Self::Returned => Some(RolloutEvent::Returned),
            Self::StartWave(_) | Self::Grant { .. } | Self::Soak(_) | Self::Pass(_) => None,
        }
    }
}

/// What to do now, and what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Why nothing more happens.
    pub waiting: Explained,
}

impl Plan {
    fn wait(reason: impl Into<Explained>) -> Self {
        Self {
            actions: Vec::new(),
            waiting: reason.into(),
        }
    }

    fn act(action: Action, reason: impl Into<Explained>) -> Self {
        Self {
            actions: vec![action],
            waiting: reason.into(),
        }
    }
}

/// Plans one step. Applying it and planning again reaches a fixpoint; planning twice with
/// nothing changed gives the same.
pub fn plan(rollout: &RolloutView, now: Timestamp) -> Plan {
    match rollout.state {
        RolloutState::Running => plan_running(rollout, now),
        RolloutState::Completed => plan_late(rollout, now),
        RolloutState::RollingBack => plan_return(rollout),
        RolloutState::Paused => Plan::wait(Reason::RolloutPaused),
        RolloutState::Halted => Plan::wait(Reason::RolloutHalted),
        RolloutState::AwaitingApproval => Plan::wait(Reason::ApprovalNeeded),
        RolloutState::Draft | RolloutState::Scheduled => Plan::wait(Reason::RolloutNotStarted),
        RolloutState::RolledBack | RolloutState::Cancelled => Plan::wait(Reason::RolloutEnded),
    }
}

fn plan_return(rollout: &RolloutView) -> Plan {
    let tally = rollout.tally();
    let left = tally.not_back();
    if left == 0 {
        return Plan::act(Action::Returned, Reason::RolloutEnded);
    }
    let silent = tally.silent();
    Plan::wait(Explained::new(
        Reason::RolloutRollingBack,
        format!("{left} devices are not back yet, {silent} of them silent"),
    ))
}

/// Every wave that has exposed a device is watched, the passed ones included: a release can turn
/// out bad late.
fn breach(rollout: &RolloutView) -> Option<Plan> {
    let tallies: Vec<Tally> = rollout.waves.iter().map(WaveView::judged).collect();
    let breach = rollout.gate.look(&tallies, &rollout.strata)?;
    Some(breached(rollout, breach.wave, &breach.text))
}

fn breached(rollout: &RolloutView, wave: usize, text: &str) -> Plan {
    let name = rollout.waves.get(wave).map_or("", |w| w.wave.name.as_str());
    let reason = Explained::new(Reason::GateBreached, format!("wave {name}: {text}"));
    let then = rollout.gate.on_breach;
    Plan::act(
        Action::Breach {
            wave,
            reason: reason.clone(),
            then,
        },
        reason,
    )
}

fn plan_running(rollout: &RolloutView, now: Timestamp) -> Plan {
    if let Some(plan) = breach(rollout) {
        return plan;
    }
    let open = rollout
        .waves
        .iter()
        .position(|w| !matches!(w.progress.state, WaveState::Passed | WaveState::Skipped));
    let Some(index) = open else {
        return plan_end(rollout, now);
    };
    let wave = &rollout.waves[index];
    let starts = Explained::new(Reason::WaveNotStarted, &wave.wave.name);
    match wave.progress.state {
        WaveState::Pending if rollout.by_hand && index > rollout.released => {
            let text = format!("wave {}: release it with `rollout advance`", wave.wave.name);
            let mut plan = Plan::wait(Explained::new(Reason::WaitsForWord, text));
            plan.actions
                .extend(grant(rollout, index.saturating_sub(1), now).ok());
            plan
        }
        WaveState::Pending => Plan::act(Action::StartWave(index), starts),
        WaveState::Running => plan_wave(rollout, index, now),
        WaveState::Soaking => plan_soak(rollout, index, now),
        // A failed wave halts the rollout; one that is running again was resumed by a person.
        WaveState::Failed | WaveState::Passed | WaveState::Skipped => {
            Plan::act(Action::StartWave(index), starts)
        }
    }
}

/// Every wave has passed. While a rollback window is open a device can still turn out bad, and
/// the gate still watches: the rollout is complete when the last window has closed.
fn plan_end(rollout: &RolloutView, now: Timestamp) -> Plan {
    let tally = rollout.tally();
    let open = tally.get(super::Outcome::Probation);
    let flying = tally.in_flight();
    if open == 0 && flying == 0 {
        return Plan::act(Action::Complete, Reason::RolloutEnded);
    }
    let text = format!("every wave has passed; {flying} devices under way, {open} in their window");
    let mut plan = Plan::wait(Explained::new(Reason::ProbationOpen, text));
    plan.actions
        .extend(grant(rollout, rollout.waves.len().saturating_sub(1), now).ok());
    plan
}

/// A completed rollout brings late devices up the path, and is watched while it does.
fn plan_late(rollout: &RolloutView, now: Timestamp) -> Plan {
    if let Some(plan) = breach(rollout) {
        return plan;
    }
    let mut plan = Plan::wait(Reason::RolloutEnded);
    plan.actions
        .extend(grant(rollout, rollout.waves.len().saturating_sub(1), now).ok());
    plan
}

/// Raises the grant, or says what keeps it where it is.
fn grant(rollout: &RolloutView, wave: usize, now: Timestamp) -> Result<Action, Explained> {
    let Some(view) = rollout.waves.get(wave) else {
        return Err(Reason::RolloutEnded.into());
    };
    let running = view.progress.started_at.map(|at| now.since(at));
    let healthy = rollout.proof(wave);
    let under_way = rollout.tally().in_flight();
    let allowed = rollout
        .pace
        .allows(healthy, running.unwrap_or_default())
        .min(rollout.limits.max_in_flight.unwrap_or(u64::MAX))
        .saturating_sub(under_way);
    if let Some((granted, at)) = rollout.progress.regrant(allowed, rollout.limits, now) {
        return Ok(Action::Grant { granted, at });
    }
    let text = format!(
        "wave {}: {under_way} in flight, {healthy} healthy so far",
        view.wave.name
    );
    Err(Explained::new(Reason::PaceLimit, text))
}

fn plan_wave(rollout: &RolloutView, index: usize, now: Timestamp) -> Plan {
    let WaveView {
        wave,
        progress,
        tally,
        ..
    } = &rollout.waves[index];
    let (name, quota) = (&wave.name, progress.quota.max(tally.exposed()));
    let limited = match grant(rollout, index, now) {
        Ok(action) => {
            let text = format!("wave {name}: {} of {quota} exposed", tally.exposed());
            return Plan::act(action, Explained::new(Reason::WaveInFlight, text));
        }
        Err(limited) => limited,
    };
    let regions: Vec<_> = wave.selector.pinned_region().into_iter().collect();
    let left = quota - tally.exposed();
    if left > 0 {
        if rollout.progress.room() == 0 {
            return Plan::wait(limited);
        }
        // Who has not come for a while, although they may, is out of reach. A window that was
        // closed meanwhile proves nothing.
        let idle_since = [
            progress.started_at,
            rollout.progress.last_offer,
            rollout.progress.granted_at,
        ]
        .into_iter()
        .flatten()
        .max();
        let idle = idle_since.map_or(Duration::ZERO, |at| now.since(at));
        if !rollout.windows.any_open(&regions, now) {
            let opens = regions
                .first()
                .and_then(|r| rollout.windows.of(r))
                .or(rollout.windows.general.as_ref())
                .and_then(|w| w.at(now).changes)
                .map_or_else(String::new, |at| format!(", opens {at}"));
            let text = format!("wave {name}: {left} of {quota} to go{opens}");
            return Plan::wait(Explained::new(Reason::WindowClosed, text));
        }
        let open_long_enough = rollout.windows.any_open(&regions, now.minus(rollout.reach));
        if idle < rollout.reach || !open_long_enough {
            let text = format!("wave {name}: {left} of {quota} may ask now");
            return Plan::wait(Explained::new(Reason::WaveReachesOut, text));
        }
    }
    let flying = tally.in_flight();
    if flying > 0 {
        let text = format!(
            "wave {name}: {flying} in flight, {} of {quota} done",
            tally.finished()
        );
        return Plan::wait(Explained::new(Reason::WaveInFlight, text));
    }
    let needed = rollout.gate.min_sample.clamp(1, quota.max(1));
    if tally.finished() < needed {
        let text = format!(
            "wave {name}: {} of {needed} needed have finished; the others are offline, busy or held back",
            tally.finished()
        );
        return Plan::wait(Explained::new(Reason::SampleTooSmall, text));
    }
    Plan::act(
        Action::Soak(index),
        Explained::new(Reason::WaveSoaking, name),
    )
}

fn plan_soak(rollout: &RolloutView, index: usize, now: Timestamp) -> Plan {
    let WaveView { wave, progress, .. } = &rollout.waves[index];
    // Devices of the wave that come back online meanwhile are taken along.
    if let Ok(action) = grant(rollout, index, now) {
        return Plan::act(action, Explained::new(Reason::WaveSoaking, &wave.name));
    }
    let soaked = progress
        .soak_started
        .map(|at| now.since(at))
        .unwrap_or_default();
    if soaked < rollout.gate.soak {
        let text = format!(
            "wave {} soaks {} of {} s",
            wave.name,
            soaked.as_secs(),
            rollout.gate.soak.as_secs()
        );
        return Plan::wait(Explained::new(Reason::WaveSoaking, text));
    }
    match rollout.gate.too_few_healthy(&rollout.waves[index].judged()) {
        Some(text) => breached(rollout, index, &text),
        None => Plan::act(
            Action::Pass(index),
            Explained::new(Reason::WaveSoaking, &wave.name),
        ),
    }
}

#[cfg(test)]
#[path = "planner_tests.rs"]
pub(super) mod tests;

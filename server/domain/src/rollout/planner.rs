//! The planner: the next actions of a rollout, and the reason there are no more.
//!
//! It sees aggregates, never devices. A wave's frontier rises once, when the wave starts, to cover
//! the devices that it takes; the grant, a single number that every offer is checked against,
//! bounds how many of them are exposed so far. So offline devices hold nobody up, and no device is
//! exposed beyond what the pace allows, whichever devices of the wave come first.

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
    /// The wave as planned.
    pub wave: Wave,
    /// Its progress.
    pub progress: WaveProgress,
    /// Outcomes of the devices that it exposed.
    pub tally: Tally,
    /// Failed and silent devices that a person has accepted by resuming after a halt: the gate
    /// judges what happens from then on.
    pub excused: (u64, u64),
}

impl WaveView {
    /// Tally that the gate judges, without the excused devices.
    fn judged(&self) -> Tally {
        self.tally.excusing(self.excused.0, self.excused.1)
    }
}

/// A rollout as the planner sees it: aggregates, no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutView {
    /// Current state.
    pub state: RolloutState,
    /// Its waves in order.
    pub waves: Vec<WaveView>,
    /// Its limits on failure.
    pub gate: Gate,
    /// Its pace.
    pub pace: Pace,
    /// Caps on the pace.
    pub limits: Limits,
    /// Windows in which devices may be updated.
    pub windows: Windows,
    /// Devices exposed and allowed so far.
    pub progress: Progress,
    /// Observations of devices on the new and the old release, for the comparison.
    pub strata: Vec<Stratum>,
    /// Whether a person must release each wave after the first.
    pub by_hand: bool,
    /// Number of waves after the first that a person has released.
    pub released: usize,
    /// Time in which nobody takes up the grant, after which the rest of a wave counts as out of
    /// reach: offline, busy or held back.
    pub reach: Duration,
    /// The rollback window after a healthy start.
    pub rollback_window: Duration,
    /// Time by which it should be finished.
    pub deadline: Option<Timestamp>,
}

impl RolloutView {
    /// Sums the tallies of all waves.
    pub fn tally(&self) -> Tally {
        self.waves.iter().map(|w| w.tally).sum()
    }

    /// Number of healthy devices that are proof for a wave: those of waves with its selector.
    fn proof(&self, wave: usize) -> u64 {
        let selector = &self.waves[wave].wave.selector;
        self.waves
            .iter()
            .filter(|w| w.wave.selector == *selector)
            .map(|w| w.tally.healthy())
            .sum()
    }
}

/// One action. Each names what it expects, so that an executor can apply it or drop it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The wave's turn has come: count its devices and admit them.
    StartWave(usize),
    /// Raise or lower the total number of devices that may be exposed.
    Grant {
        /// The new total.
        granted: u64,
        /// Time from which the next grant of a limited rate is counted.
        at: Timestamp,
    },
    /// The wave's devices are done.
    Soak(usize),
    /// The wave's gate held.
    Pass(usize),
    /// The wave's gate is breached: stop, and do what the gate says beyond that.
    Breach {
        /// Index of the wave.
        wave: usize,
        /// The measurement.
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
    /// Number of devices it takes.
    pub quota: u64,
    /// The frontier that admits them.
    pub frontier: Frontier,
}

impl Action {
    /// Progress of the wave concerned after the action; `found` is the count made for
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

    /// Event that it applies to the rollout's state, if any.
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

/// Actions to take now, and what the rollout waits for after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Actions, in the order to apply them.
    pub actions: Vec<Action>,
    /// Reason nothing more happens.
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

/// Plans one step. Applying it and planning again reaches a fixpoint; planning twice with nothing
/// changed gives the same plan.
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
        format!("{left} devices are still to roll back, {silent} of them silent"),
    ))
}

/// Checks every wave that has exposed a device, passed ones included: a release can turn out bad
/// late.
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
        // A failed wave halts the rollout; if it runs again, a person has resumed it.
        WaveState::Failed | WaveState::Passed | WaveState::Skipped => {
            Plan::act(Action::StartWave(index), starts)
        }
    }
}

/// Plans a rollout whose waves have all passed. While a rollback window is open a device can still
/// turn out bad, and the gate still watches: the rollout is complete when the last window has
/// closed.
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

/// Plans a completed rollout: it still updates late devices, and the gate watches meanwhile.
fn plan_late(rollout: &RolloutView, now: Timestamp) -> Plan {
    if let Some(plan) = breach(rollout) {
        return plan;
    }
    let mut plan = Plan::wait(Reason::RolloutEnded);
    plan.actions
        .extend(grant(rollout, rollout.waves.len().saturating_sub(1), now).ok());
    plan
}

/// Returns the new grant, or the reason it stays where it is.
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
        if rollout.progress.permits() == 0 {
            return Plan::wait(limited);
        }
        // Devices that may come and have not for a while are out of reach. A window that was
        // closed in the meantime proves nothing.
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
    // Devices of the wave that come back online during the soak are still exposed.
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

//! Actions of a plan, and what each does to the wave and the rollout.

use tidegate_protocol::{Explained, Timestamp};

use crate::ring::Frontier;
use crate::rollout::{OnBreach, RolloutEvent, WaveProgress, WaveState};

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
    /// The last wave passed, or late devices have changed how the rollout ended.
    Complete {
        /// The event, which says how it ended.
        ending: RolloutEvent,
        /// Counts of devices that do not run the release.
        reason: Explained,
    },
    /// The last device is back.
    Returned,
    /// The last device that can go back is back; others stay.
    ReturnedPartly,
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
            Self::Grant { .. } | Self::Complete { .. } | Self::Returned | Self::ReturnedPartly => {
                *wave
            }
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
            Self::Complete { ending, .. } => Some(*ending),
            Self::Returned => Some(RolloutEvent::Returned),
            Self::ReturnedPartly => Some(RolloutEvent::ReturnedPartly),
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
    pub(super) fn wait(reason: impl Into<Explained>) -> Self {
        Self {
            actions: Vec::new(),
            waiting: reason.into(),
        }
    }

    pub(super) fn act(action: Action, reason: impl Into<Explained>) -> Self {
        Self {
            actions: vec![action],
            waiting: reason.into(),
        }
    }
}

//! A rollout as the planner sees it: aggregates, no rows.

use std::time::Duration;

use tidegate_protocol::Timestamp;

use crate::rollout::{
    Gate, Limits, Pace, Progress, RolloutState, Stratum, Tally, Wave, WaveProgress,
};
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
    pub(super) fn judged(&self) -> Tally {
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
    pub(super) fn proof(&self, wave: usize) -> u64 {
        let selector = &self.waves[wave].wave.selector;
        self.waves
            .iter()
            .filter(|w| w.wave.selector == *selector)
            .map(|w| w.tally.healthy())
            .sum()
    }
}

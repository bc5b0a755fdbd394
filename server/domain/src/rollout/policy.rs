//! Settings of a rollout beyond its waves, and their defaults.

use std::time::Duration;

use tidegate_protocol::Timestamp;

use super::{Gate, Limits, OnBreach, Pace};
use crate::transport::Metered;
use crate::window::Windows;

/// Settings of a rollout beyond its waves.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Pace at which it exposes devices.
    pub pace: Pace,
    /// Caps on the pace.
    pub limits: Limits,
    /// Windows in which devices may be updated.
    pub windows: Windows,
    /// Time by which it should be finished.
    pub deadline: Option<Timestamp>,
    /// Longest time a device may wait for its battery to charge.
    pub battery_wait: Duration,
    /// Policy for metered links.
    pub metered: Metered,
    /// Its limits on failure.
    pub gate: Gate,
    /// Whether a person must release each wave after the first.
    pub by_hand: bool,
}

/// Default for the longest time a device may wait for its battery to charge.
pub const BATTERY_WAIT: Duration = Duration::from_hours(24);
/// Default time after which a device counts as silent: three check-ins of the usual minute, and a
/// held one. Where devices check in less often it is longer.
pub const SILENT_AFTER: Duration = Duration::from_mins(4);
/// Default for the maximum share of silent devices, in basis points.
pub const MAX_SILENT_BP: u32 = 1_000;

impl Policy {
    /// Returns whether a new policy allows more than this one: such a change may need approvals. A
    /// change that cannot be compared counts as widening.
    pub fn is_widened_by(&self, new: &Self) -> bool {
        let (a, b) = (&self.gate, &new.gate);
        let looser_gate = b.max_failure > a.max_failure
            || b.min_failures > a.min_failures
            || b.min_success < a.min_success
            || b.min_sample < a.min_sample
            || b.max_silent > a.max_silent
            || b.silent_after > a.silent_after
            || (a.compare && !b.compare)
            || b.soak < a.soak
            // Devices that went bad before the halt would stay on the release.
            || (a.on_breach == OnBreach::HaltAndRollBack && b.on_breach == OnBreach::Halt);
        let faster = match (self.pace, new.pace) {
            (Pace::Evidence { start: a }, Pace::Evidence { start: b }) => b > a,
            (a, b) => a != b,
        };
        let more = |old: Option<u64>, new: Option<u64>| match (old, new) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(old), Some(new)) => new > old,
        };
        looser_gate
            || faster
            || more(self.limits.max_in_flight, new.limits.max_in_flight)
            || more(self.limits.per_minute, new.limits.per_minute)
            || (self.windows != new.windows && !self.windows.is_empty())
            || new.battery_wait < self.battery_wait
            || new.metered < self.metered
            || (self.by_hand && !new.by_hand)
    }
}

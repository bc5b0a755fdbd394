//! Settings of a rollout beyond its waves, and their defaults.

use std::time::Duration;

use tidegate_protocol::Timestamp;

use super::{Gate, Limits, Pace};
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

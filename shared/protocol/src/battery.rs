//! Power source and charge of a device.

use serde::{Deserialize, Serialize};

/// Current source of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// Mains power, or charging.
    Mains,
    /// Battery power.
    Battery,
    /// The device cannot tell. Counts as mains, because "no battery" is not "empty".
    #[default]
    Unknown,
}

crate::words!(Power("power source") {
    Mains = "mains",
    Battery = "battery",
    Unknown = "unknown",
});

/// A battery reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Battery {
    /// Charge in percent, 0 to 100; absent if there is no battery or it does not report a charge.
    pub percent: Option<u8>,
    /// Current source of power.
    #[serde(default)]
    pub power: Power,
}

impl Battery {
    /// Charge in percent below which a device running on battery takes no update.
    pub const LOW_PERCENT: u8 = 20;

    /// Returns whether an update should wait for a charge: on battery, with a known charge below
    /// [`Battery::LOW_PERCENT`].
    pub fn is_low(&self) -> bool {
        self.power == Power::Battery && self.percent.is_some_and(|p| p < Self::LOW_PERCENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_low_charge_on_battery_defers() {
        let on = |percent, power| Battery { percent, power }.is_low();
        assert!(on(Some(19), Power::Battery));
        assert!(!on(Some(20), Power::Battery));
        assert!(!on(Some(3), Power::Mains));
        assert!(!on(None, Power::Battery));
        assert!(!on(Some(3), Power::Unknown));
    }
}

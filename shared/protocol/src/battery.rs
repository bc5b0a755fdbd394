//! What a device knows of its power.

use serde::{Deserialize, Serialize};

/// Where the power comes from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// From the mains, or charging.
    Mains,
    /// From a battery.
    Battery,
    /// The device cannot tell. "No battery" is not "empty": it counts as mains.
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
    /// Charge, 0 to 100; absent where there is no battery or it does not say.
    pub percent: Option<u8>,
    /// Where the power comes from.
    #[serde(default)]
    pub power: Power,
}

impl Battery {
    /// Below this charge, in percent, a device that runs on its battery takes no update.
    pub const LOW_PERCENT: u8 = 20;

    /// Whether an update should wait for a charge: on battery, with a known charge below
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

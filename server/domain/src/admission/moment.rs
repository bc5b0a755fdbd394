//! Whether now is a good moment to update a device: holds, window, battery, link.

use std::time::Duration;

use tidegate_protocol::{Explained, Reason, Timestamp, Version};

use super::{DeviceFacts, Metered, ProductPlan, RolloutPlan};
use crate::hold;
use crate::window::{Opening, spread};

/// Time before the deadline from which a low battery no longer delays the update.
const BEFORE_DEADLINE: Duration = Duration::from_hours(4);

/// A refusal for now, and the time at which it may end, if known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotNow {
    pub(super) reason: Explained,
    pub(super) again: Option<Timestamp>,
}

impl From<Explained> for NotNow {
    fn from(reason: Explained) -> Self {
        Self {
            reason,
            again: None,
        }
    }
}

/// Returns the explanation of the hold that keeps the device from a release, if any.
pub(super) fn held(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    release: &Version,
) -> Option<Explained> {
    hold::find(&plan.holds, release, device.selectable()).map(hold::Hold::explained)
}

/// The opening of the device's maintenance window; always open without one.
pub(super) fn opening(rollout: &RolloutPlan, device: &DeviceFacts<'_>, now: Timestamp) -> Opening {
    rollout.windows.of(device.region).map_or(
        Opening {
            open: true,
            changes: None,
        },
        |window| window.at(now),
    )
}

/// Refuses while the device's window is closed. Devices come back spread over the rollout's ramp,
/// by their place, so that a fleet does not arrive all at once when its window opens.
pub(super) fn window_closed(
    rollout: &RolloutPlan,
    device: &DeviceFacts<'_>,
    now: Timestamp,
) -> Option<NotNow> {
    let place = device.ring.place(rollout.salt).get();
    let opening = opening(rollout, device, now);
    if opening.open {
        let opened = rollout.windows.of(device.region)?.opened(now)?;
        let turn = spread(opened, place, rollout.ramp);
        return (turn > now).then(|| NotNow {
            reason: Explained::new(
                Reason::WindowClosed,
                format!("it has just opened; this device's turn is {turn}"),
            ),
            again: Some(turn),
        });
    }
    let detail = opening
        .changes
        .map_or_else(|| "it never opens".to_owned(), |at| format!("opens {at}"));
    Some(NotNow {
        reason: Explained::new(Reason::WindowClosed, detail),
        again: opening.changes.map(|at| spread(at, place, rollout.ramp)),
    })
}

/// Seconds until the device's window closes; `None` if it is closed or never closes.
pub(super) fn switch_within(
    rollout: &RolloutPlan,
    device: &DeviceFacts<'_>,
    now: Timestamp,
) -> Option<u32> {
    let opening = opening(rollout, device, now);
    let closes = opening.changes.filter(|_| opening.open)?;
    Some(u32::try_from(closes.since(now).as_secs()).unwrap_or(u32::MAX))
}

/// Refuses while the battery is low: until it charges, but no longer than the rollout's
/// `battery_wait`, and not when the deadline is near. An update survives a power cut; a device that
/// never updates does not survive its server's next version.
pub(super) fn battery_low(
    rollout: &RolloutPlan,
    device: &DeviceFacts<'_>,
    now: Timestamp,
) -> Option<NotNow> {
    if !device.battery.is_low() {
        return None;
    }
    let patience_ends = device.low_since.unwrap_or(now).plus(rollout.battery_wait);
    let deadline_near = rollout.deadline.map(|at| at.minus(BEFORE_DEADLINE));
    let at_last = deadline_near.map_or(patience_ends, |near| near.min(patience_ends));
    if at_last <= now {
        return None;
    }
    let percent = device.battery.percent.unwrap_or(0);
    Some(NotNow {
        reason: Explained::new(
            Reason::BatteryLow,
            format!("battery {percent} %; waits for a charge, until {at_last} at the latest"),
        ),
        again: None,
    })
}

/// Refuses a device on a metered link when the rollout bars metered links.
pub(super) fn metered_out(rollout: &RolloutPlan, device: &DeviceFacts<'_>) -> Option<Explained> {
    (device.metered && rollout.metered == Metered::Never)
        .then(|| Explained::from(Reason::MeteredLink))
}

impl RolloutPlan {
    /// Returns whether a device may fetch full payloads, not only deltas.
    pub fn whole_for(&self, device: &DeviceFacts<'_>) -> bool {
        !device.metered || self.metered == Metered::Allow
    }
}

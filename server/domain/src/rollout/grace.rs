//! Grace of the kept version: a device keeps it for longer than the rollback window lasts.

use std::time::Duration;

/// Longest time between two check-ins of a device in its rollback window, before jitter, whatever its poll
/// interval: see the bound of `poll_after_s` in `docs/reference/orders.md`.
const LONGEST_POLL: Duration = Duration::from_mins(5);
/// Time for a check-in and its answer on a slow link.
const ROUND_TRIP: Duration = Duration::from_secs(5);
/// Longest window that a device obeys, in seconds (30 days).
const LONGEST_S: u32 = 30 * 86_400;

/// Returns the time for which a device is told to keep the old version, in seconds, for a rollback window
/// of `rollback_window_s`. People give an order until the window is over; a device that polls hears it up to an
/// interval later, and would have dropped the version by then. No window needs no grace.
pub fn kept_for(rollback_window_s: u32, poll: Duration, ramp: Duration) -> u32 {
    if rollback_window_s == 0 {
        return 0;
    }
    let poll = poll.min(LONGEST_POLL);
    // Agents add up to a tenth, so that a fleet does not stay in step.
    let grace = poll + poll / 10 + ramp + ROUND_TRIP;
    let grace = u32::try_from(grace.as_millis().div_ceil(1_000)).unwrap_or(LONGEST_S);
    rollback_window_s
        .saturating_add(grace)
        .min(LONGEST_S.max(rollback_window_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_order_given_inside_of_the_window_is_heard_before_the_slot_is_dropped(
            rollback_window_s in 1u32..86_400, given_ms in 0u64..86_400_000,
            poll_s in 1u64..600, jitter in 0u64..=10, ramp_ms in 0u64..5_000,
        ) {
            let (poll, ramp) = (Duration::from_secs(poll_s), Duration::from_millis(ramp_ms));
            let given = Duration::from_millis(given_ms % (u64::from(rollback_window_s) * 1_000));
            let between = poll.min(LONGEST_POLL);
            let heard = given + between + between * u32::try_from(jitter).unwrap() / 100 + ramp;
            let kept = Duration::from_secs(kept_for(rollback_window_s, poll, ramp).into());
            prop_assert!(heard < kept, "heard after {heard:?}, kept for {kept:?}");
        }
    }

    #[test]
    fn the_grace_covers_a_poll_and_no_window_has_none() {
        let (minute, second) = (Duration::from_mins(1), Duration::from_secs(1));
        assert_eq!(kept_for(1_800, minute, second), 1_872);
        assert_eq!(kept_for(0, minute, second), 0);
        // A fleet that polls once an hour asks every five minutes in the window.
        assert_eq!(kept_for(1_800, minute * 60, second), 2_136);
        assert_eq!(kept_for(LONGEST_S, minute, second), LONGEST_S);
    }
}

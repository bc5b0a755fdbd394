//! Pace at which a rollout exposes devices.

use std::time::Duration;

use tidegate_protocol::Timestamp;

/// Rule for the number of devices that may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At most the starting size or twice the healthy devices so far, whichever is more: exposure
    /// follows proof. Devices healthy in one region prove nothing for another, so only those of
    /// waves with the same selector count.
    Evidence {
        /// The starting size, at least 1.
        start: u64,
    },
    /// A starting size that grows with time while the gate holds.
    Exponential {
        /// The starting size, at least 1.
        start: u64,
        /// Growth per step in hundredths: 200 doubles the size.
        factor: u32,
        /// Interval between steps.
        every: Duration,
    },
    /// The whole wave at once.
    AtOnce,
}

/// Stands for "no limit": more than any fleet, and far from the end of a 64-bit column.
pub const NO_LIMIT: u64 = 1 << 53;

impl Pace {
    /// Number of devices that may be in flight when `healthy` comparable ones are on the new
    /// release and the wave has run for `running`.
    pub fn allows(self, healthy: u64, running: Duration) -> u64 {
        match self {
            Self::Evidence { start } => start.max(1).max(healthy.saturating_mul(2)),
            Self::Exponential {
                start,
                factor,
                every,
            } => {
                let steps = running.as_secs() / every.as_secs().max(1);
                let mut size = u128::from(start.max(1)) * 100;
                for _ in 0..steps.min(4_096) {
                    size = size * u128::from(factor.max(101)) / 100;
                    if size / 100 >= u128::from(NO_LIMIT) {
                        return NO_LIMIT;
                    }
                }
                u64::try_from(size / 100).unwrap_or(NO_LIMIT)
            }
            Self::AtOnce => NO_LIMIT,
        }
    }
}

/// Caps that apply at any pace; `None` is no cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Maximum number of devices in flight at the same time.
    pub max_in_flight: Option<u64>,
    /// Maximum number of devices exposed per minute.
    pub per_minute: Option<u64>,
}

/// Devices exposed and allowed so far: the numbers that an offer is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Devices exposed so far: deployments that exist.
    pub exposed: u64,
    /// Total number of devices that may be exposed. An offer beyond it is refused.
    pub granted: u64,
    /// Time of the last grant.
    pub granted_at: Option<Timestamp>,
    /// Time a device was last exposed.
    pub last_offer: Option<Timestamp>,
    /// Devices with a known outcome.
    pub done: u64,
    /// Sum of their times from offer to outcome, in seconds.
    pub done_s: u64,
}

impl Progress {
    /// Devices that may be exposed now.
    pub fn permits(&self) -> u64 {
        self.granted.saturating_sub(self.exposed)
    }

    /// Returns the new grant and its time when `allowed` more devices may be in flight than are
    /// now; `None` when the present grant is close enough. A large grant is raised only once an
    /// eighth of it has gathered, not for every device. An unused grant is withdrawn when less is
    /// allowed.
    pub fn regrant(
        &self,
        allowed: u64,
        limits: Limits,
        now: Timestamp,
    ) -> Option<(u64, Timestamp)> {
        let mut at = now;
        let mut room = allowed;
        if let Some(rate) = limits.per_minute {
            // A token bucket of a minute's worth; the fraction of a token is carried over as time
            // in `at`.
            let since = self.granted_at.map_or(60_000, |t| {
                u64::try_from(now.since(t).as_millis())
                    .unwrap_or(u64::MAX)
                    .min(60_000)
            });
            let tokens = rate.max(1).saturating_mul(since) / 60_000;
            let full = self.permits().saturating_add(tokens).min(rate.max(1));
            if full < room {
                room = full;
                let rest = since - (tokens * 60_000).div_ceil(rate.max(1)).min(since);
                at = now.minus(Duration::from_millis(rest.min(60_000)));
            }
        }
        let wanted = self.exposed.saturating_add(room).min(NO_LIMIT);
        let lower = wanted < self.granted;
        let higher = wanted > self.granted && wanted - self.granted >= (room / 8).max(1);
        (lower || higher).then_some((wanted, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exposure_follows_proof() {
        let pace = Pace::Evidence { start: 8 };
        let allows = |healthy| pace.allows(healthy, Duration::ZERO);
        assert_eq!(
            [allows(0), allows(4), allows(5), allows(100)],
            [8, 8, 10, 200]
        );
    }

    #[test]
    fn an_exponential_pace_grows_by_its_factor() {
        let pace = Pace::Exponential {
            start: 10,
            factor: 150,
            every: Duration::from_mins(10),
        };
        let after = |mins| pace.allows(0, Duration::from_mins(mins));
        assert_eq!(
            [after(0), after(9), after(10), after(20), after(30)],
            [10, 10, 15, 22, 33]
        );
        assert_eq!(pace.allows(0, Duration::from_hours(10_000)), NO_LIMIT);
    }

    proptest! {
        /// A rate is kept, and mostly used up, however often it is asked.
        #[test]
        fn a_rate_is_kept(rate in 1u64..500, pauses in prop::collection::vec(1u64..20_000, 1..200)) {
            let limits = Limits { per_minute: Some(rate), max_in_flight: None };
            let mut now = Timestamp::from_secs(1_000_000);
            let mut progress = Progress { granted_at: Some(now), ..Progress::default() };
            let start = now;
            for pause in pauses {
                now = now.plus(Duration::from_millis(pause));
                if let Some((granted, at)) = progress.regrant(NO_LIMIT, limits, now) {
                    progress.granted = granted;
                    progress.granted_at = Some(at);
                }
                // Every device that may come comes at once.
                progress.exposed = progress.granted;
                let millis = u64::try_from(now.since(start).as_millis()).unwrap();
                let due = rate * millis / 60_000;
                prop_assert!(progress.exposed <= due, "{} > {due}", progress.exposed);
                // A bucket that holds a minute's worth loses the tokens that overflow it.
                prop_assert!(progress.exposed + 2 + rate / 3 >= due * 2 / 3);
            }
        }

        #[test]
        fn asking_again_changes_nothing(exposed in 0u64..1_000, granted in 0u64..2_000, allowed in 0u64..2_000) {
            let mut progress = Progress { exposed, granted, ..Progress::default() };
            let now = Timestamp::from_secs(5);
            if let Some((granted, at)) = progress.regrant(allowed, Limits::default(), now) {
                prop_assert_eq!(granted, exposed + allowed);
                progress.granted = granted;
                progress.granted_at = Some(at);
            }
            prop_assert_eq!(progress.regrant(allowed, Limits::default(), now), None);
            prop_assert!(progress.permits() <= allowed);
        }
    }
}

//! Hold time of check-ins on this link, and the pause before the next one.

use std::time::Duration;

use tidegate_protocol::MAX_WAIT_S;

/// Shortest time from one held request to the next. A link that drops every few seconds is often a
/// metered one, and a fleet whose holds an overload has shortened must not keep it up.
const ROUND: Duration = Duration::from_secs(5);
/// Requests lost sooner than this were not lost because they were held.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Pause after a held request that broke or was released early.
const LET_GO: Duration = Duration::from_millis(500);
/// Longest pause after a held request that was released early.
const RELEASED: Duration = Duration::from_secs(10);
/// The same in the rollback window, when an order must be heard at any time.
const RELEASED_WATCHED: Duration = Duration::from_secs(2);
/// Longest back-off while the server fails, for a poll interval up to it.
const BACK_OFF: Duration = Duration::from_mins(1);
/// Longest back-off whatever the poll interval.
const MAX_BACK_OFF: Duration = Duration::from_mins(5);

/// Hold time of this link: halved when two held requests in a row are lost, growing again with each
/// one that is held for its full time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hold {
    limit_s: u16,
    /// Held requests lost since the last one that was held for its full time.
    lost: u32,
    /// Held requests answered early with nothing new, in a row.
    early: u32,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            limit_s: MAX_WAIT_S,
            lost: 0,
            early: 0,
        }
    }
}

impl Hold {
    /// Hold time to ask for, in seconds; at most `most`, where something else is due before.
    pub(super) fn ask(&self, most: u16) -> u16 {
        self.limit_s.min(most)
    }

    /// Records an answered request. A hold that a bad link has shortened grows back; otherwise one
    /// outage would leave a device asking every second forever.
    pub(super) fn note_answered(&mut self, asked: u16, took: Duration) {
        if took >= seconds(asked) {
            self.lost = 0;
            self.early = 0;
            if asked == self.limit_s {
                let longer = self.limit_s.saturating_add(self.limit_s / 4 + 1);
                self.limit_s = longer.min(MAX_WAIT_S);
            }
        } else {
            self.early = self.early.saturating_add(1);
        }
    }

    /// Records a lost request; returns whether holding it may have caused the loss. A single loss
    /// is just as often a server restart, and shortens nothing.
    pub(super) fn note_lost(&mut self, asked: u16, took: Duration) -> bool {
        if asked == 0 || took < AT_ONCE {
            return false;
        }
        self.lost = self.lost.saturating_add(1);
        if self.lost > 1 {
            let half = u16::try_from(took.as_secs() / 2).unwrap_or(MAX_WAIT_S);
            self.limit_s = half.min(self.limit_s / 2).max(1);
        }
        true
    }

    /// Pause after a held request that was lost.
    pub(super) fn after_loss() -> Duration {
        LET_GO
    }

    /// Pause after a request that was answered with nothing new. A hold is followed by the next one,
    /// so that a device hears within seconds whatever the poll interval. `watched` means that it is
    /// in its rollback window and must be able to get an order at any time.
    pub(super) fn pause(
        &self,
        asked: u16,
        took: Duration,
        poll: Duration,
        watched: bool,
    ) -> Duration {
        let rest = poll.saturating_sub(took);
        if asked == 0 {
            return rest;
        }
        if took < seconds(asked) {
            // Released early: the server is stopping, or something in between does not let it hold.
            // Retry soon, backing off each time, so that a server that never holds is not asked in
            // a loop.
            let most = if watched { RELEASED_WATCHED } else { RELEASED };
            return (LET_GO * 2u32.saturating_pow(self.early.min(10)))
                .min(most)
                .min(rest);
        }
        if watched {
            Duration::ZERO
        } else {
            ROUND.saturating_sub(took).min(rest)
        }
    }
}

/// Back-off after this many failed rounds in a row over so many addresses of the server: each address
/// is tried once at first, then all of them after ever longer pauses. `window` is the length of the
/// rollback window that the device is in: a server that is back must be heard well within it.
pub(super) fn back_off(
    failures: u32,
    addresses: usize,
    poll: Duration,
    window: Option<Duration>,
) -> Duration {
    let addresses = u32::try_from(addresses).unwrap_or(1).max(1);
    if !failures.is_multiple_of(addresses) {
        return LET_GO;
    }
    let most = match window {
        Some(window) => (window / 10).clamp(RELEASED_WATCHED, RELEASED),
        None => poll.clamp(BACK_OFF, MAX_BACK_OFF),
    };
    // Doubled every second time: a device must not be deaf for much longer than its server was away.
    let doubled = 1u64 << (failures / addresses).div_ceil(2).min(9);
    Duration::from_secs(doubled).min(most)
}

/// Spreads a pause over half to one and a half of its length: devices that lost their server in one
/// instant do not come back in one.
pub(super) fn spread(base: Duration) -> Duration {
    spread_by(base, rand::random_range(0..=1_000))
}

fn spread_by(base: Duration, thousandths: u32) -> Duration {
    base / 2 + base * thousandths / 1_000
}

fn seconds(count: u16) -> Duration {
    Duration::from_secs(u64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_mins(1);

    fn full(hold: &mut Hold) {
        let asked = hold.ask(MAX_WAIT_S);
        hold.note_answered(asked, seconds(asked));
    }

    #[test]
    fn one_loss_shortens_nothing_and_two_in_a_row_do() {
        let mut hold = Hold::default();
        assert!(hold.note_lost(MAX_WAIT_S, seconds(8)));
        assert_eq!(hold.ask(MAX_WAIT_S), MAX_WAIT_S);
        full(&mut hold);
        assert!(hold.note_lost(MAX_WAIT_S, seconds(8)));
        assert!(hold.note_lost(MAX_WAIT_S, seconds(8)));
        assert_eq!(hold.ask(MAX_WAIT_S), 4);
    }

    #[test]
    fn a_hold_that_was_halved_grows_back_to_its_full_length() {
        let mut hold = Hold::default();
        for _ in 0..10 {
            hold.note_lost(hold.ask(MAX_WAIT_S), seconds(3));
        }
        assert_eq!(hold.ask(MAX_WAIT_S), 1);
        let mut rounds = 0;
        while hold.ask(MAX_WAIT_S) < MAX_WAIT_S {
            full(&mut hold);
            rounds += 1;
        }
        assert!(rounds <= 16, "{rounds} rounds");
    }

    #[test]
    fn what_fails_at_once_was_not_lost_by_being_held() {
        let mut hold = Hold::default();
        for _ in 0..5 {
            assert!(!hold.note_lost(MAX_WAIT_S, Duration::from_millis(20)));
            assert!(!hold.note_lost(0, seconds(30)));
        }
        assert_eq!(hold, Hold::default());
    }

    #[test]
    fn in_the_rollback_window_a_hold_is_followed_by_the_next_at_once() {
        let hold = Hold::default();
        for asked in [1, 6, 30] {
            assert_eq!(
                hold.pause(asked, seconds(asked), POLL, true),
                Duration::ZERO
            );
        }
    }

    #[test]
    fn an_idle_device_is_held_again_at_once_and_within_seconds_on_a_link_that_drops() {
        let hold = Hold::default();
        assert_eq!(hold.pause(55, seconds(55), POLL, false), Duration::ZERO);
        assert_eq!(hold.pause(10, seconds(10), POLL, false), Duration::ZERO);
        assert_eq!(hold.pause(3, seconds(3), POLL, false), seconds(2));
        assert_eq!(hold.pause(0, Duration::ZERO, POLL, false), POLL);
    }

    #[test]
    fn a_hold_that_is_let_go_is_asked_again_soon_but_never_without_end() {
        let mut hold = Hold::default();
        let took = Duration::from_millis(5);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            hold.note_answered(55, took);
            pauses.push(hold.pause(55, took, POLL, false));
        }
        assert_eq!(pauses[0], seconds(1));
        assert!(pauses.is_sorted());
        assert_eq!(pauses[9], RELEASED);
        assert_eq!(hold.pause(55, took, POLL, true), RELEASED_WATCHED);
        full(&mut hold);
        hold.note_answered(55, took);
        assert_eq!(hold.pause(55, took, POLL, false), seconds(1));
    }

    #[test]
    fn each_address_is_tried_before_the_first_long_pause() {
        let after = |failures| back_off(failures, 3, POLL, None);
        let pauses: Vec<_> = (1..=7).map(after).collect();
        let (soon, first) = (LET_GO, seconds(2));
        assert_eq!(pauses, [soon, soon, first, soon, soon, first, soon]);
    }

    #[test]
    fn a_fleet_that_lost_its_server_in_one_instant_comes_back_spread_out() {
        let mut pauses: Vec<_> = (0..=1_000).map(|t| spread_by(seconds(8), t)).collect();
        pauses.dedup();
        assert_eq!(pauses.len(), 1_001);
        assert_eq!((pauses[0], pauses[1_000]), (seconds(4), seconds(12)));
    }

    /// Times at which a server is away, and how it goes.
    struct Outage {
        from: Duration,
        to: Duration,
        clean: bool,
    }

    /// Plays a device that is idle, or in a rollback window, with the default poll interval in virtual
    /// time; returns how long after `order` it hears of it.
    fn hears(outages: &[Outage], order: Duration, window: Option<u16>, dice: u32) -> Duration {
        let (mut hold, mut now, mut failures) = (Hold::default(), Duration::ZERO, 0);
        let mut state = dice;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % 1_001
        };
        let length = window.map(seconds);
        for _ in 0..10_000 {
            if outages.iter().any(|o| (o.from..o.to).contains(&now)) {
                failures += 1;
                now += spread_by(back_off(failures, 1, POLL, length), random());
                continue;
            }
            failures = 0;
            if now >= order {
                return now.saturating_sub(order);
            }
            // In the window a hold ends with the next health check.
            let asked = hold.ask(window.map_or(MAX_WAIT_S, |w| (w / 10).clamp(1, 30)));
            let mut end = now + seconds(asked);
            let cut = outages.iter().find(|o| (now..end).contains(&o.from));
            end = cut.map_or(end, |o| o.from);
            if order < end {
                return Duration::ZERO;
            }
            let took = end.saturating_sub(now);
            now = end;
            if cut.is_none_or(|o| o.clean) {
                hold.note_answered(asked, took);
                now += spread_by(hold.pause(asked, took, POLL, window.is_some()), random());
            } else if hold.note_lost(asked, took) {
                now += spread_by(Hold::after_loss(), random());
            } else {
                failures += 1;
                now += spread_by(back_off(failures, 1, POLL, length), random());
            }
        }
        panic!("it never hears");
    }

    fn worst(outages: &[Outage], order: u16, window: Option<u16>) -> Duration {
        let each = (0..2_000).map(|dice| hears(outages, seconds(order), window, dice));
        each.max().unwrap()
    }

    #[test]
    fn with_the_default_poll_an_order_is_heard_within_seconds_of_a_restart_of_the_server() {
        let away = |from, to, clean| Outage {
            from: seconds(from),
            to: seconds(to),
            clean,
        };
        // As measured: an order five seconds after the server was stopped in order, or killed.
        for clean in [true, false] {
            let waited = worst(&[away(101, 102, clean)], 106, None);
            assert!(waited <= seconds(6), "clean {clean}: {waited:?}");
        }
        // Away for longer: no longer deaf than it was away.
        let waited = worst(&[away(101, 121, true)], 122, None);
        assert!(waited <= seconds(24), "{waited:?}");
        // Killed again and again, so that the hold is down to seconds.
        let kills: Vec<_> = (0..12)
            .map(|i| away(100 + 4 * i, 101 + 4 * i, false))
            .collect();
        let waited = worst(&kills, 150, None);
        assert!(waited <= seconds(10), "{waited:?}");
        // After an hour: within the poll interval and its spread.
        let waited = worst(&[away(101, 3_701, false)], 3_702, None);
        assert!(waited <= POLL * 3 / 2, "{waited:?}");
    }

    #[test]
    fn in_the_rollback_window_a_device_is_never_deaf_for_half_a_minute() {
        for window in [60, 600, 1_800] {
            for order in 100..160 {
                let waited = worst_few(&[], order, window);
                assert!(waited <= Duration::ZERO, "{window} {order}: {waited:?}");
            }
            let outage = Outage {
                from: seconds(101),
                to: seconds(110),
                clean: true,
            };
            let waited = worst(&[outage], 111, Some(window));
            assert!(waited <= seconds(12), "{window}: {waited:?}");
        }
    }

    fn worst_few(outages: &[Outage], order: u16, window: u16) -> Duration {
        let each = (0..20).map(|dice| hears(outages, seconds(order), Some(window), dice));
        each.max().unwrap()
    }

    #[test]
    fn a_hold_that_an_overload_has_shortened_grows_back_while_a_download_runs() {
        let mut hold = Hold::default();
        for _ in 0..10 {
            hold.note_lost(hold.ask(MAX_WAIT_S), seconds(30));
        }
        assert_eq!(hold.ask(MAX_WAIT_S), 1);
        let mut took = Duration::ZERO;
        while hold.ask(MAX_WAIT_S) < MAX_WAIT_S {
            took += seconds(hold.ask(MAX_WAIT_S));
            full(&mut hold);
        }
        assert!(took <= seconds(300), "{took:?}");
    }
}

//! Hold time of check-ins on this link, and the pause before the next one.

use std::time::Duration;

use tidegate_protocol::MAX_WAIT_S;

/// Shortest hold worth a permanent connection, in seconds. Below it an idle device asks once per
/// poll interval: a link that drops every few seconds is often a metered one.
const WORTH_IT_S: u16 = 10;
/// Requests lost sooner than this were not lost because they were held.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Pause after a held request that broke or was released early.
const LET_GO: Duration = Duration::from_millis(500);

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

    /// Pause after a request that was answered with nothing new. `watched` means that the device is
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
            return (LET_GO * 2u32.saturating_pow(self.early.min(10))).min(rest);
        }
        if watched || asked >= WORTH_IT_S {
            Duration::ZERO
        } else {
            rest
        }
    }
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
    fn an_idle_device_is_always_held_unless_its_link_allows_seconds_only() {
        let hold = Hold::default();
        assert_eq!(hold.pause(55, seconds(55), POLL, false), Duration::ZERO);
        assert_eq!(hold.pause(10, seconds(10), POLL, false), Duration::ZERO);
        assert_eq!(hold.pause(3, seconds(3), POLL, false), seconds(57));
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
        assert_eq!(pauses[9], POLL.saturating_sub(took));
        full(&mut hold);
        hold.note_answered(55, took);
        assert_eq!(hold.pause(55, took, POLL, false), seconds(1));
    }
}

//! Counts of a while ago, because silence shows later than health.
//!
//! A healthy device reports at once; a silent one is known to be silent only after a while.
//! Measured against all devices that are healthy now, the ones that fell silent then would look
//! few. So they are measured against the devices that had finished by the time the silent ones
//! should have.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_protocol::Timestamp;

use super::Tally;

/// Recent history of the number of finished devices in each wave.
#[derive(Debug, Clone, Default)]
pub struct Lag {
    entries: VecDeque<(Timestamp, Vec<u64>)>,
}

/// Minimum interval between entries.
const APART: Duration = Duration::from_secs(5);

impl Lag {
    /// Records the counts of now, and marks each tally with the count of `lag` ago. Until the
    /// history reaches back that far a tally stays unmarked, and silence is measured against
    /// everybody.
    pub fn mark(&mut self, tallies: &mut [&mut Tally], lag: Duration, now: Timestamp) {
        // After the clock went back, the history starts anew.
        if self.entries.back().is_some_and(|(at, _)| *at > now) {
            self.entries.clear();
        }
        if self
            .entries
            .back()
            .is_none_or(|(at, _)| now.since(*at) >= APART)
        {
            let finished = tallies.iter().map(|t| t.finished()).collect();
            self.entries.push_back((now, finished));
        }
        let then = now.minus(lag);
        while self.entries.get(1).is_some_and(|(at, _)| *at <= then) {
            self.entries.pop_front();
        }
        let known = self.entries.front().filter(|(at, _)| *at <= then);
        for (index, tally) in tallies.iter_mut().enumerate() {
            tally.settled = known.and_then(|(_, finished)| finished.get(index).copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn a_tally_is_marked_with_what_was_known_a_while_ago() {
        let mut lag = Lag::default();
        let start = Timestamp::from_secs(1_000);
        let mut seen = Vec::new();
        for minute in 0u64..6 {
            let mut tally = Tally::default().with(Outcome::Probation, minute * 10);
            let now = start.plus(Duration::from_mins(minute));
            lag.mark(&mut [&mut tally], Duration::from_mins(2), now);
            seen.push(tally.settled);
        }
        assert_eq!(seen, [None, None, Some(0), Some(10), Some(20), Some(30)]);
        let mut tally = Tally::default();
        lag.mark(&mut [&mut tally], Duration::from_mins(2), start);
        assert_eq!(tally.settled, None, "the clock went back");
    }
}

//! Sequence numbers of a device's signed requests. Each is used once: two machines with one
//! identity, or one restored to an older state, give themselves away by reusing a number.

use std::fmt;
use std::str::FromStr;

/// Number of requests remembered. A killed agent starts another request at once, and a bad link
/// delivers late; a request with more newer ones than this before it no longer counts as late.
const KEPT: usize = 32;
/// Most numbers that a device may skip. An agent uses one up with each request that it signs, whether
/// it arrives or not: one that fails every minute takes more than two months for so many. A copy that
/// jumps further would only lock the genuine device out.
const JUMP: u64 = 100_000;
/// Most requests in a row that may come late. After one, an agent signs with a higher number than all
/// that it has used; if that is behind too, somebody else is ahead.
const LATE: u32 = 3;
/// Characters at the end of a nonce that identify it: the end is a MAC.
const END: usize = 16;

/// Verdict on a numbered request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbered {
    /// The highest number so far: accepted.
    New,
    /// The same request as one already seen.
    Repeated,
    /// Overtaken by a newer request and never seen before: of no use any more, and nobody's fault.
    Late,
    /// Another request has used this number; or it is too old to be merely late, one of many that
    /// are late, or too far ahead.
    Forked,
}

/// Latest requests of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recent {
    /// Number and end of the nonce, highest number first.
    used: Vec<(u64, String)>,
    /// Number of requests that came late since the last new one.
    late: u32,
}

impl Recent {
    /// Judges a request and remembers it.
    pub fn take(&mut self, number: u64, nonce: &str) -> Numbered {
        let end = nonce
            .char_indices()
            .rev()
            .nth(END - 1)
            .map_or(0, |(at, _)| at);
        let end = nonce.get(end..).unwrap_or_default().to_owned();
        let at = self.used.partition_point(|(known, _)| *known > number);
        let verdict = match self.used.get(at) {
            Some((known, used)) if *known == number => {
                return if *used == end {
                    Numbered::Repeated
                } else {
                    Numbered::Forked
                };
            }
            Some((highest, _)) if at == 0 && number - *highest > JUMP => return Numbered::Forked,
            _ if at == 0 => Numbered::New,
            Some(_) => Numbered::Late,
            None => {
                // Below every remembered number: late only while there would still be room to
                // remember it.
                let lowest = self.used.last().map_or(0, |(lowest, _)| *lowest);
                let room = KEPT.saturating_sub(self.used.len());
                if lowest - number > room as u64 {
                    return Numbered::Forked;
                }
                Numbered::Late
            }
        };
        self.used.insert(at, (number, end));
        self.used.truncate(KEPT);
        self.late = match verdict {
            Numbered::Late => self.late + 1,
            _ => 0,
        };
        if self.late > LATE {
            return Numbered::Forked;
        }
        verdict
    }

    /// The highest number; 0 when there is none.
    pub fn highest(&self) -> u64 {
        self.used.first().map_or(0, |(number, _)| *number)
    }
}

impl fmt::Display for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (number, end)) in self.used.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{number}:{end}")?;
        }
        match self.late {
            0 => Ok(()),
            late => write!(f, " +{late}"),
        }
    }
}

/// The text is not a list of numbered requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a list of numbered requests")]
pub struct Unreadable;

impl FromStr for Recent {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (mut found, mut late) = (Vec::new(), 0);
        for word in text.split_whitespace() {
            if let Some(count) = word.strip_prefix('+') {
                late = count.parse().map_err(|_| Unreadable)?;
                continue;
            }
            let (number, end) = word.split_once(':').ok_or(Unreadable)?;
            let number: u64 = number.parse().map_err(|_| Unreadable)?;
            if found.last().is_some_and(|(last, _)| *last <= number) {
                return Err(Unreadable);
            }
            found.push((number, end.to_owned()));
        }
        Ok(Self { used: found, late })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(n: u64) -> String {
        format!("1800000000.{n:024x}.{n:064x}")
    }

    fn with(numbers: impl IntoIterator<Item = u64>) -> Recent {
        let mut recent = Recent::default();
        for number in numbers {
            recent.take(number, &nonce(number));
        }
        recent
    }

    #[test]
    fn each_number_is_used_once_and_the_same_request_is_told_from_another() {
        let mut recent = with(1..=3);
        assert_eq!(recent.take(4, &nonce(4)), Numbered::New);
        assert_eq!(recent.take(4, &nonce(4)), Numbered::Repeated);
        assert_eq!(recent.take(2, &nonce(2)), Numbered::Repeated);
        assert_eq!(recent.take(4, &nonce(9)), Numbered::Forked);
        assert_eq!(recent.take(2, &nonce(9)), Numbered::Forked);
        assert_eq!(recent.highest(), 4);
    }

    #[test]
    fn what_a_killed_agent_or_a_bad_link_delivers_late_is_no_second_machine() {
        let mut recent = with([1, 2, 5]);
        assert_eq!(recent.take(4, &nonce(4)), Numbered::Late);
        assert_eq!(recent.take(3, &nonce(3)), Numbered::Late);
        // The number is used now: another request with it comes from somebody else.
        assert_eq!(recent.take(3, &nonce(8)), Numbered::Forked);
        assert_eq!(recent.highest(), 5);
        // Below the first number ever received.
        let mut recent = with([2]);
        assert_eq!(recent.take(1, &nonce(1)), Numbered::Late);
    }

    #[test]
    fn a_copy_that_jumps_ahead_gives_itself_away_and_locks_nobody_out() {
        let mut recent = with(1..=9);
        for far in [u64::MAX, 1 << 63, 10 + JUMP] {
            assert_eq!(recent.take(far, &nonce(7_000)), Numbered::Forked);
            assert_eq!(recent.highest(), 9);
        }
        // An agent that could not reach anybody for weeks.
        assert_eq!(recent.take(9 + JUMP, &nonce(7_000)), Numbered::New);
        // The genuine device is behind now: not for long.
        let verdicts = (10..14).map(|n| recent.take(n, &nonce(n)));
        let late = [Numbered::Late; LATE as usize];
        assert_eq!(
            verdicts.collect::<Vec<_>>(),
            [&late[..], &[Numbered::Forked]].concat()
        );
        assert_eq!(recent.to_string().parse(), Ok(recent));
    }

    #[test]
    fn late_requests_are_counted_only_until_a_new_one_comes() {
        let mut recent = with([5, 9, 13, 17]);
        for number in [3, 4, 6] {
            assert_eq!(recent.take(number, &nonce(number)), Numbered::Late);
        }
        assert_eq!(recent.take(18, &nonce(18)), Numbered::New);
        assert_eq!(recent.take(7, &nonce(7)), Numbered::Late);
    }

    #[test]
    fn a_machine_that_was_put_far_back_is_found_at_once() {
        let mut recent = with(1..=100);
        assert_eq!(recent.take(40, &nonce(7_000)), Numbered::Forked);
        assert_eq!(recent.take(90, &nonce(7_000)), Numbered::Forked);
        let mut readmitted = with([100]);
        assert_eq!(readmitted.take(1, &nonce(1)), Numbered::Forked);
    }

    #[test]
    fn the_list_is_bounded_and_reads_back_as_it_was_written() {
        let recent = with(1..=1_000);
        assert_eq!(recent.used.len(), KEPT);
        assert_eq!(recent.to_string().parse(), Ok(recent));
        assert_eq!("".parse(), Ok(Recent::default()));
        for bad in ["7", "x:1", "1:a 2:b"] {
            assert_eq!(bad.parse::<Recent>(), Err(Unreadable));
        }
    }
}

//! Maintenance windows: when a region's devices may be updated.
//!
//! A window is wall-clock time in an IANA zone: `Mon-Fri 18:00-06:00 America/New_York` is open
//! whenever a clock on the wall there shows a time between six in the evening and six in the
//! morning. An hour that daylight saving repeats belongs to the window twice, one that it skips not
//! at all. Zones come from the database bundled with the `jiff` crate, so that every replica
//! decides alike whatever its machine has installed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use tidegate_protocol::{Region, Timestamp};

const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Hours in which updates may begin, in the wall-clock time of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// First and last day on which it opens, Monday = 0; the range may pass the week's end.
    days: (u8, u8),
    /// Opening and closing time in seconds of the day; may pass midnight. Equal means all day.
    hours: (i64, i64),
    zone: TimeZone,
}

/// The text is not a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a window; write it like \"Mon-Fri 18:00-06:00 America/New_York\"")]
pub struct WindowError(String);

/// State of a window, and the time at which it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Whether updates may begin.
    pub open: bool,
    /// Time at which that changes; `None` if never.
    pub changes: Option<Timestamp>,
}

impl Window {
    /// Local seconds since Monday 00:00, and the offset from UTC in seconds.
    fn wall(&self, now: Timestamp) -> (i64, i64) {
        let seconds = now.as_secs();
        let offset = jiff::Timestamp::from_second(seconds)
            .map_or(0, |t| i64::from(self.zone.to_offset(t).seconds()));
        // 1970-01-01 was a Thursday.
        ((seconds + offset + 3 * DAY).rem_euclid(WEEK), offset)
    }

    /// Seconds it stays open on each day that it opens.
    fn length(&self) -> i64 {
        match (self.hours.1 - self.hours.0).rem_euclid(DAY) {
            0 => DAY,
            length => length,
        }
    }

    fn opens_on(&self, day: i64) -> bool {
        let (first, last) = (i64::from(self.days.0), i64::from(self.days.1));
        (day - first).rem_euclid(7) <= (last - first).rem_euclid(7)
    }

    /// Seconds into the opening that covers a wall-clock time; `None` when it is closed.
    fn since_opening(&self, wall: i64) -> Option<i64> {
        [0, 1].into_iter().find_map(|back| {
            let day = (wall.div_euclid(DAY) - back).rem_euclid(7);
            let since = (wall - day * DAY - self.hours.0).rem_euclid(WEEK);
            (self.opens_on(day) && since < self.length()).then_some(since)
        })
    }

    /// Returns whether it is open at an instant.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.since_opening(self.wall(now).0).is_some()
    }

    /// Start of the current opening; `None` when it is closed, or when the previous opening runs
    /// straight into this one (openings that touch are one).
    pub fn opened(&self, now: Timestamp) -> Option<Timestamp> {
        let into = self.since_opening(self.wall(now).0)?;
        let at = now.minus(Duration::from_secs(u64::try_from(into).unwrap_or(0)));
        (!self.is_open(at.minus(Duration::from_secs(1)))).then_some(at)
    }

    /// Returns whether it is open, and when that changes.
    pub fn at(&self, now: Timestamp) -> Opening {
        let (wall, offset) = self.wall(now);
        let open = self.since_opening(wall).is_some();
        // The answer can change where the wall clock reaches an edge of the window, under the
        // current
        // offset or a later one, and where the offset itself changes; the first such instant is it.
        let start = now.as_secs();
        let mut offsets = vec![offset];
        let mut candidates = Vec::new();
        if let Ok(from) = jiff::Timestamp::from_second(start) {
            for transition in self.zone.following(from) {
                let at = transition.timestamp().as_second();
                if at > start + 9 * DAY {
                    break;
                }
                candidates.push(at);
                offsets.push(i64::from(transition.offset().seconds()));
            }
        }
        let midnight = wall - wall.rem_euclid(DAY);
        for day in -1..=8 {
            let opens = midnight + day * DAY + self.hours.0;
            for edge in [opens, opens + self.length()] {
                candidates.extend(offsets.iter().map(|o| start + edge - wall - (o - offset)));
            }
        }
        candidates.retain(|at| *at > start);
        candidates.sort_unstable();
        let changes = candidates
            .into_iter()
            .map(Timestamp::from_secs)
            .find(|at| self.is_open(*at) != open);
        Opening { open, changes }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |d: u8| DAYS[usize::from(d) % 7];
        let clock = |s: i64| format!("{:02}:{:02}", s / 3_600, s / 60 % 60);
        write!(f, "{}", day(self.days.0))?;
        if self.days.0 != self.days.1 {
            write!(f, "-{}", day(self.days.1))?;
        }
        let zone = self.zone.iana_name().unwrap_or("UTC");
        write!(f, " {}-{} {zone}", clock(self.hours.0), clock(self.hours.1))
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let refuse = || WindowError(text.chars().take(80).collect());
        let parts: Vec<&str> = text.split_whitespace().collect();
        let (days, hours, zone) = match parts[..] {
            [days, hours, zone] => (days, hours, zone),
            [days, hours] => (days, hours, "UTC"),
            _ => return Err(refuse()),
        };
        let day = |word: &str| {
            DAYS.iter()
                .position(|d| d.eq_ignore_ascii_case(word))
                .and_then(|p| u8::try_from(p).ok())
                .ok_or_else(refuse)
        };
        let days = match days.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None if days.eq_ignore_ascii_case("daily") => (0, 6),
            None => (day(days)?, day(days)?),
        };
        let clock = |word: &str| -> Result<i64, WindowError> {
            let (hours, minutes) = word.split_once(':').ok_or_else(refuse)?;
            let two = |t: &str| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit());
            if !two(hours) || !two(minutes) {
                return Err(refuse());
            }
            let (hours, minutes): (i64, i64) = (
                hours.parse().map_err(|_| refuse())?,
                minutes.parse().map_err(|_| refuse())?,
            );
            let seconds = hours * 3_600 + minutes * 60;
            if minutes > 59 || seconds > DAY {
                return Err(refuse());
            }
            Ok(seconds % DAY)
        };
        let (opens, closes) = hours.split_once('-').ok_or_else(refuse)?;
        let zone = TimeZoneDatabase::bundled()
            .get(zone)
            .map_err(|_| refuse())?;
        Ok(Self {
            days,
            hours: (clock(opens)?, clock(closes)?),
            zone,
        })
    }
}

/// Windows of a rollout: a general one, and others for single regions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Windows {
    /// Window of regions without one of their own; `None` is always open.
    pub general: Option<Window>,
    /// Windows of single regions.
    pub by_region: BTreeMap<Region, Window>,
}

impl Windows {
    /// Returns whether there is any window at all.
    pub fn is_empty(&self) -> bool {
        self.general.is_none() && self.by_region.is_empty()
    }

    /// The window of a region; `None` is always open.
    pub fn of(&self, region: &Region) -> Option<&Window> {
        self.by_region.get(region).or(self.general.as_ref())
    }

    /// Returns whether the window of any of `regions` is open, or of any region at all if it is empty.
    pub fn any_open(&self, regions: &[Region], now: Timestamp) -> bool {
        let mut windows: Vec<Option<&Window>> = regions.iter().map(|r| self.of(r)).collect();
        if windows.is_empty() {
            windows = std::iter::once(self.general.as_ref())
                .chain(self.by_region.values().map(Some))
                .collect();
        }
        windows
            .into_iter()
            .any(|w| w.is_none_or(|w| w.is_open(now)))
    }
}

/// Time at which a device whose window opens at `opens` should ask: spread over `ramp` by its place
/// in the rollout, so that a fleet does not arrive all at once.
pub fn spread(opens: Timestamp, place: u64, ramp: Duration) -> Timestamp {
    let micros = u64::try_from(ramp.as_micros()).unwrap_or(u64::MAX).max(1);
    opens.plus(Duration::from_micros(place % micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        let instant: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_secs(instant.as_second())
    }

    fn window(text: &str) -> Window {
        text.parse().unwrap()
    }

    #[test]
    fn a_night_in_new_york_passes_midnight_and_the_weekend() {
        let nights = window("Mon-Fri 18:00-06:00 America/New_York");
        // Monday 2026-06-01; New York is four hours behind UTC in summer.
        assert!(!nights.is_open(at("2026-06-01T21:59:59Z")));
        assert!(nights.is_open(at("2026-06-01T22:00:00Z")));
        assert!(nights.is_open(at("2026-06-02T09:59:59Z")));
        assert!(!nights.is_open(at("2026-06-02T10:00:00Z")));
        // Friday evening until Saturday morning, then closed until Monday evening.
        assert!(nights.is_open(at("2026-06-06T09:00:00Z")));
        let weekend = nights.at(at("2026-06-06T12:00:00Z"));
        assert_eq!(
            weekend,
            Opening {
                open: false,
                changes: Some(at("2026-06-08T22:00:00Z"))
            }
        );
    }

    #[test]
    fn a_window_follows_the_wall_when_clocks_change() {
        let night = window("daily 01:00-04:00 Europe/Berlin");
        // 2026-03-29: at 02:00 clocks jump to 03:00; three hours on the wall are two.
        let opening = night.at(at("2026-03-29T00:30:00Z"));
        assert_eq!(
            opening,
            Opening {
                open: true,
                changes: Some(at("2026-03-29T02:00:00Z"))
            }
        );
        // 2026-10-25: at 03:00 clocks go back to 02:00; three hours on the wall are four.
        let opening = night.at(at("2026-10-24T23:30:00Z"));
        assert_eq!(
            opening,
            Opening {
                open: true,
                changes: Some(at("2026-10-25T03:00:00Z"))
            }
        );
    }

    #[test]
    fn a_window_without_an_end_never_changes() {
        let always = window("daily 00:00-24:00 Asia/Tokyo");
        assert_eq!(
            always.at(at("2026-01-01T00:00:00Z")),
            Opening {
                open: true,
                changes: None
            }
        );
    }

    #[test]
    fn rubbish_is_refused_with_an_example() {
        for bad in [
            "",
            "Mon",
            "Mon 1-2 UTC",
            "Mon 25:00-26:00 UTC",
            "Foo 01:00-02:00 UTC",
            "Mon 01:00-02:00 Mars/Olympus",
            "Mon 01:60-02:00 UTC",
            "a b c d",
            "Mon +1:00-02:00 UTC",
        ] {
            let error = bad.parse::<Window>().unwrap_err().to_string();
            assert!(error.contains("America/New_York"), "{bad}");
        }
        for text in [
            "Mon-Fri 18:00-06:00 America/New_York",
            "Sat-Mon 22:30-01:15 UTC",
        ] {
            assert_eq!(window(text).to_string(), text);
        }
    }

    proptest! {
        /// The next change really is the next one, to the minute, in zones with daylight saving.
        #[test]
        fn nothing_changes_before_the_change(
            start in 1_767_000_000i64..1_800_000_000,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
            first in 0usize..7, last in 0usize..7, opens in 0i64..96, closes in 0i64..96,
        ) {
            let clock = |q: i64| format!("{:02}:{:02}", q / 4, q % 4 * 15);
            let text = format!("{}-{} {}-{} {zone}", DAYS[first], DAYS[last], clock(opens), clock(closes));
            let w = window(&text);
            let now = Timestamp::from_secs(start - start % 60);
            let opening = w.at(now);
            prop_assert_eq!(opening.open, w.is_open(now));
            let mut t = now;
            for _ in 0..(8 * 24 * 60) {
                t = t.plus(Duration::from_mins(1));
                if w.is_open(t) != opening.open {
                    break;
                }
            }
            if let Some(change) = opening.changes {
                prop_assert_eq!(change, t, "{}", text);
            } else {
                prop_assert_eq!(w.is_open(t), opening.open, "{}", text);
            }
        }
    }
}

//! Waves: the devices they take, and their progress.

use std::fmt;
use std::str::FromStr;

use tidegate_protocol::Timestamp;

use crate::BasisPoints;
use crate::ring::Frontier;
use crate::selector::Selector;

/// Number of devices a wave takes, beyond those of the waves before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaveSize {
    /// Every device that it selects, devices that join later included.
    All,
    /// A share of the devices that it selects, rounded up.
    Share(BasisPoints),
    /// An exact number.
    Count(u64),
}

/// The text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a wave size: all, a share like 20%, or a number like 5000")]
pub struct WaveSizeError(String);

impl WaveSize {
    /// Number of devices it takes of `selected`, of which `left` are in no earlier wave.
    pub fn quota(self, selected: u64, left: u64) -> u64 {
        match self {
            Self::All => left,
            Self::Share(share) => share.of(selected).min(left),
            Self::Count(count) => count.min(left),
        }
    }
}

impl fmt::Display for WaveSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Share(share) => {
                let points = share.get();
                match points % 100 {
                    0 => write!(f, "{}%", points / 100),
                    part => write!(f, "{}.{part:02}%", points / 100),
                }
            }
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

impl FromStr for WaveSize {
    type Err = WaveSizeError;

    fn from_str(text: &str) -> Result<Self, WaveSizeError> {
        let refuse = || WaveSizeError(text.chars().take(40).collect());
        if text == "all" {
            return Ok(Self::All);
        }
        let Some(percent) = text.strip_suffix('%') else {
            let count: u64 = text.parse().map_err(|_| refuse())?;
            return if count == 0 {
                Err(refuse())
            } else {
                Ok(Self::Count(count))
            };
        };
        let (whole, part) = percent.split_once('.').unwrap_or((percent, ""));
        let whole: u32 = whole.parse().map_err(|_| refuse())?;
        let part: u32 = match part.len() {
            0 => 0,
            1 => part.parse::<u32>().map_err(|_| refuse())? * 10,
            2 => part.parse().map_err(|_| refuse())?,
            _ => return Err(refuse()),
        };
        let points = whole
            .checked_mul(100)
            .and_then(|w| w.checked_add(part))
            .ok_or_else(refuse)?;
        match BasisPoints::new(points) {
            Ok(share) if points > 0 => Ok(Self::Share(share)),
            _ => Err(refuse()),
        }
    }
}

/// One wave as it was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wave {
    /// A name for people.
    pub name: String,
    /// Devices that it selects.
    pub selector: Selector,
    /// Number of them that it takes.
    pub size: WaveSize,
}

/// State of a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaveState {
    /// Not started yet.
    Pending,
    /// It admits devices.
    Running,
    /// Its devices are done; it waits in case something shows up late.
    Soaking,
    /// Its gate let the next wave through.
    Passed,
    /// Its gate was breached.
    Failed,
    /// It selects nobody.
    Skipped,
}

tidegate_protocol::words!(WaveState("wave state") {
    Pending = "pending",
    Running = "running",
    Soaking = "soaking",
    Passed = "passed",
    Failed = "failed",
    Skipped = "skipped",
});

/// Progress of a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaveProgress {
    /// Current state.
    pub state: WaveState,
    /// Frontier up to which it has admitted devices.
    pub frontier: Frontier,
    /// Number of devices it takes: counted when it starts, an estimate before.
    pub quota: u64,
    /// Time it started.
    pub started_at: Option<Timestamp>,
    /// Time it began to soak.
    pub soak_started: Option<Timestamp>,
    /// Time it ended.
    pub ended_at: Option<Timestamp>,
}

impl WaveProgress {
    /// Returns the progress of a wave that has not started, with an estimate of its size.
    pub fn pending(quota: u64) -> Self {
        Self {
            state: WaveState::Pending,
            frontier: Frontier::NONE,
            quota,
            started_at: None,
            soak_started: None,
            ended_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for text in ["all", "20%", "0.50%", "5000"] {
            assert_eq!(text.parse::<WaveSize>().unwrap().to_string(), text);
        }
        assert_eq!("0.5%".parse::<WaveSize>().unwrap().to_string(), "0.50%");
        for bad in ["", "0", "0%", "101%", "-1", "1.234%", "5k", "%"] {
            assert!(bad.parse::<WaveSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_quota_never_exceeds_who_is_left() {
        let share: WaveSize = "20%".parse().unwrap();
        assert_eq!(share.quota(24, 24), 5);
        assert_eq!(share.quota(24, 3), 3);
        assert_eq!(WaveSize::All.quota(24, 19), 19);
        assert_eq!(WaveSize::Count(5_000).quota(120_000, 120_000), 5_000);
    }
}

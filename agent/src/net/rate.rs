//! Rate limits of downloads, and the minimum rate of a connection.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Rate limit for some hours of each day, in UTC, so that the site's own traffic comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// First hour in which it applies, 0 to 23.
    pub from_hour: u8,
    /// Hour at which it ends, 0 to 24; if less than `from_hour`, on the next day. Equal hours mean
    /// all day.
    pub to_hour: u8,
    /// Bytes per second; 0 lets nothing through.
    pub bytes_per_s: u64,
}

impl RateLimit {
    fn holds(&self, hour: u8) -> bool {
        match self.from_hour.cmp(&self.to_hour) {
            std::cmp::Ordering::Less => (self.from_hour..self.to_hour).contains(&hour),
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Greater => hour >= self.from_hour || hour < self.to_hour,
        }
    }
}

/// Lowest limit that applies at a time, in seconds since the epoch; `None` if none does.
pub(crate) fn limit_at(limits: &[RateLimit], epoch_s: i64) -> Option<u64> {
    let hour = u8::try_from(epoch_s.rem_euclid(86_400) / 3_600).unwrap_or(0);
    limits
        .iter()
        .filter(|limit| limit.holds(hour))
        .map(|limit| limit.bytes_per_s)
        .min()
}

/// Paces bytes to a rate. Time is an argument, measured from some fixed moment.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    /// Time at which the bytes passed so far are paid for.
    paid_until: Duration,
}

/// Time by which a download may run ahead of its rate, since reads vary in size.
const BURST: Duration = Duration::from_millis(250);
impl Pacer {
    /// Counts bytes that have passed and returns the delay before the next read.
    pub(crate) fn passed(&mut self, now: Duration, bytes: usize, limit: Option<u64>) -> Duration {
        let Some(limit) = limit else {
            self.paid_until = now;
            return Duration::ZERO;
        };
        let cost = Duration::from_nanos(
            u64::try_from(bytes as u128 * 1_000_000_000 / u128::from(limit.max(1)))
                .unwrap_or(u64::MAX),
        );
        self.paid_until = self.paid_until.max(now).saturating_add(cost);
        self.paid_until.saturating_sub(now).saturating_sub(BURST)
    }
}

/// Detects a download that trickles: each byte arrives in time, but the end never does. What was
/// fetched is kept, and the next attempt resumes from there, perhaps over a better path.
pub(crate) struct MinimumRate {
    since: Instant,
    bytes: usize,
}

impl MinimumRate {
    /// Interval over which bytes are counted.
    const WINDOW: Duration = Duration::from_mins(5);
    /// Minimum bytes per window: 13 bytes a second, slower than any modem.
    const BYTES: usize = 4_096;

    pub(crate) fn begin(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
        }
    }

    /// Counts bytes; returns whether they arrive fast enough.
    pub(crate) fn continues(&mut self, now: Instant, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        if now.duration_since(self.since) < Self::WINDOW {
            return true;
        }
        let enough = self.bytes >= Self::BYTES;
        *self = Self::begin(now);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_the_hour_holds_also_over_midnight() {
        let limit = |from_hour, to_hour, bytes_per_s| RateLimit {
            from_hour,
            to_hour,
            bytes_per_s,
        };
        let limits = [limit(8, 18, 100), limit(22, 6, 500), limit(0, 0, 1_000)];
        let at = |hour: i64| limit_at(&limits, 20_000 * 86_400 + hour * 3_600);
        assert_eq!(at(9), Some(100));
        assert_eq!(at(18), Some(1_000));
        assert_eq!(at(23), Some(500));
        assert_eq!(at(5), Some(500));
        assert_eq!(limit_at(&limits[..1], 20 * 3_600), None);
    }

    #[test]
    fn bytes_pass_at_the_rate_over_any_sizes_of_reads() {
        let mut pacer = Pacer::default();
        let mut now = Duration::ZERO;
        for size in [1_000usize, 64_000, 10, 3_000]
            .into_iter()
            .cycle()
            .take(400)
        {
            now += pacer.passed(now, size, Some(100_000));
        }
        let sum = 100 * (1_000 + 64_000 + 10 + 3_000);
        let ideal = Duration::from_secs_f64(f64::from(sum) / 100_000.0);
        assert!(
            now <= ideal && now + BURST * 2 >= ideal,
            "{now:?} for {ideal:?}"
        );
        assert_eq!(pacer.passed(now, 1 << 20, None), Duration::ZERO);
    }

    #[test]
    fn a28_a_byte_now_and_then_is_no_download() {
        let begin = Instant::now();
        let mut rate = MinimumRate::begin(begin);
        let at = |seconds| begin + Duration::from_secs(seconds);
        for second in (0..300).step_by(29) {
            assert!(rate.continues(at(second), 1));
        }
        assert!(!rate.continues(at(300), 1));
        // A slow link that carries a little is enough.
        for second in 300..1_200 {
            assert!(rate.continues(at(second), 30));
        }
    }
}

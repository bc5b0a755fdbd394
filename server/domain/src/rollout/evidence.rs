//! Evidence against a rollout: tests that stay valid however often they are looked at.
//!
//! Each is an *e-process*: a number that starts at 1 and whose expectation never rises while the
//! release keeps its limit. By Ville's inequality it then ever exceeds `1/α` with a probability
//! of at most `α`, so that the planner may look after every single device.
//!
//! - [`failures`]: each device with a known outcome is a coin with a failure rate of at most `p`.
//!   For an alternative whose *odds* are `r` times as high, the likelihood ratio of `k` failures
//!   among `n` is `r^k / (1 + p (r - 1))^n`; its expectation is at most 1 for every true rate up
//!   to `p`. The evidence is the plain mean over the alternatives `r = 2^(j/4)`, `j = 1..J`.
//! - [`comparison`]: the safe log-rank test (ter Schure, Pérez-Ortiz, Ly, Grünwald 2021). Whenever
//!   a device turns bad, it is one on the new release with probability `risk_new / (risk_new +
//!   risk_old)` if the releases are alike; a hazard `r` times as high makes that likelier. Again
//!   the mean over the same alternatives.
//!
//! Arithmetic is in whole numbers (binary logarithms with 32 fractional bits), rounded against
//! halting, so that every machine comes to the same answer and no rounding adds false alarms.

use std::fmt;

use crate::BasisPoints;

/// Fractional bits of the fixed-point numbers.
const FRAC: u32 = 32;
const ONE: i128 = 1 << FRAC;
/// Alternatives per doubling of the odds.
const PER_OCTAVE: u32 = 4;
/// 2^(j/4) for j = 0..3, in 32 fractional bits, rounded up.
const ROOTS: [u64; 4] = [1 << 32, 5_107_605_668, 6_074_001_001, 7_223_245_206];

/// The binary logarithm of an amount of evidence, in units of 2^-32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evidence(i128);

impl Evidence {
    /// No evidence either way: an amount of 1.
    pub const NONE: Self = Self(0);
    /// Certainty: what cannot happen within the limit has happened.
    pub const CERTAIN: Self = Self(i128::MAX);

    /// The evidence of an amount `numerator / denominator` of at least 1.
    pub fn of(numerator: u64, denominator: u64) -> Self {
        let scaled = (u128::from(numerator) << FRAC) / u128::from(denominator.max(1));
        Self(log2(scaled.max(1 << FRAC)))
    }
}

impl fmt::Display for Evidence {
    /// Writes odds, rounded down, or a power of two where odds have too many digits to compare.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::CERTAIN {
            return f.write_str("certain");
        }
        let whole = self.0 >> FRAC;
        match u32::try_from(whole) {
            Err(_) => f.write_str("below 1:1"),
            Ok(whole) if whole < 20 => {
                // 2^f = 2 * 2^-(1 - f).
                let below = ((i128::from(whole) + 1) << FRAC) - self.0;
                let odds = (exp2_of_minus(below) << (whole + 1)) >> FRAC;
                write!(f, "{odds}:1")
            }
            Ok(whole) => write!(f, "2^{whole}:1"),
        }
    }
}

/// The binary logarithm of `x / 2^32`, for `x >= 2^32`; rounded down by less than 2^-31.
fn log2(x: u128) -> i128 {
    let whole = x.ilog2() - FRAC;
    // The mantissa in [1, 2) with 62 fractional bits, so that its square fits.
    let mut mantissa = if whole + FRAC >= 62 {
        x >> (whole + FRAC - 62)
    } else {
        x << (62 - whole - FRAC)
    };
    let mut result = i128::from(whole) << FRAC;
    for bit in (0..FRAC).rev() {
        mantissa = (mantissa * mantissa) >> 62;
        if mantissa >= 1 << 63 {
            mantissa >>= 1;
            result += 1 << bit;
        }
    }
    result
}

/// `2^-d` for `d >= 0` in 32 fractional bits, rounded down: a Taylor sum of positive terms.
fn exp2_of_minus(d: i128) -> i128 {
    // ln 2, (ln 2)^2 / 2, (ln 2)^3 / 6 in 32 fractional bits.
    const TERMS: [i128; 3] = [2_977_044_471, 1_031_764_990, 238_388_332];
    let whole = (d + ONE - 1) >> FRAC;
    let f = (whole << FRAC) - d;
    if whole > 64 {
        return 0;
    }
    let square = (f * f) >> FRAC;
    let cube = (square * f) >> FRAC;
    (ONE + ((TERMS[0] * f + TERMS[1] * square + TERMS[2] * cube) >> FRAC)) >> whole
}

/// Odds `2^(j/4)` in 32 fractional bits, rounded up.
fn odds(j: u32) -> u128 {
    u128::from(ROOTS[(j % PER_OCTAVE) as usize]) << (j / PER_OCTAVE)
}

/// Logarithm of the mean of amounts given as logarithms; rounded down.
fn mean(logs: &[i128]) -> Evidence {
    let Some(most) = logs.iter().copied().max() else {
        return Evidence::NONE;
    };
    let sum: i128 = logs.iter().map(|l| exp2_of_minus(most - l)).sum();
    let count = log2((logs.len() as u128) << FRAC) + 1;
    Evidence(most + log2(sum.max(ONE).unsigned_abs()) - count)
}

/// Evidence that more than `limit` of the devices fail, after `failed` of `finished`.
pub fn failures(limit: BasisPoints, failed: u64, finished: u64) -> Evidence {
    let bp = u128::from(limit.get());
    if failed == 0 || bp >= 10_000 {
        return Evidence::NONE;
    }
    if bp == 0 {
        return Evidence::CERTAIN;
    }
    // Alternatives up to 64 times beyond even odds: a release that breaks nearly everything.
    let even = (10_000 - bp).div_ceil(bp).ilog2() + 1;
    let (k, n) = (i128::from(failed), i128::from(finished.max(failed)));
    let logs: Vec<i128> = (1..=(even + 6) * PER_OCTAVE)
        .map(|j| {
            let grown = ((10_000 - bp) * (1 << FRAC) + bp * odds(j)).div_ceil(10_000);
            k * i128::from(j) * (ONE / i128::from(PER_OCTAVE)) - n * (log2(grown) + 2)
        })
        .collect();
    mean(&logs)
}

/// Devices at risk, and those that turned bad, between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stratum {
    /// Devices on the new release.
    pub risk_new: u64,
    /// Devices still on an old one.
    pub risk_old: u64,
    /// Devices on the new release that turned bad.
    pub bad_new: u64,
    /// Devices on an old release that turned bad.
    pub bad_old: u64,
}

/// Evidence that devices on the new release turn bad more often than those on the old one.
pub fn comparison(strata: &[Stratum]) -> Evidence {
    let telling = || {
        strata
            .iter()
            .filter(|s| s.risk_new > 0 && s.risk_old > 0 && s.bad_new + s.bad_old > 0)
    };
    if telling().all(|s| s.bad_new == 0) {
        return Evidence::NONE;
    }
    let logs: Vec<i128> = (1..=8 * PER_OCTAVE)
        .map(|j| {
            telling()
                .map(|s| {
                    let (new, old) = (u128::from(s.risk_new), u128::from(s.risk_old));
                    let grown = (old * (1 << FRAC) + new * odds(j)).div_ceil(new + old);
                    i128::from(s.bad_new) * i128::from(j) * (ONE / i128::from(PER_OCTAVE))
                        - i128::from(s.bad_new + s.bad_old) * (log2(grown) + 2)
                })
                .sum()
        })
        .collect();
    mean(&logs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn two() -> BasisPoints {
        BasisPoints::new(200).unwrap()
    }

    fn float(evidence: Evidence) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a test compares to three digits"
        )]
        let log = evidence.0 as f64 / (1u64 << 32) as f64;
        log
    }

    #[test]
    fn two_of_four_speak_against_two_percent_and_one_of_two_does_not() {
        assert!(failures(two(), 2, 4) >= Evidence::of(36, 1));
        assert!(failures(two(), 1, 2) < Evidence::of(20, 1));
        assert!(failures(two(), 2, 100) < Evidence::of(1, 1));
        assert_eq!(
            failures(BasisPoints::new(0).unwrap(), 1, 1_000),
            Evidence::CERTAIN
        );
        assert_eq!(failures(BasisPoints::ALL, 9, 9), Evidence::NONE);
    }

    proptest! {
        /// The whole-number arithmetic against plain floating point.
        #[test]
        fn the_arithmetic_agrees_with_floating_point(
            bp in 1u32..5_000, failed in 1u64..400, more in 0u64..20_000,
        ) {
            let n = failed + more;
            let limit = BasisPoints::new(bp).unwrap();
            let p = f64::from(bp) / 10_000.0;
            let even = (10_000 - bp).div_ceil(bp).ilog2() + 1;
            #[expect(clippy::cast_precision_loss, reason = "counts are small")]
            let logs: Vec<f64> = (1..=(even + 6) * 4)
                .map(|j| {
                    let r = (f64::from(j) / 4.0).exp2();
                    failed as f64 * f64::from(j) / 4.0 - n as f64 * (1.0 + p * (r - 1.0)).log2()
                })
                .collect();
            let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logs.iter().map(|l| (l - most).exp2()).sum();
            #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
            let expected = most + (sum / logs.len() as f64).log2();
            let got = float(failures(limit, failed, n));
            prop_assert!(got <= expected + 1e-6, "rounded against halting: {got} {expected}");
            prop_assert!((got - expected).abs() < 0.01, "{got} {expected}");
        }

        /// One more failure is always more evidence, one more healthy device less.
        #[test]
        fn evidence_follows_what_happens(bp in 1u32..5_000, k in 1u64..200, more in 0u64..5_000) {
            let limit = BasisPoints::new(bp).unwrap();
            let now = failures(limit, k, k + more);
            prop_assert!(failures(limit, k + 1, k + 1 + more) > now);
            prop_assert!(failures(limit, k, k + more + 1) < now);
        }
    }

    /// A small random generator: the tests of rates need millions of coin flips, reproducibly.
    struct Coins(u64);

    impl Coins {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % bound
        }
    }

    #[test]
    fn at_the_limit_at_most_one_run_in_twenty_is_halted_however_often_one_looks() {
        let (mut coins, mut halted) = (Coins(1), 0);
        let threshold = Evidence::of(20, 1);
        for _ in 0..1_000 {
            let mut failed = 0;
            for n in 1..=2_000u64 {
                if coins.below(10_000) < 200 {
                    failed += 1;
                    // Evidence only rises with a failure: looking after each failure is the same as
                    // looking after every device.
                    if failures(two(), failed, n) >= threshold {
                        halted += 1;
                        break;
                    }
                }
            }
        }
        assert!(halted <= 50, "{halted} of 1,000");
        assert!(halted >= 5, "the test has no teeth: {halted} of 1,000");
    }

    #[test]
    fn a_comparison_of_equals_seldom_speaks_and_a_leak_is_found() {
        let run = |coins: &mut Coins, ratio: u64| {
            let mut strata = Vec::new();
            for _ in 0..300 {
                let mut s = Stratum {
                    risk_new: 400,
                    risk_old: 600,
                    ..Stratum::default()
                };
                s.bad_new = (0..400).filter(|_| coins.below(10_000) < 2 * ratio).count() as u64;
                s.bad_old = (0..600).filter(|_| coins.below(10_000) < 2).count() as u64;
                strata.push(s);
                if comparison(&strata) >= Evidence::of(20, 1) {
                    return Some(strata.len());
                }
            }
            None
        };
        let mut coins = Coins(7);
        let alarms = (0..200).filter(|_| run(&mut coins, 1).is_some()).count();
        assert!(alarms <= 10, "{alarms} of 200");
        let found = (0..50).filter(|_| run(&mut coins, 4).is_some()).count();
        assert_eq!(found, 50);
    }
}

//! The gate: whether the results of the exposed devices let the rollout go on.

use std::time::Duration;

use crate::BasisPoints;

use super::Tally;
use super::evidence::{self, Evidence, Stratum};

/// Action when a gate is breached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBreach {
    /// Stop; devices that switched stay where they are until a person decides.
    Halt,
    /// Stop, and roll back the devices that switched.
    HaltAndRollBack,
}

tidegate_protocol::words!(OnBreach("breach action") {
    Halt = "halt",
    HaltAndRollBack = "halt_and_roll_back",
});

/// Failure limits of a rollout, over the devices exposed, never over the whole group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Maximum share of finished devices that may fail.
    pub max_failure: BasisPoints,
    /// Minimum number of failed devices before anything is concluded; at least 1.
    pub min_failures: u64,
    /// Minimum share of finished devices that must be healthy for the wave to pass.
    pub min_success: BasisPoints,
    /// Minimum number of finished devices before a wave may pass; all of a smaller wave.
    pub min_sample: u64,
    /// Maximum share of devices that took the update and are silent at the same time; 100 %
    /// switches the test off.
    pub max_silent: BasisPoints,
    /// Time without contact after which a device that took the update counts as silent.
    pub silent_after: Duration,
    /// Whether devices on the new release are compared with those still on the old one.
    pub compare: bool,
    /// Time a wave waits after its last device, in case something shows up late.
    pub soak: Duration,
    /// Action on a breach.
    pub on_breach: OnBreach,
}

/// A breached gate: the wave in which it shows, and the measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Index of the wave.
    pub wave: usize,
    /// The measurement and its limit.
    pub text: String,
}

/// Bound on false halts: at most one in this many rollouts that stay exactly within their limits.
pub const FALSE_HALT_ONE_IN: u64 = 20;

impl Gate {
    /// Judges everything known so far; returns the breach, if any. Valid however often it is
    /// called: the false halts of a whole rollout, over all of its tests together, stay below one
    /// in [`FALSE_HALT_ONE_IN`].
    ///
    /// That budget is divided in quarters: one for silence and one for the comparison where they
    /// are in use, the rest for failures. Within failures and silence, three quarters go to the
    /// rollout as a whole (which finds what is bad everywhere, from the first device on), and the
    /// rest to the waves after the first, wave `i` getting `1 / (i (i + 1))` of it, since those
    /// shares add up to less than one however many waves there are (which finds what is bad in
    /// one region after many healthy devices in others).
    pub fn look(&self, waves: &[Tally], strata: &[Stratum]) -> Option<Breach> {
        let silence = self.max_silent < BasisPoints::ALL;
        let quarters = 4 - u64::from(silence) - u64::from(self.compare);
        test_each(waves, quarters, |tally| self.failing(tally))
            .or_else(|| {
                silence
                    .then(|| test_each(waves, 1, |tally| self.falling_silent(tally)))
                    .flatten()
            })
            .or_else(|| self.worse_than_before(waves, strata))
    }

    fn failing(&self, tally: &Tally) -> Option<(Evidence, String)> {
        let (failed, finished) = (tally.failed(), tally.finished());
        // Within the limit no alternative is likelier than the limit itself: nothing to compute.
        if failed < self.min_failures.max(1) || !self.max_failure.is_exceeded_by(failed, finished) {
            return None;
        }
        let text = format!(
            "{failed} of {finished} finished devices failed, the limit is {}",
            self.max_failure
        );
        Some((evidence::failures(self.max_failure, failed, finished), text))
    }

    fn falling_silent(&self, tally: &Tally) -> Option<(Evidence, String)> {
        let (silent, took) = (tally.silent(), tally.judged());
        if silent < self.min_failures.max(1) || !self.max_silent.is_exceeded_by(silent, took) {
            return None;
        }
        let text = format!(
            "{silent} of {took} devices that took the update are silent, the limit is {}",
            self.max_silent
        );
        Some((evidence::failures(self.max_silent, silent, took), text))
    }

    fn worse_than_before(&self, waves: &[Tally], strata: &[Stratum]) -> Option<Breach> {
        if !self.compare {
            return None;
        }
        let (new, old) = strata
            .iter()
            .fold((0, 0), |(n, o), s| (n + s.bad_new, o + s.bad_old));
        let enough = Evidence::of(FALSE_HALT_ONE_IN * 4, 1);
        let found = evidence::comparison(strata);
        (new >= self.min_failures.max(1) && found >= enough).then(|| Breach {
            wave: waves.iter().rposition(|w| w.exposed() > 0).unwrap_or(0),
            text: format!(
                "{new} devices on the new release turned bad against {old} on the old one, \
                 more than their shares; evidence {found}, {enough} is enough"
            ),
        })
    }

    /// Reason a finished wave may not pass: too few healthy devices. `None` if it may.
    pub fn too_few_healthy(&self, tally: &Tally) -> Option<String> {
        let (healthy, finished) = (tally.healthy(), tally.finished());
        let short = u128::from(healthy) * 10_000
            < u128::from(finished) * u128::from(self.min_success.get());
        short.then(|| {
            format!(
                "only {healthy} of {finished} finished devices are healthy; {} must be",
                self.min_success
            )
        })
    }
}

/// Runs one test over the whole rollout and one over each later wave, each with its share of the
/// budget.
fn test_each(
    waves: &[Tally],
    quarters: u64,
    check: impl Fn(&Tally) -> Option<(Evidence, String)>,
) -> Option<Breach> {
    let whole: Tally = waves.iter().copied().sum();
    let exposed: Vec<usize> = (0..waves.len())
        .filter(|i| waves[*i].exposed() > 0)
        .collect();
    let single = waves.len() < 2;
    let enough = Evidence::of(
        FALSE_HALT_ONE_IN * 4 * if single { 3 } else { 4 },
        quarters * 3,
    );
    if let Some((found, text)) = check(&whole)
        && found >= enough
    {
        // Attributed to the wave in which most of it happens.
        let wave = exposed
            .iter()
            .copied()
            .max_by_key(|i| waves[*i].failed() + waves[*i].silent())
            .unwrap_or(0);
        let text = format!("{text}; evidence {found}, {enough} is enough");
        return Some(Breach { wave, text });
    }
    exposed.into_iter().filter(|i| *i > 0).find_map(|wave| {
        let i = wave as u64;
        let enough = Evidence::of(FALSE_HALT_ONE_IN * 16 * i * (i + 1), quarters);
        let (found, text) = check(&waves[wave])?;
        (found >= enough).then(|| Breach {
            wave,
            text: format!("{text}; evidence {found}, {enough} is enough"),
        })
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::Outcome;
    use super::*;

    pub(crate) fn gate() -> Gate {
        Gate {
            max_failure: BasisPoints::new(200).unwrap(),
            min_failures: 2,
            min_success: BasisPoints::new(9_500).unwrap(),
            min_sample: 1,
            max_silent: BasisPoints::new(1_000).unwrap(),
            silent_after: Duration::from_mins(15),
            compare: false,
            soak: Duration::from_mins(1),
            on_breach: OnBreach::Halt,
        }
    }

    fn tally(healthy: u64, failed: u64) -> Tally {
        Tally::default()
            .with(Outcome::Probation, healthy)
            .with(Outcome::Failed, failed)
    }

    #[test]
    fn two_of_four_halt_a_two_percent_limit_and_one_of_two_does_not() {
        for later in [0, 3] {
            let mut waves = vec![tally(2, 2)];
            waves.extend(vec![Tally::default(); later]);
            assert!(gate().look(&waves, &[]).is_some());
            waves[0] = tally(1, 1);
            assert_eq!(gate().look(&waves, &[]), None);
            waves[0] = tally(98, 2);
            assert_eq!(gate().look(&waves, &[]), None);
        }
    }

    #[test]
    fn a_region_that_breaks_is_seen_after_many_healthy_devices_elsewhere() {
        let waves = [tally(40_000, 90), tally(40_000, 80), tally(10, 6)];
        let breach = gate().look(&waves, &[]).unwrap();
        assert_eq!(breach.wave, 2);
        assert!(
            breach
                .text
                .starts_with("6 of 16 finished devices failed, the limit is 2 %")
        );
    }

    #[test]
    fn silence_after_the_update_is_a_breach_of_its_own() {
        let mut quiet = tally(10, 0).with(Outcome::Silent, 3);
        quiet.quiet_probation = 4;
        let breach = gate().look(&[quiet], &[]).unwrap();
        assert!(
            breach
                .text
                .contains("7 of 13 devices that took the update are silent"),
            "{}",
            breach.text
        );
        let mut off = gate();
        off.max_silent = BasisPoints::ALL;
        assert_eq!(off.look(&[quiet], &[]), None);
    }

    #[test]
    fn the_comparison_speaks_only_where_it_is_wanted() {
        let strata = [Stratum {
            risk_new: 100,
            risk_old: 900,
            bad_new: 6,
            bad_old: 2,
        }];
        let mut with = gate();
        assert_eq!(with.look(&[tally(100, 0)], &strata), None);
        with.compare = true;
        assert!(with.look(&[tally(100, 0)], &strata).is_some());
    }

    #[test]
    fn a_wave_that_is_over_needs_its_share_of_healthy_devices() {
        assert!(gate().too_few_healthy(&tally(0, 1)).is_some());
        assert!(gate().too_few_healthy(&tally(19, 1)).is_none());
        assert!(gate().too_few_healthy(&tally(0, 0)).is_none());
    }
}

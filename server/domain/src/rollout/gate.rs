//! The gate: whether what was seen of a wave lets the rollout go on.

use std::time::Duration;

use tidegate_protocol::DeploymentState;

use crate::BasisPoints;
use crate::admission::DeploymentFacts;

/// What to do when a gate is breached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBreach {
    /// Stop; devices that switched stay where they are until a person decides.
    Halt,
    /// Stop, and send the devices that switched back.
    HaltAndRollBack,
}

tidegate_protocol::words!(OnBreach("breach action") {
    Halt = "halt",
    HaltAndRollBack = "halt_and_roll_back",
});

/// The limits of a rollout's waves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// The share of finished devices that may fail.
    pub max_failure: BasisPoints,
    /// So many devices must have failed before the share counts: the minimum sample. At least 1.
    pub min_failures: u64,
    /// The share of finished devices that must be healthy for the wave to pass.
    pub min_success: BasisPoints,
    /// How long a wave waits after its last device, in case something shows up late.
    pub soak: Duration,
    /// What a breach does.
    pub on_breach: OnBreach,
}

/// What became of the devices that a wave exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Offered or under way, not healthy yet.
    pub in_flight: u64,
    /// Healthy on the new release: in probation or succeeded.
    pub healthy: u64,
    /// Those of the healthy ones whose rollback window is still open.
    pub probation: u64,
    /// Failed, or back because the release was bad.
    pub failed: u64,
    /// Under way back.
    pub returning: u64,
    /// Back by order.
    pub returned: u64,
    /// Called off before they switched.
    pub called_off: u64,
}

impl Tally {
    /// Counts one deployment. A failed attempt that will be repeated by itself is under way.
    pub fn count(&mut self, deployment: &DeploymentFacts, max_attempts: u32) {
        use DeploymentState as S;
        let repeats = deployment.attempts < max_attempts
            && deployment
                .reason
                .as_ref()
                .is_some_and(|r| r.code.retryable());
        let slot = match deployment.state {
            S::Offered | S::Deferred | S::Downloading | S::Installing | S::Verifying => {
                &mut self.in_flight
            }
            S::Failed if repeats => &mut self.in_flight,
            S::Probation | S::Succeeded => &mut self.healthy,
            S::Failed | S::TimedOut => &mut self.failed,
            S::RollingBack => &mut self.returning,
            S::RolledBack if deployment.came_back_by_itself() => &mut self.failed,
            S::RolledBack => &mut self.returned,
            S::Cancelled | S::Superseded => &mut self.called_off,
        };
        *slot += 1;
        self.probation += u64::from(deployment.state == S::Probation);
    }

    /// Every device that has a deployment.
    pub fn exposed(&self) -> u64 {
        self.in_flight
            + self.healthy
            + self.failed
            + self.returning
            + self.returned
            + self.called_off
    }

    /// Those whose outcome is known.
    pub fn finished(&self) -> u64 {
        self.healthy + self.failed
    }
}

/// What a gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateVerdict {
    /// Nothing speaks against going on.
    Holds,
    /// Too many failed, or too few are healthy.
    Breached(String),
}

impl Gate {
    /// Whether failures so far breach the gate. Looked at whenever something changes.
    pub fn failures(&self, tally: &Tally) -> GateVerdict {
        let (failed, finished) = (tally.failed, tally.finished());
        if failed >= self.min_failures.max(1) && self.max_failure.is_exceeded_by(failed, finished) {
            return GateVerdict::Breached(format!(
                "{failed} of {finished} finished devices failed; the limit is {} from {} failures on",
                self.max_failure,
                self.min_failures.max(1),
            ));
        }
        GateVerdict::Holds
    }

    /// Whether enough devices are healthy, when a wave is over.
    pub fn success(&self, tally: &Tally) -> GateVerdict {
        let (healthy, finished) = (tally.healthy, tally.finished());
        let short = u128::from(healthy) * 10_000
            < u128::from(finished) * u128::from(self.min_success.get());
        if short {
            return GateVerdict::Breached(format!(
                "only {healthy} of {finished} finished devices are healthy; {} must be",
                self.min_success,
            ));
        }
        GateVerdict::Holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate {
            max_failure: BasisPoints::new(200).unwrap(),
            min_failures: 2,
            min_success: BasisPoints::new(9_500).unwrap(),
            soak: Duration::from_mins(1),
            on_breach: OnBreach::Halt,
        }
    }

    fn tally(healthy: u64, failed: u64) -> Tally {
        Tally {
            healthy,
            failed,
            ..Tally::default()
        }
    }

    #[test]
    fn two_of_four_halt_a_two_percent_limit_and_one_of_two_does_not() {
        assert!(matches!(
            gate().failures(&tally(2, 2)),
            GateVerdict::Breached(_)
        ));
        assert_eq!(gate().failures(&tally(1, 1)), GateVerdict::Holds);
        assert_eq!(gate().failures(&tally(98, 2)), GateVerdict::Holds);
        assert!(matches!(
            gate().failures(&tally(97, 3)),
            GateVerdict::Breached(_)
        ));
    }

    #[test]
    fn a_wave_that_is_over_needs_its_share_of_healthy_devices() {
        assert!(matches!(
            gate().success(&tally(0, 1)),
            GateVerdict::Breached(_)
        ));
        assert_eq!(gate().success(&tally(19, 1)), GateVerdict::Holds);
        assert_eq!(gate().success(&tally(0, 0)), GateVerdict::Holds);
    }
}

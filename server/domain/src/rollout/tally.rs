//! Counts of the outcomes of a rollout's exposed devices.

use tidegate_protocol::DeploymentState;

use crate::deployment::DeploymentFacts;

/// Outcome a deployment counts as. Stored beside it, so that a fleet is counted by adding up, not
/// by reading rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Offered or downloading: a cancel is still enough. A failed attempt that is retried
    /// automatically counts here.
    Waiting,
    /// Installing or starting the new release.
    Taking,
    /// Healthy, with the rollback window open.
    Probation,
    /// Healthy, with the rollback window over.
    Succeeded,
    /// Failed, or rolled back because the release was bad.
    Failed,
    /// Took the update and was not heard from again in time.
    Silent,
    /// Not heard from in time and took nothing yet, or kept from it by its own machine in each attempt (no
    /// room, no right to write): says nothing about the release.
    Unreached,
    /// Returning.
    Returning,
    /// Rolled back by order.
    Returned,
    /// Ordered back and cannot go back.
    Stuck,
    /// Cancelled before it switched.
    CalledOff,
}

tidegate_protocol::words!(Outcome("outcome") {
    Waiting = "waiting",
    Taking = "taking",
    Probation = "probation",
    Succeeded = "succeeded",
    Failed = "failed",
    Silent = "silent",
    Unreached = "unreached",
    Returning = "returning",
    Returned = "returned",
    Stuck = "stuck",
    CalledOff = "called_off",
});

impl Outcome {
    /// Outcome of a deployment in a rollout that allows each device `max_attempts` attempts.
    pub fn of(deployment: &DeploymentFacts, max_attempts: u32) -> Self {
        use DeploymentState as S;
        match deployment.state {
            S::Offered | S::Deferred | S::Downloading => Self::Waiting,
            S::Installing | S::Verifying => Self::Taking,
            S::Failed if deployment.is_stuck() => Self::Stuck,
            S::Failed if deployment.may_repeat(max_attempts) => Self::Waiting,
            S::Probation => Self::Probation,
            S::Succeeded => Self::Succeeded,
            S::Failed if deployment.is_of_the_place() => Self::Unreached,
            S::Failed => Self::Failed,
            S::TimedOut if deployment.took => Self::Silent,
            S::TimedOut => Self::Unreached,
            S::RollingBack => Self::Returning,
            S::RolledBack if deployment.came_back_by_itself() => Self::Failed,
            S::RolledBack => Self::Returned,
            S::Cancelled | S::Superseded => Self::CalledOff,
        }
    }

    /// Returns whether it tells how the release does on the device.
    pub fn is_known(self) -> bool {
        matches!(
            self,
            Self::Probation | Self::Succeeded | Self::Failed | Self::Silent
        )
    }
}

/// Counts of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    counts: [u64; Outcome::ALL.len()],
    /// Devices taking the update now that have missed their usual check-in.
    pub quiet_taking: u64,
    /// Devices in probation that have missed their usual check-in.
    pub quiet_probation: u64,
    /// Number of devices that had finished when the now silent ones should have; `None` until the
    /// rollout has been watched for that long.
    pub settled: Option<u64>,
}

impl Tally {
    /// Number of deployments with an outcome.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.counts[outcome as usize]
    }

    /// Adds `count` deployments to an outcome.
    pub fn add(&mut self, outcome: Outcome, count: u64) {
        self.counts[outcome as usize] += count;
    }

    /// Returns a copy with a count set; for tests and snapshots.
    pub fn with(mut self, outcome: Outcome, count: u64) -> Self {
        self.counts[outcome as usize] = count;
        self
    }

    /// Returns a copy without the failures and the silence that a person has accepted.
    pub fn excusing(mut self, failed: u64, silent: u64) -> Self {
        let failures = &mut self.counts[Outcome::Failed as usize];
        *failures = failures.saturating_sub(failed);
        let lost = &mut self.counts[Outcome::Silent as usize];
        let known = silent.min(*lost);
        *lost -= known;
        let mut rest = silent - known;
        for quiet in [&mut self.quiet_taking, &mut self.quiet_probation] {
            let less = rest.min(*quiet);
            *quiet -= less;
            rest -= less;
        }
        self
    }

    /// Moves one deployment from one outcome to another.
    pub fn moved(&mut self, from: Option<Outcome>, to: Outcome) {
        if let Some(from) = from {
            let count = &mut self.counts[from as usize];
            *count = count.saturating_sub(1);
        }
        self.counts[to as usize] += 1;
    }

    /// Number of devices that have a deployment.
    pub fn exposed(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Offered or under way, not healthy yet.
    pub fn in_flight(&self) -> u64 {
        self.get(Outcome::Waiting) + self.get(Outcome::Taking)
    }

    /// On the new release, healthy and heard from.
    pub fn healthy(&self) -> u64 {
        (self.get(Outcome::Probation) + self.get(Outcome::Succeeded))
            .saturating_sub(self.quiet_probation)
    }

    /// Failed, or rolled back because the release was bad.
    pub fn failed(&self) -> u64 {
        self.get(Outcome::Failed)
    }

    /// Took the update and are not heard from.
    pub fn silent(&self) -> u64 {
        self.get(Outcome::Silent) + self.quiet_taking + self.quiet_probation
    }

    /// Devices with a known outcome that are heard from.
    pub fn finished(&self) -> u64 {
        self.healthy() + self.failed()
    }

    /// Devices that took the update long enough ago for their silence to show.
    pub fn judged(&self) -> u64 {
        let finished = self.finished();
        self.settled.map_or(finished, |then| then.min(finished)) + self.silent()
    }

    /// Devices still to come back before a rollback is over.
    pub fn not_back(&self) -> u64 {
        self.in_flight()
            + self.get(Outcome::Probation)
            + self.get(Outcome::Succeeded)
            + self.get(Outcome::Silent)
            + self.get(Outcome::Returning)
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let mut sum = Self {
            settled: Some(0),
            ..Self::default()
        };
        for tally in all {
            for (total, count) in sum.counts.iter_mut().zip(tally.counts) {
                *total += count;
            }
            sum.quiet_taking += tally.quiet_taking;
            sum.quiet_probation += tally.quiet_probation;
            sum.settled = sum.settled.zip(tally.settled).map(|(a, b)| a + b);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidegate_protocol::{DeploymentId, Reason, Timestamp};

    use super::*;

    fn failed(reason: Reason, times: u32) -> DeploymentFacts {
        DeploymentFacts {
            id: DeploymentId::from_random([1; 16]),
            wave: 0,
            state: DeploymentState::Failed,
            from: Some("1.0.0".parse().unwrap()),
            leg: "1.1.0".parse().unwrap(),
            reason: Some(reason.into()),
            attempts: times,
            took: false,
            failures: BTreeMap::from([(reason, times)]),
            updated_at: Timestamp::ZERO,
        }
    }

    #[test]
    fn a_device_that_its_own_machine_kept_from_the_update_is_no_evidence_against_the_release() {
        let max_attempts = 100;
        for reason in Reason::ALL.iter().filter(|r| r.is_failure()) {
            let times = reason.retry_budget().max(1);
            let outcome = Outcome::of(&failed(*reason, times), max_attempts);
            let tally = Tally::default().with(outcome, 1);
            let counted = (tally.failed(), tally.finished(), tally.judged());
            if reason.is_of_the_place() {
                let before = Outcome::of(&failed(*reason, times - 1), max_attempts);
                assert_eq!(
                    (before, outcome),
                    (Outcome::Waiting, Outcome::Unreached),
                    "{reason}"
                );
                assert_eq!(counted, (0, 0, 0), "{reason}");
                // It is exposed, and nobody waits for it any more.
                assert_eq!((tally.exposed(), tally.in_flight()), (1, 0), "{reason}");
            } else if *reason != Reason::NoPreviousSlot {
                assert_eq!((outcome, counted.0), (Outcome::Failed, 1), "{reason}");
            }
        }
    }
}

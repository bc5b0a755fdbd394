//! Answer to a device, and the chain of checks that led to it.

use tidegate_protocol::{DeploymentId, Explained, RolloutId, Timestamp, Version};

/// Answer to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A new deployment, to be committed before the device is told.
    Offer(Offer),
    /// The offer of an existing deployment again.
    Repeat {
        /// The rollout it belongs to.
        rollout: RolloutId,
        /// The deployment.
        deployment: DeploymentId,
        /// The release of the present leg.
        leg: Version,
        /// The rollback window, in seconds.
        rollback_window_s: u32,
        /// Seconds within which the device must switch, or ask again.
        switch_within_s: Option<u32>,
    },
    /// Return to the release that ran before.
    Return {
        /// The rollout it belongs to.
        rollout: RolloutId,
        /// The deployment.
        deployment: DeploymentId,
        /// The release to return to.
        to: Version,
    },
    /// Cancel a deployment.
    Cancel {
        /// The rollout it belongs to.
        rollout: RolloutId,
        /// The deployment.
        deployment: DeploymentId,
    },
    /// The device was ordered back, but runs another release by now.
    Left {
        /// The deployment.
        deployment: DeploymentId,
    },
    /// The device was ordered back and cannot go back.
    Stuck {
        /// The deployment.
        deployment: DeploymentId,
    },
    /// Nothing new.
    Nothing,
}

/// A new deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The rollout it belongs to.
    pub rollout: RolloutId,
    /// Generation of the rollout that the offer rests on.
    pub generation: i64,
    /// Index of the wave that admits the device.
    pub wave: u32,
    /// The release of the first leg.
    pub leg: Version,
    /// Rollback window of this leg, in seconds; 0 for every leg before the last.
    pub rollback_window_s: u32,
    /// Seconds within which the device must switch, or ask again: its maintenance window closes.
    pub switch_within_s: Option<u32>,
    /// The deployment being retried, if any.
    pub retry_of: Option<DeploymentId>,
}

/// A verdict with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// The reason.
    pub reason: Explained,
    /// Earliest time at which it makes sense to ask again, if known.
    pub again: Option<Timestamp>,
    /// The rollout that it is about, if any.
    pub rollout: Option<RolloutId>,
}

/// One link of the chain that led to a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The rollout checked; `None` for the device itself.
    pub rollout: Option<RolloutId>,
    /// Name of the check, for example "channel".
    pub check: &'static str,
    /// Whether the device passed it.
    pub passed: bool,
    /// Finding, in words for people.
    pub found: String,
}

/// Receives the chain of checks. The check-in path passes `()`, which costs nothing.
pub trait Trace {
    /// Whether anybody listens; if not, nothing is computed that the decision does not need.
    const LISTENS: bool;

    /// Records one link; `found` is only rendered by implementations that keep it.
    fn step(
        &mut self,
        rollout: Option<RolloutId>,
        check: &'static str,
        passed: bool,
        found: impl FnOnce() -> String,
    );
}

impl Trace for () {
    const LISTENS: bool = false;

    fn step(&mut self, _: Option<RolloutId>, _: &'static str, _: bool, _: impl FnOnce() -> String) {
    }
}

impl Trace for Vec<Step> {
    const LISTENS: bool = true;

    fn step(
        &mut self,
        rollout: Option<RolloutId>,
        check: &'static str,
        passed: bool,
        found: impl FnOnce() -> String,
    ) {
        self.push(Step {
            rollout,
            check,
            passed,
            found: found(),
        });
    }
}

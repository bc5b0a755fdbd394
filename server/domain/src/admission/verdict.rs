//! What a device is told, and the chain that led there.

use tidegate_protocol::{DeploymentId, Explained, RolloutId, Timestamp, Version};

/// What a device is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A new deployment, to be written before it is told.
    Offer(Offer),
    /// The offer of a deployment that is there already.
    Repeat {
        /// In which rollout.
        rollout: RolloutId,
        /// Which deployment.
        deployment: DeploymentId,
        /// The release of the present leg.
        leg: Version,
        /// The rollback window, in seconds.
        window_s: u32,
        /// Seconds within which the device must switch, or ask again.
        switch_within_s: Option<u32>,
    },
    /// Return to what ran before.
    Return {
        /// In which rollout.
        rollout: RolloutId,
        /// Which deployment.
        deployment: DeploymentId,
        /// The release to return to.
        to: Version,
    },
    /// Call a deployment off.
    Cancel {
        /// In which rollout.
        rollout: RolloutId,
        /// Which deployment.
        deployment: DeploymentId,
    },
    /// The device was to return and runs something else by now.
    Left {
        /// Which deployment.
        deployment: DeploymentId,
    },
    /// The device was to return and cannot.
    Stuck {
        /// Which deployment.
        deployment: DeploymentId,
    },
    /// Nothing new.
    Nothing,
}

/// A new deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// In which rollout.
    pub rollout: RolloutId,
    /// With which generation.
    pub generation: i64,
    /// In which wave.
    pub wave: u32,
    /// The release of the first leg.
    pub leg: Version,
    /// The rollback window of this leg, in seconds: an earlier leg of several has none.
    pub window_s: u32,
    /// Seconds within which the device must switch, or ask again: its maintenance window closes.
    pub switch_within_s: Option<u32>,
    /// The deployment that is tried again, if there was one.
    pub retry_of: Option<DeploymentId>,
}

/// A verdict with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the device is told.
    pub verdict: Verdict,
    /// Why.
    pub reason: Explained,
    /// Before this there is no point in asking again, where that is known.
    pub again: Option<Timestamp>,
    /// The rollout that it is about, where there is one.
    pub rollout: Option<RolloutId>,
}

/// One link of the chain that led to a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The rollout that was looked at; `None` for the device itself.
    pub rollout: Option<RolloutId>,
    /// What was looked at, for example "channel".
    pub check: &'static str,
    /// Whether the device got past it.
    pub passed: bool,
    /// What was found.
    pub found: String,
}

/// Listens to the chain. The check-in path passes `()`, which costs nothing.
pub trait Trace {
    /// Whether anybody listens: only then more is found out than the decision needs.
    const LISTENS: bool;

    /// One link; `found` is only rendered by those who keep it.
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

//! Ways back that a device will have, foreseen before anything is installed on it.

use std::collections::BTreeMap;

use tidegate_protocol::{DeploymentId, DeploymentState, Explained, Reason, Timestamp, Version};

use super::{DeviceFacts, Keeps, ProductPlan, way_back};
use crate::deployment::DeploymentFacts;

/// Limit on the way back of a device from a release that it has not got yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// An order back would be refused at any time.
    Never,
    /// It keeps the old version for the rollback window, and cannot fetch it after that.
    AfterWindow,
    /// The older release is below what the product's version gate lets in.
    TurnedAway,
    /// Nothing runs on it now: there is no older release to lose.
    FirstInstall,
}

tidegate_protocol::words!(Limit("limit of a way back") {
    Never = "never",
    AfterWindow = "after_window",
    TurnedAway = "turned_away",
    FirstInstall = "first_install",
});

/// Returns what limits a device's way back once it has installed `legs`, in order of weight; nothing if
/// it could be ordered back at any time. Decides by [`way_back`], as the order itself will: what is
/// shown before a rollout is what its rollback meets.
pub fn foresee(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    legs: &[Version],
) -> Vec<(Limit, Explained)> {
    let (Some(goal), Some(from)) = (legs.last(), device.release) else {
        return vec![(Limit::FirstInstall, Reason::NoPreviousSlot.into())];
    };
    // Its other slot holds what ran before the last leg.
    let kept = legs.iter().rev().nth(1).unwrap_or(from);
    let there = updated(from, goal);
    let of_window = DeviceFacts {
        release: Some(goal),
        keeps: Keeps::Release(kept),
        ..device.clone()
    };
    if let Err(why) = way_back(plan, &of_window, &there) {
        return vec![(Limit::Never, why)];
    }
    let after = DeviceFacts {
        keeps: Keeps::Nothing,
        ..of_window
    };
    let mut limits = Vec::new();
    if let Err(why) = way_back(plan, &after, &there) {
        limits.push((Limit::AfterWindow, why));
    }
    if let Some(oldest) = plan.gate.min_version.as_ref().filter(|min| from < *min) {
        let text = format!("{from}; the version gate lets {oldest} and newer in");
        limits.push((
            Limit::TurnedAway,
            Explained::new(Reason::ClientTooOld, text),
        ));
    }
    limits
}

/// Reason that a device could not be ordered back, once its rollback window is over, to the release that
/// it runs now; `None` if it could, or runs none.
pub fn barred_later(plan: &ProductPlan, device: &DeviceFacts<'_>) -> Option<Explained> {
    let from = device.release?;
    // The release that it will have left by then is not known: nothing is held against it.
    let after = DeviceFacts {
        release: None,
        keeps: Keeps::Nothing,
        ..device.clone()
    };
    way_back(plan, &after, &updated(from, from)).err()
}

/// Deployment of a device that was updated and is healthy.
fn updated(from: &Version, goal: &Version) -> DeploymentFacts {
    DeploymentFacts {
        id: DeploymentId::from_random([0; 16]),
        wave: 0,
        state: DeploymentState::Probation,
        from: Some(from.clone()),
        leg: goal.clone(),
        reason: None,
        attempts: 1,
        took: true,
        failures: BTreeMap::new(),
        updated_at: Timestamp::ZERO,
    }
}

//! Whether a rollout concerns a device at all: what does not change from one minute to the next.

use tidegate_protocol::{Channel, Platform, Reason, Version};

use super::ProductPlan;

/// What decides whether a rollout concerns a device.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Whether it may take part.
    pub active: bool,
    /// Its platform.
    pub platform: &'a Platform,
    /// Its channel.
    pub channel: Channel,
    /// What runs on it.
    pub release: Option<&'a Version>,
    /// Whether it is kept from the goal.
    pub quarantined: bool,
}

/// Why a rollout of `goal` does not concern a device that it selects; `None` when it does.
pub fn not_concerned(plan: &ProductPlan, goal: &Version, device: Candidate<'_>) -> Option<Reason> {
    if !device.active {
        return Some(Reason::DeviceRevoked);
    }
    match device.release {
        Some(release) if release == goal => return Some(Reason::UpToDate),
        Some(release) if release > goal => return Some(Reason::NewerInstalled),
        _ => {}
    }
    if device.quarantined {
        return Some(Reason::Quarantined);
    }
    let Some(release) = plan.releases.get(goal) else {
        return Some(Reason::ReleaseNotOffered);
    };
    if !device.channel.takes(release.stage) {
        return Some(Reason::ChannelDoesNotTakeStage);
    }
    if !release.artifacts.contains_key(device.platform) {
        return Some(Reason::NoArtifactForPlatform);
    }
    None
}

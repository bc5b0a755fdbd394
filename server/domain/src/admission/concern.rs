//! Whether a rollout concerns a device at all: the checks that rarely change.

use tidegate_protocol::{Channel, Platform, Reason, Version};

use super::ProductPlan;

/// Facts that decide whether a rollout concerns a device.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Whether it may take part.
    pub active: bool,
    /// Its platform.
    pub platform: &'a Platform,
    /// Its channel.
    pub channel: Channel,
    /// The release that it runs, if any.
    pub release: Option<&'a Version>,
    /// Whether the goal is quarantined for it.
    pub quarantined: bool,
}

/// Reason a rollout of `goal` does not concern a device that it selects; `None` if it does.
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

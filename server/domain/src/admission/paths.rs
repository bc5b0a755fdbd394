//! Paths of one device: to a goal, and back.

use std::collections::BTreeMap;

use tidegate_protocol::{Explained, Reason, Stage, Version};

use super::{ArtifactPlan, DeviceFacts, ProductPlan};
use crate::deployment::DeploymentFacts;
use crate::path::{self, Graph, NoPath, Node};

/// Returns a device's cheapest path to a goal, or the reason there is none. A stepping stone at its
/// end of life may still be installed: it is not a goal, but without it older devices would be
/// stranded.
pub fn way_to(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    goal: &Version,
    whole_allowed: bool,
) -> Result<path::Path, Explained> {
    let signed = plan.signed.get(&device.channel);
    let mut graph = Graph::new();
    for (version, release) in &plan.releases {
        let Some(artifact) = release.artifacts.get(device.platform) else {
            if version == goal {
                let text = format!("{goal} for {}", device.platform);
                return Err(Explained::new(Reason::NoArtifactForPlatform, text));
            }
            continue;
        };
        let offered = device.channel.takes(release.stage)
            || (release.stage == Stage::Eol && artifact.stepping_stone);
        let usable = offered
            && signed.is_none_or(|signed| signed.allows(version))
            && !device.quarantine.contains(version);
        graph.insert(
            version.clone(),
            Node {
                usable,
                stepping_stone: artifact.stepping_stone && release.stage != Stage::Withdrawn,
                min_from: artifact.min_from.clone(),
                full_bytes: whole_allowed.then_some(artifact.full_bytes),
                deltas: deltas_by_release(plan, device, artifact),
            },
        );
    }
    path::solve(&graph, device.release, goal).map_err(|error| {
        let code = match error {
            NoPath::GoalNotUsable(_) => Reason::ReleaseNotOffered,
            NoPath::NotForward(_) => Reason::NewerInstalled,
            NoPath::OnlyWhole(_) => Reason::MeteredLink,
            NoPath::Blocked(_) | NoPath::SourceTooOld { .. } => Reason::NoPath,
        };
        Explained::new(code, error.to_string())
    })
}

/// Checks that a device can be ordered back from a deployment: to the version that it keeps, which it
/// has run and needs no listing for, or to one that the signed metadata of its channel lists. The
/// stage of the older release does not matter: the device ran it before. What people signed against
/// it (no rollback, a floor, an end of life) holds in both cases: the device would refuse the order.
pub fn way_back(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    deployment: &DeploymentFacts,
) -> Result<(), Explained> {
    let Some(to) = &deployment.from else {
        return Err(Reason::NoPreviousSlot.into());
    };
    allowed_back(plan, device, device.release, to)?;
    if device.keeps_for(deployment) {
        return Ok(());
    }
    listed(plan, device, to)
}

/// Checks that nothing that people signed bars the way from one release back to another.
fn allowed_back(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    leaves: Option<&Version>,
    to: &Version,
) -> Result<(), Explained> {
    let leaves = leaves
        .and_then(|release| plan.releases.get(release))
        .and_then(|release| release.artifacts.get(device.platform));
    if leaves.is_some_and(|a| !a.allow_rollback) {
        let text = "the running release is signed with rollback not allowed";
        return Err(Explained::new(Reason::RollbackNotAllowed, text));
    }
    if plan
        .signed
        .get(&device.channel)
        .is_some_and(|signed| !signed.allows(to))
    {
        let text = format!("the signed policy of channel {} bars {to}", device.channel);
        return Err(Explained::new(Reason::RollbackNotAllowed, text));
    }
    Ok(())
}

/// Checks that a device can fetch a release that it no longer keeps, and would take it.
fn listed(plan: &ProductPlan, device: &DeviceFacts<'_>, to: &Version) -> Result<(), Explained> {
    let (platform, channel) = (device.platform, device.channel);
    let release = plan.releases.get(to);
    let new = "publish its software under a new version, and roll that out";
    let text = match release.map(|r| (r.artifacts.contains_key(platform), r.stage)) {
        None => format!("{to} was never published; publish it for {platform} and promote it"),
        Some((false, Stage::Draft)) => {
            format!("{to} has no artifact for {platform}; publish one")
        }
        // A release never changes.
        Some((false, _)) => format!("{to} has no artifact for {platform}; {new}"),
        Some((true, stage)) => {
            let image = (to.clone(), platform.clone());
            let signed = plan.signed.get(&channel);
            if signed.is_none_or(|signed| signed.listed.contains(&image)) {
                return Ok(());
            }
            let remedy = match stage {
                // A promotion would be refused.
                Stage::Withdrawn | Stage::Eol => new,
                Stage::Draft | Stage::Alpha | Stage::Beta | Stage::Ga => "promote it to there",
            };
            format!("{to} is not signed for channel {channel}; {remedy}")
        }
    };
    Err(Explained::new(Reason::RollbackNotAllowed, text))
}

/// Keys an artifact's deltas by release: deltas start from images, the solver works with releases.
/// For the first leg the image that the device really runs counts: a tampered installation has
/// another image and gets no delta.
fn deltas_by_release(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    artifact: &ArtifactPlan,
) -> BTreeMap<Version, u64> {
    if artifact.deltas.is_empty() {
        return BTreeMap::new();
    }
    plan.releases
        .iter()
        .filter_map(|(version, release)| {
            let image = if device.release == Some(version) {
                device.image?
            } else {
                release.artifacts.get(device.platform)?.image.sha256
            };
            Some((version.clone(), *artifact.deltas.get(&image)?))
        })
        .collect()
}

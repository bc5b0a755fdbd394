//! What a device that checks in is told, and the whole chain of why.

mod facts;
mod verdict;

pub use facts::{
    ArtifactPlan, DeploymentFacts, DeviceFacts, FleetPlan, ProductPlan, ReleasePlan, RolloutPlan,
    WavePlan,
};
pub use verdict::{Decision, Offer, Step, Trace, Verdict};

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_protocol::{DeploymentState, Explained, Reason, Stage, Timestamp, Version};

use crate::path::{self, Graph, NoPath, Node};
use crate::rollout::{RolloutState, WaveState};
use crate::selector;

/// How long a device waits before attempt `attempts + 1`: 30 s, doubled each time, at most 1 h.
pub fn back_off(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(7);
    Duration::from_secs((30 << doublings).min(3_600))
}

/// Decides what a device is told. Costs no more than a look at each rollout of its product.
pub fn decide(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    now: Timestamp,
    trace: &mut impl Trace,
) -> Decision {
    if !device.active {
        trace.step(None, "device", false, || "revoked".into());
        return nothing(Reason::DeviceRevoked);
    }
    trace.step(None, "device", true, || {
        let runs = device
            .release
            .map_or_else(|| "nothing".to_owned(), ToString::to_string);
        format!(
            "active, runs {runs}, channel {}, region {}",
            device.channel, device.region
        )
    });
    if let Some(decision) = decide_ongoing(plan, device, trace) {
        return decision;
    }
    // The reason that is shown is the one of the rollout in which the device came furthest.
    let mut best: Option<(usize, Explained)> = None;
    for rollout in &plan.rollouts {
        match consider(plan, rollout, device, now, trace) {
            Ok(offer) => {
                let detail = format!("{} by rollout {}", offer.leg, offer.rollout);
                return Decision {
                    verdict: Verdict::Offer(offer),
                    reason: Explained::new(Reason::UpdateOffered, detail),
                };
            }
            Err((depth, reason)) => {
                if best.as_ref().is_none_or(|(d, _)| depth > *d) {
                    best = Some((depth, reason));
                }
            }
        }
    }
    let reason = best.map_or(Reason::NoRollout.into(), |(_, reason)| reason);
    Decision {
        verdict: Verdict::Nothing,
        reason,
    }
}

fn nothing(reason: impl Into<Explained>) -> Decision {
    Decision {
        verdict: Verdict::Nothing,
        reason: reason.into(),
    }
}

/// Deployments that the device is in already come before new ones, orders back before all.
fn decide_ongoing(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    trace: &mut impl Trace,
) -> Option<Decision> {
    let mut ongoing = None;
    for rollout in &plan.rollouts {
        let Some(deployment) = device.deployments.get(&rollout.id) else {
            continue;
        };
        let state = deployment.state;
        let open = !state.is_final()
            || (state == DeploymentState::Succeeded && rollout.state == RolloutState::RollingBack);
        if !open {
            continue;
        }
        let standing = || {
            format!(
                "deployment {} is {state}, rollout is {}",
                deployment.id, rollout.state
            )
        };
        if rollout.state == RolloutState::RollingBack && state.has_switched() {
            trace.step(Some(rollout.id), "rollback", false, standing);
            return Some(return_order(rollout, deployment, device));
        }
        if rollout.state.calls_off() && !state.has_switched() {
            trace.step(Some(rollout.id), "called off", false, standing);
            let (rollout, deployment) = (rollout.id, deployment.id);
            return Some(Decision {
                verdict: Verdict::Cancel {
                    rollout,
                    deployment,
                },
                reason: Reason::CancelOrdered.into(),
            });
        }
        trace.step(Some(rollout.id), "under way", false, standing);
        ongoing.get_or_insert_with(|| go_on(plan, rollout, deployment, device));
    }
    ongoing
}

fn return_order(
    rollout: &RolloutPlan,
    deployment: &DeploymentFacts,
    device: &DeviceFacts<'_>,
) -> Decision {
    match &deployment.from {
        // It is back already and its report is on the way, or it never left.
        Some(from) if device.release == Some(from) => nothing(Reason::RolloutRollingBack),
        Some(from) => Decision {
            verdict: Verdict::Return {
                rollout: rollout.id,
                deployment: deployment.id,
                to: from.clone(),
            },
            reason: Explained::new(Reason::RollbackOrdered, format!("to {from}")),
        },
        None => nothing(Reason::NoPreviousSlot),
    }
}

fn go_on(
    plan: &ProductPlan,
    rollout: &RolloutPlan,
    deployment: &DeploymentFacts,
    device: &DeviceFacts<'_>,
) -> Decision {
    let reason = match deployment.state {
        DeploymentState::Probation => Explained::from(Reason::ProbationOpen),
        state => Explained::new(Reason::InProgress, format!("{state} {}", deployment.leg)),
    };
    let verdict = match deployment.state {
        DeploymentState::Offered | DeploymentState::Deferred => {
            // The next leg follows from what runs now: an earlier leg may be done.
            let path = solve_path(plan, device, &rollout.goal);
            let next = path.ok().and_then(|p| p.legs.into_iter().next());
            let leg = next.unwrap_or_else(|| deployment.leg.clone());
            Verdict::Repeat {
                rollout: rollout.id,
                deployment: deployment.id,
                window_s: if leg == rollout.goal {
                    rollout.window_s
                } else {
                    0
                },
                leg,
            }
        }
        _ => Verdict::Nothing,
    };
    Decision { verdict, reason }
}

/// One rollout for one device. The depth of a refusal says how far the device came.
fn consider(
    plan: &ProductPlan,
    rollout: &RolloutPlan,
    device: &DeviceFacts<'_>,
    now: Timestamp,
    trace: &mut impl Trace,
) -> Result<Offer, (usize, Explained)> {
    let id = Some(rollout.id);
    let goal = &rollout.goal;
    let mut depth = 0;
    let mut check = |name: &'static str, refusal: Option<Explained>, found: &dyn Fn() -> String| {
        depth += 1;
        trace.step(id, name, refusal.is_none(), || {
            refusal.as_ref().map_or_else(found, ToString::to_string)
        });
        refusal.map_or(Ok(()), |refusal| Err((depth, refusal)))
    };

    let newer = match device.release {
        Some(release) if release == goal => Some(Reason::UpToDate.into()),
        Some(release) if release > goal => Some(Explained::new(
            Reason::NewerInstalled,
            format!("{release} over {goal}"),
        )),
        _ => None,
    };
    check("version", newer, &|| {
        format!("{goal} is newer than what runs")
    })?;

    let stage = plan
        .releases
        .get(goal)
        .map_or(Stage::Withdrawn, |r| r.stage);
    let refusal = if stage.channels().is_empty() {
        Some(Explained::new(
            Reason::ReleaseNotOffered,
            format!("{goal} is {stage}"),
        ))
    } else if device.channel.takes(stage) {
        None
    } else {
        let text = format!(
            "{goal} is {stage}, the device takes channel {}",
            device.channel
        );
        Some(Explained::new(Reason::ChannelDoesNotTakeStage, text))
    };
    check("channel", refusal, &|| {
        format!("channel {} takes {stage}", device.channel)
    })?;

    let facts = selector::Facts {
        region: device.region,
        platform: device.platform,
        labels: device.labels,
    };
    let mine: Vec<(u32, &WavePlan)> = (0..)
        .zip(&rollout.waves)
        .filter(|(_, w)| w.selector.matches(facts))
        .collect();
    let refusal = mine.is_empty().then(|| Reason::SelectorMismatch.into());
    check("selector", refusal, &|| {
        format!("selected by {} waves", mine.len())
    })?;

    let refusal = device
        .quarantine
        .contains(goal)
        .then(|| Explained::new(Reason::Quarantined, format!("{goal}; a person can lift it")));
    check("quarantine", refusal, &|| "not kept from it".into())?;

    let refusal = match rollout.state {
        RolloutState::Running | RolloutState::Completed => None,
        RolloutState::Paused => Some(Reason::RolloutPaused),
        RolloutState::Halted => Some(Reason::RolloutHalted),
        RolloutState::RollingBack | RolloutState::RolledBack => Some(Reason::RolloutRollingBack),
        RolloutState::Draft
        | RolloutState::AwaitingApproval
        | RolloutState::Scheduled
        | RolloutState::Cancelled => Some(Reason::RolloutNotStarted),
    };
    check("rollout", refusal.map(Into::into), &|| {
        format!("rollout is {}", rollout.state)
    })?;

    let previous = device.deployments.get(&rollout.id);
    check(
        "attempts",
        previous.and_then(|p| attempts_refusal(p, rollout, now)),
        &|| {
            previous.map_or_else(
                || "first attempt".into(),
                |p| format!("{} so far", p.attempts),
            )
        },
    )?;

    let path = solve_path(plan, device, goal);
    let refusal = path.as_ref().err().cloned();
    check("path", refusal, &|| {
        let legs = path
            .as_ref()
            .map(|p| p.legs.iter().map(ToString::to_string).collect::<Vec<_>>());
        legs.unwrap_or_default().join(" -> ")
    })?;
    let Ok(path) = path else {
        return Err((0, Reason::NoPath.into()));
    };

    let place = device.ring.place(rollout.salt);
    let admitted = mine
        .iter()
        .find(|(_, w)| w.state != WaveState::Pending && w.frontier.admits(place));
    let refusal = admitted.is_none().then(|| wave_refusal(&mine));
    check("wave", refusal, &|| {
        admitted.map_or_else(String::new, |(_, w)| format!("admitted by wave {}", w.name))
    })?;

    let refusal = device.battery.is_low().then(|| {
        let percent = device.battery.percent.unwrap_or(0);
        Explained::new(Reason::BatteryLow, format!("battery {percent} %"))
    });
    check("battery", refusal, &|| "enough, or on mains".into())?;

    let leg = path.legs.first().unwrap_or(goal).clone();
    Ok(Offer {
        rollout: rollout.id,
        generation: rollout.generation,
        wave: admitted.map_or(0, |(index, _)| *index),
        window_s: if leg == *goal { rollout.window_s } else { 0 },
        leg,
        retry_of: previous.map(|p| p.id),
    })
}

fn wave_refusal(mine: &[(u32, &WavePlan)]) -> Explained {
    let open = mine
        .iter()
        .rev()
        .find(|(_, w)| w.state != WaveState::Pending);
    match (open, mine.first()) {
        (Some((_, wave)), _) => {
            Explained::new(Reason::BehindFrontier, format!("wave {}", wave.name))
        }
        (None, Some((_, wave))) => {
            Explained::new(Reason::WaveNotStarted, format!("wave {}", wave.name))
        }
        (None, None) => Reason::SelectorMismatch.into(),
    }
}

fn attempts_refusal(
    previous: &DeploymentFacts,
    rollout: &RolloutPlan,
    now: Timestamp,
) -> Option<Explained> {
    let reason = previous.reason.as_ref().map(|r| r.code);
    match previous.state {
        DeploymentState::Failed | DeploymentState::TimedOut => {
            let timed_out = previous.state == DeploymentState::TimedOut;
            if !timed_out && !reason.is_some_and(Reason::retryable) {
                let text = reason.map_or("", Reason::text);
                return Some(Explained::new(
                    Reason::AttemptsExhausted,
                    format!("not repeated: {text}"),
                ));
            }
            if previous.attempts >= rollout.max_attempts {
                let text = format!("{} of {}", previous.attempts, rollout.max_attempts);
                return Some(Explained::new(Reason::AttemptsExhausted, text));
            }
            let wait = back_off(previous.attempts);
            let waited = now.since(previous.updated_at);
            (waited < wait).then(|| {
                let text = format!("{} of {} s", waited.as_secs(), wait.as_secs());
                Explained::new(Reason::BackOff, text)
            })
        }
        // The rollout was resumed after it had called the device off.
        DeploymentState::Cancelled | DeploymentState::Superseded => None,
        // Succeeded, yet it runs something else: someone changed it by hand.
        DeploymentState::Succeeded => None,
        DeploymentState::RolledBack => Some(Reason::Quarantined.into()),
        DeploymentState::Offered
        | DeploymentState::Deferred
        | DeploymentState::Downloading
        | DeploymentState::Installing
        | DeploymentState::Verifying
        | DeploymentState::Probation
        | DeploymentState::RollingBack => Some(Reason::InProgress.into()),
    }
}

fn solve_path(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    goal: &Version,
) -> Result<path::Path, Explained> {
    let mut graph = Graph::new();
    for (version, release) in &plan.releases {
        let Some(artifact) = release.artifacts.get(device.platform) else {
            if version == goal {
                let text = format!("{goal} for {}", device.platform);
                return Err(Explained::new(Reason::NoArtifactForPlatform, text));
            }
            continue;
        };
        let usable = device.channel.takes(release.stage) && !device.quarantine.contains(version);
        graph.insert(
            version.clone(),
            Node {
                usable,
                stepping_stone: artifact.stepping_stone && release.stage != Stage::Withdrawn,
                min_from: artifact.min_from.clone(),
                full_bytes: artifact.full_bytes,
                deltas: deltas_by_release(plan, device, artifact),
            },
        );
    }
    path::solve(&graph, device.release, goal).map_err(|error| {
        let code = match error {
            NoPath::GoalNotUsable(_) => Reason::ReleaseNotOffered,
            NoPath::NotForward(_) => Reason::NewerInstalled,
            NoPath::Blocked(_) | NoPath::SourceTooOld { .. } => Reason::NoPath,
        };
        Explained::new(code, error.to_string())
    })
}

/// Deltas start from images; the solver thinks in releases. What the device really runs counts
/// for the first leg: a tampered installation has another image and gets no delta.
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

#[cfg(test)]
mod tests;

//! Decision on a device's check-in, with the whole chain of reasons.

mod concern;
mod facts;
mod foresee;
mod moment;
mod ongoing;
mod paths;
mod retry;
mod verdict;

pub use concern::{Candidate, not_concerned};
pub use facts::{
    ArtifactPlan, DeviceFacts, FleetPlan, Keeps, ProductPlan, ReleasePlan, RolloutPlan,
    SignedPolicy, WavePlan,
};
pub use foresee::{Limit, barred_later, foresee};
pub use paths::{way_back, way_to};
pub use retry::back_off;
pub use verdict::{Decision, Offer, Step, Trace, Verdict};

pub use crate::deployment::DeploymentFacts;
pub use crate::transport::Metered;

use tidegate_protocol::{Explained, Reason, RolloutId, Stage, Timestamp};

use crate::rollout::{RolloutState, WaveState};
use moment::NotNow;
use ongoing::decide_ongoing;
use retry::attempts_refusal;

/// Decides how a device is answered. Costs no more than a look at each rollout of its product.
/// `permits` returns how many more devices a rollout may expose now.
pub fn decide(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    now: Timestamp,
    permits: &impl Fn(RolloutId) -> u64,
    trace: &mut impl Trace,
) -> Decision {
    if device.awaiting {
        trace.step(None, "device", false, || "waits to be accepted".into());
        return nothing(Reason::DeviceNotAccepted);
    }
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
    let ongoing = decide_ongoing(plan, device, now, trace);
    // The way back stays open; nothing else is told to a device whose identity is in doubt.
    let onward = |d: &Decision| matches!(d.verdict, Verdict::Repeat { .. } | Verdict::Nothing);
    if device.isolated && ongoing.as_ref().is_none_or(onward) {
        trace.step(None, "isolation", false, || "isolated".into());
        return nothing(Reason::DeviceIsolated);
    }
    if let Some(decision) = ongoing {
        return decision;
    }
    // The reason shown is that of the rollout in which the device got furthest.
    let mut best: Option<(usize, NotNow, RolloutId)> = None;
    for rollout in &plan.rollouts {
        match consider(plan, rollout, device, now, permits, trace) {
            Ok(offer) => {
                let detail = format!("{} by rollout {}", offer.leg, offer.rollout);
                return Decision {
                    verdict: Verdict::Offer(offer),
                    reason: Explained::new(Reason::UpdateOffered, detail),
                    again: None,
                    rollout: Some(rollout.id),
                };
            }
            Err((depth, refusal)) => {
                if best.as_ref().is_none_or(|(d, ..)| depth > *d) {
                    best = Some((depth, refusal, rollout.id));
                }
            }
        }
    }
    match best {
        None => nothing(Reason::NoRollout),
        Some((_, refusal, rollout)) => Decision {
            rollout: Some(rollout),
            ..not_now(refusal)
        },
    }
}

fn nothing(reason: impl Into<Explained>) -> Decision {
    not_now(reason.into().into())
}

fn not_now(refusal: NotNow) -> Decision {
    Decision {
        verdict: Verdict::Nothing,
        reason: refusal.reason,
        again: refusal.again,
        rollout: None,
    }
}

/// Checks one rollout for one device. The depth of a refusal says how far the device got.
fn consider<T: Trace>(
    plan: &ProductPlan,
    rollout: &RolloutPlan,
    device: &DeviceFacts<'_>,
    now: Timestamp,
    permits: &impl Fn(RolloutId) -> u64,
    trace: &mut T,
) -> Result<Offer, (usize, NotNow)> {
    let id = Some(rollout.id);
    let goal = &rollout.release;
    let mut depth = 0;
    let mut check = |name: &'static str, refusal: Option<NotNow>, found: &dyn Fn() -> String| {
        depth += 1;
        trace.step(id, name, refusal.is_none(), || {
            refusal
                .as_ref()
                .map_or_else(found, |refusal| refusal.reason.to_string())
        });
        refusal.map_or(Ok(()), |refusal| Err((depth, refusal)))
    };
    let always = |refusal: Option<Explained>| refusal.map(NotNow::from);

    let newer = match device.release {
        Some(release) if release == goal => Some(Reason::UpToDate.into()),
        Some(release) if release > goal => Some(Explained::new(
            Reason::NewerInstalled,
            format!("{release} over {goal}"),
        )),
        _ => None,
    };
    check("version", always(newer), &|| {
        format!("{goal} is newer than what runs")
    })?;

    let stage = plan
        .releases
        .get(goal)
        .map_or(Stage::Withdrawn, |r| r.stage);
    check(
        "channel",
        always(stage_refusal(plan, device, goal, stage)),
        &|| format!("channel {} takes {stage}", device.channel),
    )?;

    let mine: Vec<(u32, &WavePlan)> = (0..)
        .zip(&rollout.waves)
        .filter(|(_, w)| w.selector.matches(device.selectable()))
        .collect();
    let refusal = mine.is_empty().then(|| Reason::SelectorMismatch.into());
    check("selector", always(refusal), &|| {
        format!("selected by {} waves", mine.len())
    })?;

    let refusal = device.quarantine.contains(goal).then(|| {
        Explained::new(
            Reason::Quarantined,
            format!("{goal}; an operator can lift the quarantine"),
        )
    });
    check("quarantine", always(refusal), &|| "not quarantined".into())?;

    check("hold", always(moment::held(plan, device, goal)), &|| {
        "no hold applies".into()
    })?;

    let refusal = match rollout.state {
        RolloutState::Running
        | RolloutState::Completed
        | RolloutState::CompletedPartly
        | RolloutState::NothingToDo => None,
        RolloutState::Paused => Some(Reason::RolloutPaused),
        RolloutState::Halted => Some(Reason::RolloutHalted),
        RolloutState::RollingBack | RolloutState::RolledBack | RolloutState::RolledBackPartly => {
            Some(Reason::RolloutRollingBack)
        }
        RolloutState::AwaitingApproval => Some(Reason::ApprovalNeeded),
        RolloutState::Draft | RolloutState::Scheduled | RolloutState::Cancelled => {
            Some(Reason::RolloutNotStarted)
        }
    };
    check("rollout", always(refusal.map(Into::into)), &|| {
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

    let refusal = moment::metered_out(rollout, device);
    check("link", always(refusal), &|| {
        if device.metered {
            "metered"
        } else {
            "not metered"
        }
        .into()
    })?;

    let place = device.ring.place(rollout.salt);
    let admitted = mine
        .iter()
        .find(|(_, w)| w.state != WaveState::Pending && w.frontier.admits(place));
    let refusal = admitted.is_none().then(|| wave_refusal(&mine));
    let passed = check("wave", always(refusal), &|| {
        admitted.map_or_else(String::new, |(_, w)| format!("admitted by wave {}", w.name))
    });
    if let Err(refused) = passed {
        // Solving paths is the most expensive check, so it waits until a wave admits the device;
        // whoever traces the decision is told all the same.
        if T::LISTENS {
            let path = way_to(plan, device, goal, rollout.whole_for(device));
            trace.step(id, "path", path.is_ok(), || match &path {
                Ok(path) => legs_text(path),
                Err(refusal) => refusal.to_string(),
            });
        }
        return Err(refused);
    }

    let path = way_to(plan, device, goal, rollout.whole_for(device));
    check("path", always(path.as_ref().err().cloned()), &|| {
        path.as_ref().map(legs_text).unwrap_or_default()
    })?;
    let Ok(path) = path else {
        return Err((0, Explained::from(Reason::NoPath).into()));
    };
    let leg = path.legs.first().unwrap_or(goal).clone();
    let refusal = moment::held(plan, device, &leg).filter(|_| leg != *goal);
    check("hold on the way", always(refusal), &|| {
        format!("{leg} is not held")
    })?;

    check(
        "window",
        moment::window_closed(rollout, device, now),
        &|| {
            rollout.windows.of(device.region).map_or_else(
                || "there is none".into(),
                |window| format!("open: {window}"),
            )
        },
    )?;
    check(
        "battery",
        moment::battery_low(rollout, device, now),
        &|| "enough, on mains, or waited long enough".into(),
    )?;

    // A device that retries is exposed already and takes no more permits.
    let left = permits(rollout.id);
    let refusal = (left == 0 && previous.is_none()).then(|| Reason::PaceLimit.into());
    check("pace", always(refusal), &|| format!("{left} permits left"))?;

    Ok(Offer {
        rollout: rollout.id,
        generation: rollout.generation,
        wave: admitted.map_or(0, |(index, _)| *index),
        rollback_window_s: if leg == *goal {
            rollout.rollback_window_s
        } else {
            0
        },
        switch_within_s: moment::switch_within(rollout, device, now),
        leg,
        retry_of: previous.map(|p| p.id),
    })
}

fn legs_text(path: &crate::path::Path) -> String {
    let legs: Vec<String> = path.legs.iter().map(ToString::to_string).collect();
    legs.join(" -> ")
}

fn stage_refusal(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    goal: &tidegate_protocol::Version,
    stage: Stage,
) -> Option<Explained> {
    if stage.channels().is_empty() {
        let text = format!("{goal} is {stage}");
        return Some(Explained::new(Reason::ReleaseNotOffered, text));
    }
    if !device.channel.takes(stage) {
        let text = format!(
            "{goal} is {stage}, the device takes channel {}",
            device.channel
        );
        return Some(Explained::new(Reason::ChannelDoesNotTakeStage, text));
    }
    let signed = plan.signed.get(&device.channel)?;
    (!signed.allows(goal)).then(|| {
        let text = format!(
            "the signed policy of channel {} forbids {goal}",
            device.channel
        );
        Explained::new(Reason::ReleaseNotOffered, text)
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

#[cfg(test)]
mod tests;

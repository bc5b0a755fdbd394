//! Answer to a device about the deployments that it is already in.

use tidegate_protocol::{DeploymentState, Explained, Reason, Timestamp};

use super::facts::{DeviceFacts, ProductPlan, RolloutPlan};
use super::verdict::{Decision, Trace, Verdict};
use super::{moment, not_now, nothing, way_back, way_to};
use crate::deployment::DeploymentFacts;
use crate::rollout::RolloutState;

/// Decides on the deployments that a device is already in. They come before new ones, and orders
/// back come before all; `None` if no deployment is open.
pub(super) fn decide_ongoing(
    plan: &ProductPlan,
    device: &DeviceFacts<'_>,
    now: Timestamp,
    trace: &mut impl Trace,
) -> Option<Decision> {
    let mut ongoing = None;
    for rollout in &plan.rollouts {
        let Some(deployment) = device.deployments.get(&rollout.id) else {
            continue;
        };
        let state = deployment.state;
        let back = rollout.state == RolloutState::RollingBack;
        // Timed out after it had begun to install: it may have switched without reporting it.
        let unheard = state == DeploymentState::TimedOut
            && deployment.took
            && device.release == Some(&rollout.release);
        let open = !state.is_final() || (back && (state == DeploymentState::Succeeded || unheard));
        if !open {
            continue;
        }
        let standing = || {
            format!(
                "deployment {} is {state}, rollout is {}",
                deployment.id, rollout.state
            )
        };
        let switched = state.has_switched() || unheard;
        if back && state == DeploymentState::Succeeded {
            if device.release != Some(&deployment.leg) {
                // It has moved on to another release: there is nothing to roll back.
                trace.step(Some(rollout.id), "rollback", true, standing);
                return Some(Decision {
                    verdict: Verdict::Left {
                        deployment: deployment.id,
                    },
                    reason: Reason::Superseded.into(),
                    again: None,
                    rollout: Some(rollout.id),
                });
            }
            // One thing at a time: a deployment that another rollout has begun is cancelled first.
            let other = device
                .deployments
                .iter()
                .find(|(_, d)| !d.state.is_final() && !d.state.has_switched());
            if let Some((other, busy)) = other {
                trace.step(Some(*other), "called off for a rollback", false, standing);
                return Some(Decision {
                    verdict: Verdict::Cancel {
                        rollout: *other,
                        deployment: busy.id,
                    },
                    reason: Reason::CancelOrdered.into(),
                    again: None,
                    rollout: Some(*other),
                });
            }
        }
        if state == DeploymentState::RollingBack || (back && switched) {
            trace.step(Some(rollout.id), "rollback", false, standing);
            return Some(return_order(plan, rollout, deployment, device));
        }
        let held = !switched && moment::held(plan, device, &rollout.release).is_some();
        if (rollout.state.calls_off() && !switched) || held {
            trace.step(Some(rollout.id), "called off", false, standing);
            let (rollout, deployment) = (rollout.id, deployment.id);
            return Some(Decision {
                verdict: Verdict::Cancel {
                    rollout,
                    deployment,
                },
                reason: Reason::CancelOrdered.into(),
                again: None,
                rollout: None,
            });
        }
        trace.step(Some(rollout.id), "under way", false, standing);
        ongoing.get_or_insert_with(|| go_on(plan, rollout, deployment, device, now));
    }
    ongoing
}

fn return_order(
    plan: &ProductPlan,
    rollout: &RolloutPlan,
    deployment: &DeploymentFacts,
    device: &DeviceFacts<'_>,
) -> Decision {
    // It is back already and its report is on the way, or it never left.
    if deployment.from.is_some() && device.release == deployment.from.as_ref() {
        return nothing(Reason::RolloutRollingBack);
    }
    // The device checks an order to return against what people signed, and an order that it refuses
    // would look like one that is under way. Going back by itself needs no order.
    let refusal = way_back(plan, device, deployment).err();
    match (&deployment.from, refusal) {
        (Some(from), None) => Decision {
            verdict: Verdict::Return {
                rollout: rollout.id,
                deployment: deployment.id,
                to: from.clone(),
            },
            reason: Explained::new(Reason::RollbackOrdered, format!("to {from}")),
            again: None,
            rollout: Some(rollout.id),
        },
        (_, refusal) => Decision {
            verdict: Verdict::Stuck {
                deployment: deployment.id,
            },
            reason: refusal.unwrap_or_else(|| Reason::NoPreviousSlot.into()),
            again: None,
            rollout: Some(rollout.id),
        },
    }
}

fn go_on(
    plan: &ProductPlan,
    rollout: &RolloutPlan,
    deployment: &DeploymentFacts,
    device: &DeviceFacts<'_>,
    now: Timestamp,
) -> Decision {
    let reason = match deployment.state {
        DeploymentState::Probation => Explained::from(Reason::ProbationOpen),
        state => Explained::new(Reason::InProgress, format!("{state} {}", deployment.leg)),
    };
    let waits = matches!(
        deployment.state,
        DeploymentState::Offered | DeploymentState::Deferred
    );
    if !waits {
        return nothing(reason);
    }
    // An update that was offered in one window and not begun waits for the next one.
    if let Some(refusal) = moment::window_closed(rollout, device, now)
        .or_else(|| moment::battery_low(rollout, device, now))
    {
        return not_now(refusal);
    }
    // The next leg follows from the running release: an earlier leg may be done.
    let path = way_to(plan, device, &rollout.release, rollout.whole_for(device));
    let next = path.ok().and_then(|p| p.legs.into_iter().next());
    let leg = next.unwrap_or_else(|| deployment.leg.clone());
    Decision {
        verdict: Verdict::Repeat {
            rollout: rollout.id,
            deployment: deployment.id,
            rollback_window_s: if leg == rollout.release {
                rollout.rollback_window_s
            } else {
                0
            },
            switch_within_s: moment::switch_within(rollout, device, now),
            leg,
        },
        reason,
        again: None,
        rollout: Some(rollout.id),
    }
}

//! The plan checker: invariants of every plan, whatever made it.

use super::{Action, Pace, Plan, RolloutState, RolloutView, WaveSize, WaveState};

/// Checks the invariants of a plan; returns one sentence per violation. Tests and the simulator run
/// it after every step.
pub fn check(rollout: &RolloutView, plan: &Plan) -> Vec<String> {
    let mut wrong = Vec::new();
    for action in &plan.actions {
        if let Action::Grant { granted, .. } = action {
            if *granted < rollout.progress.exposed {
                wrong.push(format!(
                    "granted {granted} of {} exposed",
                    rollout.progress.exposed
                ));
            }
            if let (Pace::Evidence { start }, RolloutState::Running) = (rollout.pace, rollout.state)
            {
                let tally = rollout.tally();
                let most = start.max(1).max(tally.healthy().saturating_mul(2));
                let flying = tally.in_flight() + granted.saturating_sub(rollout.progress.exposed);
                if flying > most.max(tally.in_flight()) {
                    wrong.push(format!("{flying} in flight, evidence allows {most}"));
                }
            }
        }
        if !rollout.state.offers() && rollout.state != RolloutState::RollingBack {
            wrong.push(format!(
                "a rollout that is {} acts: {action:?}",
                rollout.state
            ));
        }
    }
    let running = rollout
        .waves
        .iter()
        .filter(|w| matches!(w.progress.state, WaveState::Running | WaveState::Soaking))
        .count();
    if running > 1 {
        wrong.push(format!("{running} waves at the same time"));
    }
    for wave in &rollout.waves {
        let (exposed, quota) = (wave.tally.exposed(), wave.progress.quota);
        if exposed > quota && wave.wave.size != WaveSize::All {
            wrong.push(format!(
                "wave {}: {exposed} exposed of {quota}",
                wave.wave.name
            ));
        }
        if exposed > 0 && wave.progress.state == WaveState::Pending {
            wrong.push(format!(
                "wave {} has not started and exposed {exposed}",
                wave.wave.name
            ));
        }
    }
    wrong
}

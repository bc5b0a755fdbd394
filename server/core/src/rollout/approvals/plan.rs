//! Plan that people approve: its content and its hash.

use serde::Serialize;
use tidegate_domain::rollout::policy::Policy;
use tidegate_store::changes::{Change, ChangeKind};
use tidegate_store::rollouts::Rollout;
use tidegate_store::waves::WaveRow;
use tidegate_store::{policy, to_json};

use crate::CoreError;

/// Content of a plan: people approve its hash.
#[derive(Serialize)]
struct PlanText<'a> {
    rollout: String,
    product: &'a str,
    release: String,
    waves: Vec<[String; 3]>,
    policy: String,
    rollback_window_s: u32,
    max_attempts: u32,
    timeout_s: u32,
    asked: &'static str,
    wave: u32,
    /// Devices without a way back that the start accepts.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_no_way_back: Option<u64>,
    /// Generation of the stop that a resume ends: consent to end a pause is none to end a later halt.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<i64>,
}

/// Returns the hash of the plan that a change leads to.
pub(super) fn plan_hash(
    rollout: &Rollout,
    waves: &[WaveRow],
    kind: ChangeKind,
    policy: &Policy,
) -> Result<String, CoreError> {
    let text = PlanText {
        rollout: rollout.id.to_string(),
        product: rollout.product.as_str(),
        release: rollout.release.to_string(),
        waves: waves
            .iter()
            .map(|w| {
                [
                    w.wave.name.clone(),
                    w.wave.selector.to_string(),
                    w.wave.size.to_string(),
                ]
            })
            .collect(),
        policy: policy::to_column(policy)?,
        rollback_window_s: rollout.rollback_window_s,
        max_attempts: rollout.max_attempts,
        timeout_s: rollout.timeout_s,
        asked: kind.as_str(),
        wave: rollout.released,
        accepted_no_way_back: rollout
            .accepted_no_way_back
            .filter(|_| kind == ChangeKind::Start),
        stopped: Some(rollout.generation).filter(|_| kind == ChangeKind::Resume),
    };
    // Propagate the error: an empty text would give every plan the same hash, and an approval of
    // one would be good for all.
    let text = to_json("plan", &text)?;
    Ok(tidegate_delta::sha256(text.as_bytes()).to_string())
}

/// Returns the policy that a change leads to.
pub(super) fn proposed(rollout: &Rollout, change: &Change) -> Result<Policy, CoreError> {
    if change.body.is_empty() {
        return Ok(rollout.policy.clone());
    }
    Ok(policy::from_column(&change.body)?)
}

/// Hash of the plan that a change leads to now. Approvals are bound to it: those of another one do
/// not count.
pub(crate) fn asked_plan(
    rollout: &Rollout,
    waves: &[WaveRow],
    change: &Change,
) -> Result<String, CoreError> {
    let policy = proposed(rollout, change)?;
    plan_hash(rollout, waves, change.kind, &policy)
}

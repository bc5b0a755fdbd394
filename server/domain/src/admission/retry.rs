//! Whether a device that has failed may try again, and when.

use std::time::Duration;

use tidegate_protocol::{DeploymentState, Explained, Reason, Timestamp};

use super::moment::NotNow;
use super::{DeploymentFacts, RolloutPlan};

/// Wait after `failures` failures for one reason: the reason's own wait, doubled with each further
/// failure, at most an hour.
pub fn back_off(reason: Reason, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(7);
    Duration::from_secs((u64::from(reason.back_off_s()) << doublings).min(3_600))
}

pub(super) fn attempts_refusal(
    previous: &DeploymentFacts,
    rollout: &RolloutPlan,
    now: Timestamp,
) -> Option<NotNow> {
    let refuse = |text: String| Some(Explained::new(Reason::AttemptsExhausted, text).into());
    match previous.state {
        DeploymentState::Failed | DeploymentState::TimedOut => {
            let reason = previous
                .reason
                .as_ref()
                .map_or(Reason::TimedOut, |r| r.code);
            let failures = previous.failures.get(&reason).copied().unwrap_or(1);
            if !reason.retryable() {
                return refuse(format!("not retried: {}", reason.text()));
            }
            if previous.attempts >= rollout.max_attempts {
                return refuse(format!("{} of {}", previous.attempts, rollout.max_attempts));
            }
            if failures >= reason.retry_budget() {
                let text = format!("{failures} of {}: {}", reason.retry_budget(), reason.text());
                return refuse(text);
            }
            let wait = back_off(reason, failures);
            let waited = now.since(previous.updated_at);
            (waited < wait).then(|| {
                // People want to know which failure it waits after.
                let last = previous.reason.as_ref().map_or_else(
                    || reason.text().to_owned(),
                    |r| r.clone().bounded().to_string(),
                );
                let (waited, wait_s) = (waited.as_secs(), wait.as_secs());
                let text = format!("{waited} of {wait_s} s; last attempt: {last}");
                NotNow {
                    reason: Explained::new(Reason::BackOff, text),
                    again: Some(previous.updated_at.plus(wait)),
                }
            })
        }
        // The rollout was resumed after it had cancelled the deployment.
        DeploymentState::Cancelled | DeploymentState::Superseded => None,
        // Succeeded, yet it runs something else: someone changed it by hand.
        DeploymentState::Succeeded => None,
        DeploymentState::RolledBack => Some(Explained::from(Reason::Quarantined).into()),
        DeploymentState::Offered
        | DeploymentState::Deferred
        | DeploymentState::Downloading
        | DeploymentState::Installing
        | DeploymentState::Verifying
        | DeploymentState::Probation
        | DeploymentState::RollingBack => Some(Explained::from(Reason::InProgress).into()),
    }
}

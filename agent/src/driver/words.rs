//! Log messages for phases.

use tidegate_machine::fsm::Phase;

pub(super) fn describe(phase: &Phase) -> String {
    match phase {
        Phase::Idle => "idle".into(),
        Phase::Downloading { job } => format!("downloading {}", job.target.release),
        Phase::Staging { job } => format!("installing {}", job.target.release),
        Phase::Staged { job } => {
            format!(
                "{} is staged and waits for its maintenance window",
                job.target.release
            )
        }
        Phase::Trial { job, tries, .. } => format!("trying {} (start {tries})", job.target.release),
        Phase::Probation { job, .. } => {
            format!(
                "healthy on {}, {} s to go back",
                job.target.release, job.rollback_window_s
            )
        }
        Phase::Returning { reason, .. } => format!("rolling back: {reason}"),
    }
}

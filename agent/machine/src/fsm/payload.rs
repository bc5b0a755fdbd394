//! Fetching: the present payload, the next one, or giving up.

use tidegate_protocol::{DeploymentState as State, Explained, Reason};
use tidegate_trust::assignment::Action;

use super::event::Effect;
use super::record::{Job, Phase, Record};

/// Starts fetching a job's version into its slot. What an earlier attempt has fetched of the same payload
/// is taken up.
pub(super) fn fetch(record: &mut Record, job: Job, why: Option<Explained>) -> Vec<Effect> {
    record.set_slot(job.slot, None);
    record.report(job.deployment, State::Downloading, why, 0);
    record.phase = Phase::Downloading { job: job.clone() };
    vec![Effect::Download(Box::new(job))]
}

/// Tries the next payload, each one once: after a delta that is damaged or does not apply, the full
/// image.
pub(super) fn next_payload(record: &mut Record, mut job: Job, reason: Explained) -> Vec<Effect> {
    if job.kept && reason.code.is_of_the_place() {
        // Nothing is wrong with what is kept: it stays, for the next attempt.
        return give_up(record, &job, reason);
    }
    if job.kept {
        // The kept version has changed: it is fetched like any other.
        job.kept = false;
        job.cuts = 0;
        return fetch(record, job, Some(reason));
    }
    if job.payload + 1 < job.payloads.len() && is_payloads_fault(reason.code) {
        job.payload += 1;
        job.cuts = 0;
        // Falling back from a delta costs the full image: people should know why.
        record.report(job.deployment, State::Downloading, Some(reason), job.bytes);
        record.phase = Phase::Downloading { job: job.clone() };
        return vec![Effect::DropDownload, Effect::Download(Box::new(job))];
    }
    give_up(record, &job, reason)
}

fn is_payloads_fault(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::DeltaFailed | Reason::ChunkCorrupt | Reason::ImageMismatch
    )
}

/// Gives up before the switch: the version in use was never touched.
pub(super) fn give_up(record: &mut Record, job: &Job, reason: Explained) -> Vec<Effect> {
    record.phase = Phase::Idle;
    let code = reason.code;
    record.report(job.deployment, State::Failed, Some(reason), job.bytes);
    match code {
        // The next attempt needs the same bytes, and nothing is wrong with them.
        Reason::DiskFull if job.action == Action::Install => {
            vec![Effect::GiveBack(Box::new(job.clone()))]
        }
        Reason::ReadOnly | Reason::StorageError | Reason::HookFailed => Vec::new(),
        _ => vec![Effect::DropDownload],
    }
}

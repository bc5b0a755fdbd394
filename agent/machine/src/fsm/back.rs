//! Rollback transitions of the state machine.

use tidegate_protocol::{DeploymentId, DeploymentState as State, Explained, Reason};

use super::event::{Effect, take_phase};
use super::record::{Job, Phase, Record, SlotId};

/// Slot to return to: the other one, if it holds a whole version.
pub(super) fn return_slot(record: &Record, job: &Job) -> Option<SlotId> {
    let slot = job.slot.other();
    record.slot(slot).map(|_| slot)
}

pub(super) fn go_back(
    record: &mut Record,
    job: Job,
    reason: Explained,
    ordered_by: Option<DeploymentId>,
) -> Vec<Effect> {
    let deployment = ordered_by.unwrap_or(job.deployment);
    let slot = return_slot(record, &job);
    record.report(
        deployment,
        State::RollingBack,
        Some(reason.clone()),
        job.bytes,
    );
    record.phase = Phase::Returning {
        job,
        deployment,
        reason,
    };
    vec![Effect::Return(slot)]
}

pub(super) fn returned(record: &mut Record) -> Vec<Effect> {
    match take_phase(record) {
        Phase::Returning {
            job,
            deployment,
            reason,
        } => {
            let slot = return_slot(record, &job);
            record.active = slot;
            // The machine lacked room or rights for the switch: what was staged and verified stays for the
            // next attempt.
            let stays = reason.code.is_of_the_place();
            if !stays {
                record.set_slot(job.slot, None);
            }
            let lacks_room = reason.code == Reason::DiskFull;
            // An ordered rollback says nothing against the version on this device; its own failure
            // does.
            blame(record, &job, reason.code);
            let (state, reason) = match slot {
                // Nothing went back that had worked or failed: the switch was not made.
                _ if stays => (State::Failed, reason),
                Some(_) => (State::RolledBack, reason),
                None => (
                    State::Failed,
                    Explained::new(Reason::NoPreviousSlot, reason.to_string()),
                ),
            };
            record.report(deployment, state, Some(reason), job.bytes);
            if lacks_room {
                return vec![Effect::GiveBack(Box::new(job))];
            }
        }
        other => record.phase = other,
    }
    Vec::new()
}

/// Ends a rollback that is impossible: the failed version stays in use, and no other one is kept.
pub(super) fn not_returned(record: &mut Record, why: &Explained) -> Vec<Effect> {
    match take_phase(record) {
        Phase::Returning {
            job,
            deployment,
            reason,
        } => {
            record.set_slot(job.slot.other(), None);
            blame(record, &job, reason.code);
            let text = format!("{why}; {} stays in use, after {reason}", job.target.release);
            let reason = Explained::new(Reason::NoPreviousSlot, text);
            record.report(deployment, State::Failed, Some(reason), job.bytes);
            vec![Effect::DropDownload]
        }
        other => {
            record.phase = other;
            Vec::new()
        }
    }
}

/// Remembers a version that failed on this device, unless it was the machine that lacked room or rights.
fn blame(record: &mut Record, job: &Job, reason: Reason) {
    if reason.is_failure() && !reason.is_of_the_place() {
        record.remember_bad(job.target.image.sha256);
    }
}

//! Rollback transitions of the state machine.

use tidegate_protocol::{DeploymentId, DeploymentState as State, Explained, Reason};

use super::event::{Effect, take_phase};
use super::payload::is_of_the_place;
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
            record.set_slot(job.slot, None);
            // An ordered rollback says nothing against the version on this device; its own failure
            // does.
            // Nor does a switch for which this machine had no room or no permission.
            let place = is_of_the_place(reason.code);
            if reason.code.is_failure() && !place {
                record.remember_bad(job.target.image.sha256);
            }
            let (state, reason) = match slot {
                Some(_) if place => (State::Failed, reason),
                Some(_) => (State::RolledBack, reason),
                None => (
                    State::Failed,
                    Explained::new(Reason::NoPreviousSlot, reason.to_string()),
                ),
            };
            record.report(deployment, state, Some(reason), job.bytes);
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
            if reason.code.is_failure() {
                record.remember_bad(job.target.image.sha256);
            }
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

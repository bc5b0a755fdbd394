//! Transitions of the state machine.

use tidegate_protocol::{DeploymentId, DeploymentState as State, Explained, Reason};
use tidegate_trust::assignment::Action;

use super::back::{go_back, not_returned, returned};
use super::event::{Effect, Event, take_phase};
use super::payload::{fetch, next_payload};
use super::record::{Job, Phase, Record, Restarts, SlotId};
use super::start::{started, switched, try_it};

/// Returns the new record and its effects. The record must be durable before any of them.
pub fn step(mut record: Record, event: Event) -> (Record, Vec<Effect>) {
    let effects = match event {
        Event::Started { medium, start } => started(&mut record, medium, start),
        Event::Assigned(job, counter) => assigned(&mut record, *job, counter),
        Event::CalledOff(deployment) => called_off(&mut record, deployment),
        Event::Downloaded { bytes } => downloaded(&mut record, bytes),
        Event::DownloadFailed(reason) => download_failed(&mut record, reason),
        Event::Staged => staged(&mut record, true),
        Event::StagedTooLate => staged(&mut record, false),
        Event::KeepPrevious(seconds) => {
            keep_previous(&mut record, seconds);
            Vec::new()
        }
        Event::StageFailed(reason) => stage_failed(&mut record, reason),
        Event::Switched(activation) => switched(&mut record, activation),
        Event::Waits(reason) => {
            waits(&mut record, Some(reason));
            Vec::new()
        }
        Event::GoesOn => {
            waits(&mut record, None);
            Vec::new()
        }
        Event::GoesDown(since_ms) => {
            record.down_since.get_or_insert(since_ms);
            Vec::new()
        }
        Event::Downtime { ms } => {
            record.down_since = None;
            record.downtime_ms = Some(record.downtime_ms.unwrap_or(0).saturating_add(ms));
            Vec::new()
        }
        Event::Healthy => healthy(&mut record),
        Event::Unhealthy(reason) => unhealthy(&mut record, &reason),
        Event::WindowPassed(seconds) => window_passed(&mut record, seconds),
        Event::Returned => returned(&mut record),
        Event::NotReturned(reason) => not_returned(&mut record, &reason),
        Event::Emptied(slot) => {
            record.set_slot(slot, None);
            Vec::new()
        }
        Event::Acknowledged(seq) => {
            let told = record.outbox.iter().rev().find(|r| r.seq <= seq).cloned();
            record.told = told.or(record.told.take());
            record.outbox.retain(|r| r.seq > seq);
            Vec::new()
        }
        Event::Recorded(seq) => {
            // Under its own number, and before all later ones: each is taken once, in order.
            let lost = record.told.take_if(|told| told.seq > seq);
            record.outbox.splice(0..0, lost);
            Vec::new()
        }
    };
    (record, effects)
}

/// Reports that a deployment waits, or goes on.
fn waits(record: &mut Record, reason: Option<Explained>) {
    let (deployment, bytes, state) = match &record.phase {
        Phase::Downloading { job } => (job.deployment, job.bytes, State::Downloading),
        Phase::Staging { job } => (job.deployment, job.bytes, State::Installing),
        _ => return,
    };
    let state = if reason.is_some() {
        State::Deferred
    } else {
        state
    };
    record.report(deployment, state, reason, bytes);
}

fn assigned(record: &mut Record, mut job: Job, counter: u64) -> Vec<Effect> {
    record.counter = record.counter.max(counter);
    // Only the online key vouches for the window: without a bound, a stolen one could close a
    // device to every install for 136 years.
    job.rollback_window_s = job.rollback_window_s.min(MAX_SIGNED_S);
    job.signed_window_s = job.rollback_window_s;
    match (&record.phase, job.action) {
        (Phase::Idle, _) => {}
        // Rollback while the old slot is kept: no download.
        (Phase::Trial { .. } | Phase::Probation { .. }, Action::Rollback) => {
            return ordered_back(record, &job);
        }
        // The maintenance window is open again. What was staged may have rotted or been changed in the
        // hours or days since: it is verified first, and fetched again if it has.
        (Phase::Staged { job: staged }, Action::Install)
            if staged.deployment == job.deployment && staged.target.image == job.target.image =>
        {
            job.kept = true;
            job.bytes = staged.bytes;
            record.report(job.deployment, State::Installing, None, job.bytes);
            record.phase = Phase::Staging { job: job.clone() };
            return vec![Effect::Stage(Box::new(job))];
        }
        // The device is busy; the server repeats what still holds.
        _ => return Vec::new(),
    }
    record.downtime_ms = None;
    record.down_since = None;
    if record
        .running()
        .is_some_and(|i| i.image == job.target.image)
    {
        let rolled_back = job.action == Action::Rollback;
        let state = if rolled_back {
            State::RolledBack
        } else {
            State::Succeeded
        };
        // The same bytes under another release: from now on they have its name.
        if let Some(slot) = record.active {
            record.set_slot(slot, Some(job.target.clone()));
        }
        record.report(job.deployment, state, None, 0);
        return Vec::new();
    }
    if job.again {
        record.bad.retain(|bad| *bad != job.target.image.sha256);
    }
    // Applies to rollbacks too: an image that does not start is not tried again and again.
    if record.bad.contains(&job.target.image.sha256) {
        let text = "it failed on this device before";
        let reason = Explained::new(Reason::Quarantined, text);
        record.report(job.deployment, State::Failed, Some(reason), 0);
        return Vec::new();
    }
    // The other slot holds the wanted image already: nothing needs to be fetched.
    let kept = record
        .slot(job.slot)
        .is_some_and(|i| i.image == job.target.image);
    if kept {
        // It is trusted only once it was verified.
        job.kept = true;
        record.phase = Phase::Staging { job: job.clone() };
        return vec![Effect::Stage(Box::new(job))];
    }
    fetch(record, job, None)
}

fn ordered_back(record: &mut Record, order: &Job) -> Vec<Effect> {
    let kept = record
        .active
        .map(SlotId::other)
        .and_then(|slot| record.slot(slot))
        .is_some_and(|i| i.image == order.target.image);
    let (Phase::Trial { job, .. } | Phase::Probation { job, .. }) = take_phase(record) else {
        return Vec::new();
    };
    if !kept {
        // The kept version is not the wanted one: commit to what runs, then fetch the wanted one.
        let mut order = order.clone();
        order.slot = record.inactive();
        return assigned(record, order, 0);
    }
    go_back(
        record,
        job,
        Reason::RollbackOrdered.into(),
        Some(order.deployment),
    )
}

fn called_off(record: &mut Record, deployment: DeploymentId) -> Vec<Effect> {
    match &record.phase {
        Phase::Downloading { job } | Phase::Staging { job } | Phase::Staged { job }
            if job.deployment == deployment =>
        {
            let bytes = job.bytes;
            record.phase = Phase::Idle;
            record.report(
                deployment,
                State::Cancelled,
                Some(Reason::CancelOrdered.into()),
                bytes,
            );
            vec![Effect::DropDownload]
        }
        _ => Vec::new(),
    }
}

fn downloaded(record: &mut Record, bytes: u64) -> Vec<Effect> {
    match take_phase(record) {
        Phase::Downloading { mut job } => {
            job.bytes = bytes;
            record.report(job.deployment, State::Installing, None, bytes);
            record.phase = Phase::Staging { job: job.clone() };
            vec![Effect::Stage(Box::new(job))]
        }
        other => {
            record.phase = other;
            Vec::new()
        }
    }
}

fn download_failed(record: &mut Record, reason: Explained) -> Vec<Effect> {
    match take_phase(record) {
        Phase::Downloading { job } => next_payload(record, job, reason),
        other => {
            record.phase = other;
            Vec::new()
        }
    }
}

fn staged(record: &mut Record, in_time: bool) -> Vec<Effect> {
    match take_phase(record) {
        Phase::Staging { job } => {
            record.set_slot(job.slot, Some(job.target.clone()));
            // The payload is no longer needed.
            let mut effects = Vec::new();
            if !job.kept {
                effects.push(Effect::DropDownload);
            }
            if in_time {
                effects.extend(begin_trial(record, job));
                return effects;
            }
            let waits = Explained::from(Reason::WindowClosed);
            record.report(job.deployment, State::Deferred, Some(waits), job.bytes);
            record.phase = Phase::Staged { job };
            effects
        }
        other => {
            record.phase = other;
            Vec::new()
        }
    }
}

/// Intent before act: the trial is in the journal before the switch is made.
fn begin_trial(record: &mut Record, job: Job) -> Vec<Effect> {
    let (deployment, bytes) = (job.deployment, job.bytes);
    let effects = try_it(record, job, 0, false);
    record.report(deployment, State::Verifying, None, bytes);
    effects
}

fn stage_failed(record: &mut Record, reason: Explained) -> Vec<Effect> {
    match take_phase(record) {
        Phase::Staging { job } => next_payload(record, job, reason),
        other => {
            record.phase = other;
            Vec::new()
        }
    }
}

fn healthy(record: &mut Record) -> Vec<Effect> {
    match take_phase(record) {
        Phase::Trial { job, .. } => {
            // The commit is this one write: from here on a restart keeps the new version. The floor
            // rises only now: a release that does not start must not lock the device in.
            record.floor = record.floor.take().max(job.min_release.clone());
            let rolled_back = job.action == Action::Rollback;
            let state = if rolled_back {
                State::RolledBack
            } else {
                State::Probation
            };
            record.report(job.deployment, state, None, job.bytes);
            if rolled_back {
                record.phase = Phase::Idle;
            } else {
                record.phase = Phase::Probation {
                    job,
                    elapsed_s: 0,
                    restarts: Restarts::default(),
                };
                return window_passed(record, 0);
            }
        }
        other => record.phase = other,
    }
    Vec::new()
}

fn unhealthy(record: &mut Record, reason: &Explained) -> Vec<Effect> {
    match take_phase(record) {
        Phase::Trial { job, .. } | Phase::Probation { job, .. } => {
            go_back(record, job, reason.clone(), None)
        }
        other => {
            record.phase = other;
            Vec::new()
        }
    }
}

fn window_passed(record: &mut Record, seconds: u32) -> Vec<Effect> {
    match take_phase(record) {
        Phase::Probation {
            job,
            elapsed_s,
            restarts,
        } => {
            let elapsed_s = elapsed_s.saturating_add(seconds);
            if elapsed_s < job.rollback_window_s {
                record.phase = Phase::Probation {
                    job,
                    elapsed_s,
                    restarts: restarts.after(seconds),
                };
            } else {
                record.phase = Phase::Idle;
                record.report(job.deployment, State::Succeeded, None, job.bytes);
            }
        }
        other => record.phase = other,
    }
    Vec::new()
}

/// Longest rollback window that an assignment opens, in seconds (30 days).
pub(super) const MAX_SIGNED_S: u32 = 30 * 86_400;
/// Longest time that one [`Event::KeepPrevious`] keeps the previous version from now on, in seconds
/// (a day): it is not signed, and the server repeats it for as long as it holds.
pub(super) const MAX_KEPT_S: u32 = 86_400;

/// Extends the rollback window in an incident, or ends an extension: the newest word counts, and what
/// was signed is the least.
fn keep_previous(record: &mut Record, seconds: u32) {
    if let Phase::Probation { job, elapsed_s, .. } = &mut record.phase {
        let until = elapsed_s.saturating_add(seconds.min(MAX_KEPT_S));
        job.rollback_window_s = job.signed_window_s.max(until);
    }
}

//! Transitions at the start of the agent, and of a new version.

use tidegate_protocol::{Explained, Reason};

use super::back::{go_back, return_slot};
use super::event::{Effect, take_phase};
use super::medium::{Activation, Medium};
use super::payload::next_payload;
use super::record::{Job, Phase, Record, Restarts};

/// Starts of a new version before it is given up. A machine may lose power once in a trial
/// through no fault of the version; three times is the version's fault.
const MAX_TRIES: u32 = 3;

/// Restarts while a version is staged before another payload is tried. Each resumes where the one
/// before it was cut, so that power cuts alone hardly ever add up to so many.
const MAX_CUTS: u32 = 8;

/// Reboots in the rollback window, none of which lasted, after which the new version is blamed: it
/// is healthy whenever it is checked, and never for long.
const MAX_RESTARTS: u32 = 3;

/// Seconds after which a start has lasted.
const STEADY_S: u32 = 600;

impl Restarts {
    fn once_more(self) -> Self {
        Self {
            count: self.count.saturating_add(1),
            steady_s: 0,
        }
    }

    /// Returns the count after more of the window has passed.
    pub(super) fn after(self, seconds: u32) -> Self {
        let steady_s = self.steady_s.saturating_add(seconds);
        let count = if steady_s < STEADY_S { self.count } else { 0 };
        Self { count, steady_s }
    }
}

pub(super) fn started(record: &mut Record, medium: Medium, start: String) -> Vec<Effect> {
    // Unless both starts have an identifier, only the agent is known to have started.
    let anew = !start.is_empty() && !record.start.is_empty() && record.start != start;
    record.start = start;
    match take_phase(record) {
        Phase::Idle if medium.falls_back => {
            // Whatever the boot loader started decides which slot is in use.
            record.active = medium.active.or(record.active);
            Vec::new()
        }
        Phase::Idle => {
            // The switch was made but not the journal write, or the other way round; both only ever
            // name a whole version. In doubt, activate what the journal committed.
            if record.active != medium.active
                && let Some(slot) = record.active
            {
                return vec![Effect::Switch(slot)];
            }
            Vec::new()
        }
        Phase::Downloading { job } => {
            record.phase = Phase::Downloading { job: job.clone() };
            vec![Effect::Download(Box::new(job))]
        }
        // A version that crashes the agent each time it is staged, by lack of memory for example,
        // would do so forever.
        Phase::Staging { job } if job.cuts >= MAX_CUTS => {
            let text = format!("the agent ended {} times while staging it", job.cuts);
            next_payload(record, job, Explained::new(Reason::DeltaFailed, text))
        }
        Phase::Staging { mut job } => {
            job.cuts += 1;
            record.phase = Phase::Staging { job: job.clone() };
            vec![Effect::Stage(Box::new(job))]
        }
        // Only the server can now say whether the window is still open.
        Phase::Staged { job } => {
            record.phase = Phase::Staged { job };
            Vec::new()
        }
        Phase::Trial { job, switched, .. } if switched && medium.fell_back_from(job.slot) => {
            let text = "it did not start, and the machine fell back by itself";
            let reason = Explained::new(Reason::CrashedInTrial, text);
            go_back(record, job, reason, None)
        }
        Phase::Trial {
            job,
            tries,
            switched,
        } => try_it(record, job, tries, switched),
        // The version in use is checked at once: the machine may have stopped because of it.
        Phase::Probation { job, .. } if medium.fell_back_from(job.slot) => {
            let text = "it did not start again, and the machine went back by itself";
            let reason = Explained::new(Reason::CrashedInTrial, text);
            go_back(record, job, reason, None)
        }
        Phase::Probation {
            job,
            elapsed_s,
            mut restarts,
        } => {
            if anew {
                restarts = restarts.once_more();
            }
            // The first version of a machine stays: a failing one is better than none.
            if restarts.count >= MAX_RESTARTS && return_slot(record, &job).is_some() {
                let text = format!(
                    "{} starts in the rollback window, none of which lasted",
                    restarts.count
                );
                let reason = Explained::new(Reason::CrashedInTrial, text);
                return go_back(record, job, reason, None);
            }
            let check = Effect::CheckHealth(job.target.clone());
            let slot = job.slot;
            record.phase = Phase::Probation {
                job,
                elapsed_s,
                restarts,
            };
            if medium.active == Some(slot) {
                vec![check]
            } else {
                vec![Effect::Switch(slot)]
            }
        }
        Phase::Returning {
            job,
            deployment,
            reason,
        } => {
            let slot = return_slot(record, &job);
            record.phase = Phase::Returning {
                job,
                deployment,
                reason,
            };
            vec![Effect::Return(slot)]
        }
    }
}

/// Starts the new version once more; too many starts are its failure.
pub(super) fn try_it(record: &mut Record, job: Job, tries: u32, switched: bool) -> Vec<Effect> {
    if tries >= MAX_TRIES {
        let reason = Explained::new(
            Reason::CrashedInTrial,
            format!("{tries} starts without becoming healthy"),
        );
        return go_back(record, job, reason, None);
    }
    let slot = job.slot;
    record.active = Some(slot);
    record.phase = Phase::Trial {
        job,
        tries: tries + 1,
        switched,
    };
    vec![Effect::Switch(slot)]
}

pub(super) fn switched(record: &mut Record, activation: Activation) -> Vec<Effect> {
    let target = match &mut record.phase {
        Phase::Trial {
            job,
            tries,
            switched,
        } => {
            if !*switched && activation == Activation::Restart {
                // Nothing was started yet: the restart that follows is the first start.
                *tries = tries.saturating_sub(1);
            }
            *switched = true;
            &job.target
        }
        Phase::Probation { job, .. } => &job.target,
        Phase::Idle if activation == Activation::Restart => return vec![Effect::Restart],
        _ => return Vec::new(),
    };
    match activation {
        Activation::Live => vec![Effect::CheckHealth(target.clone())],
        Activation::Restart => vec![Effect::Restart],
    }
}

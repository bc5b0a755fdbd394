//! The planner: the next actions of a rollout, and the reason there are no more.
//!
//! It sees aggregates, never devices. A wave's frontier rises once, when the wave starts, to cover
//! the devices that it takes; the grant, a single number that every offer is checked against,
//! bounds how many of them are exposed so far. So offline devices hold nobody up, and no device is
//! exposed beyond what the pace allows, whichever devices of the wave come first.

mod action;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::time::Duration;

use tidegate_protocol::{Explained, Reason, Timestamp};

use super::{RolloutEvent, RolloutState, Tally, WaveState};
pub use action::{Action, Plan, Population};
pub use view::{RolloutView, WaveView};

/// Plans one step. Applying it and planning again reaches a fixpoint; planning twice with nothing
/// changed gives the same plan.
pub fn plan(rollout: &RolloutView, now: Timestamp) -> Plan {
    match rollout.state {
        RolloutState::Running => plan_running(rollout, now),
        RolloutState::Completed | RolloutState::CompletedPartly | RolloutState::NothingToDo => {
            plan_late(rollout, now)
        }
        RolloutState::RollingBack => plan_return(rollout),
        RolloutState::Paused => Plan::wait(Reason::RolloutPaused),
        RolloutState::Halted => Plan::wait(Reason::RolloutHalted),
        RolloutState::AwaitingApproval => Plan::wait(Reason::ApprovalNeeded),
        RolloutState::Draft | RolloutState::Scheduled => Plan::wait(Reason::RolloutNotStarted),
        RolloutState::RolledBack | RolloutState::RolledBackPartly | RolloutState::Cancelled => {
            Plan::wait(Reason::RolloutEnded)
        }
    }
}

fn plan_return(rollout: &RolloutView) -> Plan {
    let tally = rollout.tally();
    let left = tally.not_back();
    if left == 0 {
        // A rollback that leaves devices on the release must not look like one that does not.
        let action = match tally.get(super::Outcome::Stuck) {
            0 => Action::Returned,
            _ => Action::ReturnedPartly,
        };
        return Plan::act(action, Reason::RolloutEnded);
    }
    let silent = tally.silent();
    Plan::wait(Explained::new(
        Reason::RolloutRollingBack,
        format!("{left} devices are still to roll back, {silent} of them silent"),
    ))
}

/// Checks every wave that has exposed a device, passed ones included: a release can turn out bad
/// late.
fn breach(rollout: &RolloutView) -> Option<Plan> {
    let tallies: Vec<Tally> = rollout.waves.iter().map(WaveView::judged).collect();
    let breach = rollout.gate.look(&tallies, &rollout.strata)?;
    Some(breached(rollout, breach.wave, &breach.text))
}

fn breached(rollout: &RolloutView, wave: usize, text: &str) -> Plan {
    let name = rollout.waves.get(wave).map_or("", |w| w.wave.name.as_str());
    let reason = Explained::new(Reason::GateBreached, format!("wave {name}: {text}"));
    let then = rollout.gate.on_breach;
    Plan::act(
        Action::Breach {
            wave,
            reason: reason.clone(),
            then,
        },
        reason,
    )
}

fn plan_running(rollout: &RolloutView, now: Timestamp) -> Plan {
    if let Some(plan) = breach(rollout) {
        return plan;
    }
    let open = rollout
        .waves
        .iter()
        .position(|w| !matches!(w.progress.state, WaveState::Passed | WaveState::Skipped));
    let Some(index) = open else {
        return plan_end(rollout, now);
    };
    let wave = &rollout.waves[index];
    let starts = Explained::new(Reason::WaveNotStarted, &wave.wave.name);
    match wave.progress.state {
        WaveState::Pending if rollout.by_hand && index > rollout.released => {
            let text = format!("wave {}: release it with `rollout advance`", wave.wave.name);
            let mut plan = Plan::wait(Explained::new(Reason::WaitsForWord, text));
            plan.actions
                .extend(grant(rollout, index.saturating_sub(1), now).ok());
            plan
        }
        WaveState::Pending => Plan::act(Action::StartWave(index), starts),
        WaveState::Running => plan_wave(rollout, index, now),
        WaveState::Soaking => plan_soak(rollout, index, now),
        // A failed wave halts the rollout; if it runs again, a person has resumed it.
        WaveState::Failed | WaveState::Passed | WaveState::Skipped => {
            Plan::act(Action::StartWave(index), starts)
        }
    }
}

/// Plans a rollout whose waves have all passed. While a rollback window is open a device can still
/// turn out bad, and the gate still watches: the rollout is complete when the last window has
/// closed.
fn plan_end(rollout: &RolloutView, now: Timestamp) -> Plan {
    let tally = rollout.tally();
    let open = tally.get(super::Outcome::Probation);
    let flying = tally.in_flight();
    if open == 0 && flying == 0 {
        return end(ending(rollout));
    }
    let text = format!("every wave has passed; {flying} devices under way, {open} in their window");
    let mut plan = Plan::wait(Explained::new(Reason::ProbationOpen, text));
    plan.actions
        .extend(grant(rollout, rollout.waves.len().saturating_sub(1), now).ok());
    plan
}

fn end((ending, reason): (RolloutEvent, Explained)) -> Plan {
    let waiting = reason.clone();
    Plan::act(Action::Complete { ending, reason }, waiting)
}

/// Returns how a rollout whose waves have passed ends, and the counts that say so. A device that was
/// counted for a wave and does not run the release was left out or has failed: such an end must not look
/// like one without.
fn ending(rollout: &RolloutView) -> (RolloutEvent, Explained) {
    use super::Outcome as O;
    let tally = rollout.tally();
    let members = |w: &WaveView| w.progress.quota.max(w.tally.exposed());
    let members: u64 = rollout.waves.iter().map(members).sum();
    if members == 0 {
        let text = "no device that it selects was in need of the release";
        return (
            RolloutEvent::DoNothing,
            Explained::new(Reason::RolloutEnded, text),
        );
    }
    let done = tally.get(O::Probation) + tally.get(O::Succeeded);
    if done >= members {
        return (RolloutEvent::Complete, Reason::RolloutEnded.into());
    }
    let failed = tally.failed() + tally.get(O::Stuck);
    let silent = tally.get(O::Silent);
    let left_out = (members - done).saturating_sub(failed + silent);
    let text = format!(
        "{done} of {members} devices run the release; {failed} failed, {silent} are silent, {left_out} were left out"
    );
    (
        RolloutEvent::CompletePartly,
        Explained::new(Reason::RolloutEnded, text),
    )
}

/// Plans a completed rollout: it still updates late devices, and the gate watches meanwhile.
fn plan_late(rollout: &RolloutView, now: Timestamp) -> Plan {
    if let Some(plan) = breach(rollout) {
        return plan;
    }
    let tally = rollout.tally();
    let settled = tally.get(super::Outcome::Probation) == 0 && tally.in_flight() == 0;
    let now_ended = ending(rollout);
    // Late devices that are done may have completed it, or failed.
    if settled
        && rollout
            .state
            .apply(now_ended.0)
            .is_ok_and(|state| state != rollout.state)
    {
        return end(now_ended);
    }
    let mut plan = Plan::wait(now_ended.1);
    plan.actions
        .extend(grant(rollout, rollout.waves.len().saturating_sub(1), now).ok());
    plan
}

/// Returns the new grant, or the reason it stays where it is.
fn grant(rollout: &RolloutView, wave: usize, now: Timestamp) -> Result<Action, Explained> {
    let Some(view) = rollout.waves.get(wave) else {
        return Err(Reason::RolloutEnded.into());
    };
    let running = view.progress.started_at.map(|at| now.since(at));
    let healthy = rollout.proof(wave);
    let under_way = rollout.tally().in_flight();
    let allowed = rollout
        .pace
        .allows(healthy, running.unwrap_or_default())
        .min(rollout.limits.max_in_flight.unwrap_or(u64::MAX))
        .saturating_sub(under_way);
    if let Some((granted, at)) = rollout.progress.regrant(allowed, rollout.limits, now) {
        return Ok(Action::Grant { granted, at });
    }
    let text = format!(
        "wave {}: {under_way} in flight, {healthy} healthy so far",
        view.wave.name
    );
    Err(Explained::new(Reason::PaceLimit, text))
}

fn plan_wave(rollout: &RolloutView, index: usize, now: Timestamp) -> Plan {
    let WaveView {
        wave,
        progress,
        tally,
        ..
    } = &rollout.waves[index];
    let (name, quota) = (&wave.name, progress.quota.max(tally.exposed()));
    let limited = match grant(rollout, index, now) {
        Ok(action) => {
            let text = format!("wave {name}: {} of {quota} exposed", tally.exposed());
            return Plan::act(action, Explained::new(Reason::WaveInFlight, text));
        }
        Err(limited) => limited,
    };
    let regions: Vec<_> = wave.selector.pinned_region().into_iter().collect();
    let left = quota - tally.exposed();
    if left > 0 {
        if rollout.progress.permits() == 0 {
            return Plan::wait(limited);
        }
        // Devices that may come and have not for a while are out of reach. A window that was
        // closed in the meantime proves nothing.
        let idle_since = [
            progress.started_at,
            rollout.progress.last_offer,
            rollout.progress.granted_at,
        ]
        .into_iter()
        .flatten()
        .max();
        let idle = idle_since.map_or(Duration::ZERO, |at| now.since(at));
        if !rollout.windows.any_open(&regions, now) {
            let opens = regions
                .first()
                .and_then(|r| rollout.windows.of(r))
                .or(rollout.windows.general.as_ref())
                .and_then(|w| w.at(now).changes)
                .map_or_else(String::new, |at| format!(", opens {at}"));
            let text = format!("wave {name}: {left} of {quota} to go{opens}");
            return Plan::wait(Explained::new(Reason::WindowClosed, text));
        }
        let open_long_enough = rollout.windows.any_open(&regions, now.minus(rollout.reach));
        if idle < rollout.reach || !open_long_enough {
            let text = format!("wave {name}: {left} of {quota} may ask now");
            return Plan::wait(Explained::new(Reason::WaveReachesOut, text));
        }
    }
    let flying = tally.in_flight();
    if flying > 0 {
        let text = format!(
            "wave {name}: {flying} in flight, {} of {quota} done",
            tally.finished()
        );
        return Plan::wait(Explained::new(Reason::WaveInFlight, text));
    }
    let needed = rollout.gate.min_sample.clamp(1, quota.max(1));
    if tally.finished() < needed {
        let text = format!(
            "wave {name}: {} of {needed} needed have finished; the others are offline, busy or held back",
            tally.finished()
        );
        return Plan::wait(Explained::new(Reason::SampleTooSmall, text));
    }
    Plan::act(
        Action::Soak(index),
        Explained::new(Reason::WaveSoaking, name),
    )
}

fn plan_soak(rollout: &RolloutView, index: usize, now: Timestamp) -> Plan {
    let WaveView { wave, progress, .. } = &rollout.waves[index];
    // Devices of the wave that come back online during the soak are still exposed.
    if let Ok(action) = grant(rollout, index, now) {
        return Plan::act(action, Explained::new(Reason::WaveSoaking, &wave.name));
    }
    let soaked = progress
        .soak_started
        .map(|at| now.since(at))
        .unwrap_or_default();
    if soaked < rollout.gate.soak {
        let text = format!(
            "wave {} soaks {} of {} s",
            wave.name,
            soaked.as_secs(),
            rollout.gate.soak.as_secs()
        );
        return Plan::wait(Explained::new(Reason::WaveSoaking, text));
    }
    match rollout.gate.too_few_healthy(&rollout.waves[index].judged()) {
        Some(text) => breached(rollout, index, &text),
        None => Plan::act(
            Action::Pass(index),
            Explained::new(Reason::WaveSoaking, &wave.name),
        ),
    }
}

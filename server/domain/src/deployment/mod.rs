//! The state machine of one device in one rollout.
//!
//! The device is the authority on itself: its reports may skip states whose reports were lost,
//! but never lead out of a final state or back before the switch.

pub mod report;

use std::collections::BTreeMap;

use tidegate_protocol::{
    DeploymentId, DeploymentState as State, Explained, Reason, Timestamp, Version,
};

/// A deployment, as decisions see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentFacts {
    /// Its id.
    pub id: DeploymentId,
    /// Index of the wave that admitted the device.
    pub wave: u32,
    /// Current state.
    pub state: State,
    /// Release the device ran before the rollout; `None` if it ran none.
    pub from: Option<Version>,
    /// The release of the present leg.
    pub leg: Version,
    /// Reason for that state.
    pub reason: Option<Explained>,
    /// Number of attempts begun.
    pub attempts: u32,
    /// Whether the device has begun to install in this attempt: from then on silence says
    /// something about the release.
    pub took: bool,
    /// Number of failures, by reason.
    pub failures: BTreeMap<Reason, u32>,
    /// Time of the last state change.
    pub updated_at: Timestamp,
}

/// Event that moves a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentEvent {
    /// The device reports its state.
    Reported(State),
    /// One leg of a path is done and healthy; the next one is to be offered.
    LegDone,
    /// A failed attempt is retried: the update is offered again.
    Retried,
    /// The rollout ended before the device switched.
    Cancelled,
    /// The device, which has switched, is ordered back.
    ReturnOrdered,
    /// The device was not heard from in time.
    TimedOut,
    /// Another rollout takes the device over before it switched.
    Superseded,
    /// The device is ordered back and cannot go: nothing is kept, and no way back is allowed.
    CannotReturn,
}

/// The event is not allowed in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a deployment that is {state} does not take {event:?}")]
pub struct DeploymentRefusal {
    /// Current state of the deployment.
    pub state: State,
    /// The event that was refused.
    pub event: DeploymentEvent,
}

/// Progress of a state; a device's reports never go back, except to fetch another payload.
fn rank(state: State) -> u8 {
    match state {
        State::Offered | State::Deferred => 0,
        State::Downloading => 1,
        State::Installing => 2,
        State::Verifying => 3,
        State::Probation => 4,
        State::RollingBack => 5,
        State::Succeeded
        | State::Failed
        | State::RolledBack
        | State::Cancelled
        | State::TimedOut
        | State::Superseded => 6,
    }
}

/// Returns the state after an event, or a refusal that changes nothing.
pub fn apply(state: State, event: DeploymentEvent) -> Result<State, DeploymentRefusal> {
    use DeploymentEvent as E;
    let refuse = Err(DeploymentRefusal { state, event });
    match event {
        E::Reported(next) => reported(state, next).map_or(refuse, Ok),
        // The last leg's success leaves the machine in `succeeded`; an earlier one goes on.
        E::LegDone
            if matches!(
                state,
                State::Verifying | State::Probation | State::Installing
            ) =>
        {
            Ok(State::Offered)
        }
        E::Retried if matches!(state, State::Failed | State::TimedOut) => Ok(State::Offered),
        E::Cancelled | E::Superseded if !state.is_final() && !state.has_switched() => {
            Ok(if event == E::Cancelled {
                State::Cancelled
            } else {
                State::Superseded
            })
        }
        // It was to be ordered back, but had moved on to another release by then.
        E::Superseded if state == State::Succeeded => Ok(State::Superseded),
        // A device of a completed rollout can be ordered back too.
        E::ReturnOrdered if state.has_switched() && state != State::RollingBack => {
            Ok(State::RollingBack)
        }
        E::TimedOut if !state.is_final() && !state.has_switched() => Ok(State::TimedOut),
        E::CannotReturn if state.has_switched() => Ok(State::Failed),
        E::LegDone
        | E::Retried
        | E::Cancelled
        | E::Superseded
        | E::ReturnOrdered
        | E::TimedOut
        | E::CannotReturn => refuse,
    }
}

impl DeploymentFacts {
    /// Returns the deployment after an event, or a refusal that changes nothing. A device that goes
    /// back reports the cause first and its return later: the cause is kept.
    pub fn after(
        &self,
        event: DeploymentEvent,
        reason: Option<Explained>,
        now: Timestamp,
    ) -> Result<Self, DeploymentRefusal> {
        // A device that was left behind can be ordered back again: what barred its way may be gone.
        let state = if event == DeploymentEvent::ReturnOrdered && self.is_stuck() {
            State::RollingBack
        } else {
            apply(self.state, event)?
        };
        let mut next = self.clone();
        let ended = matches!(state, State::RolledBack | State::Failed);
        next.reason = reason.or_else(|| self.reason.clone().filter(|_| ended));
        // Reporting the same state again (a second start of the trial) does not restart its clock.
        if state != self.state {
            next.updated_at = now;
        }
        next.state = state;
        next.took |= rank(state) >= rank(State::Installing)
            && !matches!(
                state,
                State::Cancelled | State::TimedOut | State::Superseded | State::Failed
            );
        // A device that waits for its window has not used the update: its silence says nothing.
        if event == DeploymentEvent::LegDone || state == State::Deferred {
            next.took = false;
        }
        if matches!(state, State::Failed | State::TimedOut)
            && let Some(reason) = &next.reason
        {
            *next.failures.entry(reason.code).or_default() += 1;
        }
        Ok(next)
    }

    /// Returns the deployment as it is offered again.
    pub fn again(&self, leg: tidegate_protocol::Version, now: Timestamp) -> Self {
        Self {
            state: State::Offered,
            leg,
            reason: None,
            attempts: self.attempts.saturating_add(1),
            took: false,
            updated_at: now,
            ..self.clone()
        }
    }

    /// Returns whether a failed attempt is retried automatically: the reason allows it, and neither that
    /// reason's retry budget nor the rollout's is used up.
    pub fn may_repeat(&self, max_attempts: u32) -> bool {
        let Some(reason) = &self.reason else {
            return false;
        };
        let spent = self.failures.get(&reason.code).copied().unwrap_or(0);
        reason.code.retryable()
            && self.attempts < max_attempts
            && spent < reason.code.retry_budget()
    }

    /// Returns whether it was ordered back and cannot go back.
    pub fn is_stuck(&self) -> bool {
        self.state == State::Failed
            && self.reason.as_ref().is_some_and(|r| {
                matches!(r.code, Reason::NoPreviousSlot | Reason::RollbackNotAllowed)
            })
    }

    /// Returns whether the last attempt failed for the machine's own sake: no room, no right to write.
    pub fn is_of_the_place(&self) -> bool {
        let reason = self.reason.as_ref();
        reason.is_some_and(|reason| reason.code.is_of_the_place())
    }

    /// Returns whether the device rolled back on its own judgement, not by order.
    pub fn came_back_by_itself(&self) -> bool {
        self.reason.as_ref().is_some_and(|r| r.code.is_failure())
    }
}

fn reported(state: State, next: State) -> Option<State> {
    // States that only the server sets.
    if matches!(next, State::Offered | State::TimedOut | State::Superseded) {
        return None;
    }
    match state {
        // A cancel that came too late: the device had switched, and it says so.
        State::Cancelled | State::TimedOut => (next.has_switched()
            || matches!(next, State::RolledBack | State::Failed))
        .then_some(next),
        State::Succeeded => matches!(next, State::RollingBack | State::RolledBack).then_some(next),
        State::Failed | State::RolledBack | State::Superseded => None,
        // While it returns, only the end of the return counts.
        State::RollingBack => {
            matches!(next, State::RolledBack | State::Failed | State::RollingBack).then_some(next)
        }
        State::Offered
        | State::Deferred
        | State::Downloading
        | State::Installing
        | State::Verifying
        | State::Probation => {
            let back_to_wait = next == State::Deferred && !state.has_switched();
            // A payload that does not apply is followed by another one.
            let another = (state, next) == (State::Installing, State::Downloading);
            (back_to_wait || another || rank(next) >= rank(state)).then_some(next)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeploymentEvent as E;

    #[test]
    fn the_usual_way_with_any_report_lost_ends_the_same() {
        let way = [
            State::Downloading,
            State::Installing,
            State::Verifying,
            State::Probation,
            State::Succeeded,
        ];
        for lost in 0..(1u32 << 4) {
            let mut state = State::Offered;
            for (i, next) in way.iter().enumerate() {
                if i == 4 || lost & (1 << i) == 0 {
                    state = apply(state, E::Reported(*next)).unwrap();
                }
            }
            assert_eq!(state, State::Succeeded);
        }
    }

    /// Every state with every event: a final state is left only where the text above says so.
    #[test]
    fn the_matrix_holds() {
        let mut events: Vec<E> = State::ALL.iter().map(|s| E::Reported(*s)).collect();
        events.extend([
            E::LegDone,
            E::Retried,
            E::Cancelled,
            E::ReturnOrdered,
            E::TimedOut,
            E::Superseded,
            E::CannotReturn,
        ]);
        for state in State::ALL {
            for event in &events {
                let Ok(next) = apply(*state, *event) else {
                    continue;
                };
                match event {
                    E::Reported(reported) => assert_eq!(next, *reported),
                    E::Superseded if *state == State::Succeeded => {}
                    E::Cancelled | E::TimedOut | E::Superseded => {
                        assert!(
                            !state.has_switched() && !state.is_final(),
                            "{state} {event:?}"
                        );
                    }
                    E::ReturnOrdered | E::CannotReturn => {
                        assert!(state.has_switched(), "{state}");
                    }
                    E::Retried => assert!(matches!(state, State::Failed | State::TimedOut)),
                    E::LegDone => assert!(!state.is_final()),
                }
                if matches!(state, State::RolledBack | State::Superseded) {
                    panic!("{state} is left by {event:?}");
                }
            }
        }
    }

    #[test]
    fn a_cancel_never_catches_a_device_that_has_switched() {
        for state in State::ALL.iter().filter(|s| s.has_switched()) {
            assert!(apply(*state, E::Cancelled).is_err());
        }
    }

    #[test]
    fn a_late_download_report_does_not_take_a_healthy_device_back() {
        assert!(apply(State::Probation, E::Reported(State::Downloading)).is_err());
        assert!(apply(State::RollingBack, E::Reported(State::Probation)).is_err());
    }
}

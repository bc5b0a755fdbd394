//! The states of a rollout.

/// State of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RolloutState {
    /// Being prepared.
    Draft,
    /// Waits for the people who must approve it.
    AwaitingApproval,
    /// Starts by itself at a set time.
    Scheduled,
    /// Admits devices.
    Running,
    /// Paused by a person; deployments under way go on.
    Paused,
    /// Stopped by a gate, or by a person in an incident; deployments that have not switched are
    /// cancelled.
    Halted,
    /// Devices that switched are being rolled back.
    RollingBack,
    /// Every device is back.
    RolledBack,
    /// Every device that can go back is back; others stay on the release.
    RolledBackPartly,
    /// Every wave passed, and every device of them runs the release.
    Completed,
    /// Every wave passed; some of their devices failed or were left out.
    CompletedPartly,
    /// Every wave passed without a device: the rollout has touched none.
    NothingToDo,
    /// Abandoned before it was complete.
    Cancelled,
}

tidegate_protocol::words!(RolloutState("rollout state") {
    Draft = "draft",
    AwaitingApproval = "awaiting_approval",
    Scheduled = "scheduled",
    Running = "running",
    Paused = "paused",
    Halted = "halted",
    RollingBack = "rolling_back",
    RolledBack = "rolled_back",
    RolledBackPartly = "rolled_back_partly",
    Completed = "completed",
    CompletedPartly = "completed_partly",
    NothingToDo = "nothing_to_do",
    Cancelled = "cancelled",
});

/// Event that moves a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutEvent {
    /// A person starts it.
    Start,
    /// A person asks for the start, and others must approve.
    AskApproval,
    /// A person schedules the start for a later time.
    Schedule,
    /// A person edits its plan.
    Edit,
    /// A person pauses it.
    Pause,
    /// A person resumes it.
    Resume,
    /// A person or a gate halts it.
    Halt,
    /// A person or a gate rolls its devices back.
    RollBack,
    /// A person cancels it.
    Cancel,
    /// Its last wave passed, and every device runs the release.
    Complete,
    /// Its last wave passed; some devices failed or were left out.
    CompletePartly,
    /// Its last wave passed, and none had a device.
    DoNothing,
    /// Its last device is back.
    Returned,
    /// Its last device that can go back is back; others cannot.
    ReturnedPartly,
}

tidegate_protocol::words!(RolloutEvent("rollout event") {
    Start = "start",
    AskApproval = "ask_approval",
    Schedule = "schedule",
    Edit = "edit",
    Pause = "pause",
    Resume = "resume",
    Halt = "halt",
    RollBack = "rollback",
    Cancel = "cancel",
    Complete = "complete",
    CompletePartly = "complete_partly",
    DoNothing = "do_nothing",
    Returned = "returned",
    ReturnedPartly = "returned_partly",
});

/// The event is not allowed in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rollout that is {state} does not take {event}")]
pub struct RolloutRefusal {
    /// Current state of the rollout.
    pub state: RolloutState,
    /// The event that was refused.
    pub event: RolloutEvent,
}

impl RolloutState {
    /// Returns the state after an event, or a refusal that changes nothing. Ordering what is
    /// already so (halting a halted rollout) is not refused: in an incident two people may press
    /// the button.
    pub fn apply(self, event: RolloutEvent) -> Result<Self, RolloutRefusal> {
        use RolloutEvent as E;
        let next = match (self, event) {
            (Self::Draft | Self::AwaitingApproval | Self::Scheduled, E::Start) => Self::Running,
            // A scheduled start is asked for when it is due, if approvals are needed by then.
            (Self::Draft | Self::AwaitingApproval | Self::Scheduled, E::AskApproval) => {
                Self::AwaitingApproval
            }
            (Self::Draft | Self::AwaitingApproval | Self::Scheduled, E::Schedule) => {
                Self::Scheduled
            }
            // The plan that was submitted for approval is no longer the plan.
            (Self::AwaitingApproval, E::Edit) => Self::Draft,
            (
                Self::Draft | Self::Scheduled | Self::Running | Self::Paused | Self::Halted,
                E::Edit,
            ) => self,
            (Self::Running | Self::Paused, E::Pause) => Self::Paused,
            (Self::Paused | Self::Halted | Self::Running, E::Resume) => Self::Running,
            // A completed rollout still updates late devices: that can be halted too.
            (
                Self::Running
                | Self::Paused
                | Self::Halted
                | Self::Completed
                | Self::CompletedPartly
                | Self::NothingToDo,
                E::Halt,
            ) => Self::Halted,
            (
                Self::Running
                | Self::Paused
                | Self::Halted
                | Self::Completed
                | Self::CompletedPartly
                | Self::NothingToDo
                | Self::Cancelled
                | Self::RollingBack,
                E::RollBack,
            ) => Self::RollingBack,
            (Self::RolledBack, E::RollBack) => self,
            // What was left behind may have a way back by now.
            (Self::RolledBackPartly, E::RollBack) => Self::RollingBack,
            (
                Self::Draft
                | Self::AwaitingApproval
                | Self::Scheduled
                | Self::Running
                | Self::Paused
                | Self::Halted
                | Self::Cancelled,
                E::Cancel,
            ) => Self::Cancelled,
            // Late devices of a completed rollout change how it ended.
            (
                Self::Running | Self::Completed | Self::CompletedPartly | Self::NothingToDo,
                E::Complete,
            ) => Self::Completed,
            (
                Self::Running | Self::Completed | Self::CompletedPartly | Self::NothingToDo,
                E::CompletePartly,
            ) => Self::CompletedPartly,
            (Self::Running | Self::NothingToDo, E::DoNothing) => Self::NothingToDo,
            (Self::RollingBack, E::Returned) => Self::RolledBack,
            (Self::RollingBack, E::ReturnedPartly) => Self::RolledBackPartly,
            (state, event) => return Err(RolloutRefusal { state, event }),
        };
        Ok(next)
    }

    /// Returns whether devices may be offered its release: those of its waves while it runs, late ones
    /// after it is complete.
    pub fn offers(self) -> bool {
        self == Self::Running || self.is_complete()
    }

    /// Returns whether every wave has passed, however its devices fared.
    pub fn is_complete(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::CompletedPartly | Self::NothingToDo
        )
    }

    /// Returns whether deployments under way that have not switched are cancelled.
    pub fn calls_off(self) -> bool {
        matches!(
            self,
            Self::Halted
                | Self::RollingBack
                | Self::RolledBack
                | Self::RolledBackPartly
                | Self::Cancelled
        )
    }

    /// Returns whether nothing more happens by itself.
    pub fn is_final(self) -> bool {
        self.is_complete()
            || matches!(
                self,
                Self::RolledBack | Self::RolledBackPartly | Self::Cancelled
            )
    }

    /// Returns whether entering this state withdraws the permission to offer: the generation must rise.
    pub fn fences_offers(self) -> bool {
        !self.offers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RolloutEvent as E;

    #[test]
    fn an_emergency_order_is_taken_in_every_state_that_has_moved_a_device() {
        use RolloutState as S;
        for state in [
            S::Running,
            S::Paused,
            S::Halted,
            S::Completed,
            S::CompletedPartly,
            S::NothingToDo,
            S::Cancelled,
            S::RollingBack,
            S::RolledBackPartly,
        ] {
            assert_eq!(state.apply(E::RollBack), Ok(S::RollingBack), "{state}");
        }
        for state in [S::Running, S::Paused, S::Halted] {
            assert_eq!(state.apply(E::Halt), Ok(S::Halted), "{state}");
        }
    }

    /// Every pair of state and event: only a person's start or resume leads to `running`.
    #[test]
    fn nothing_but_a_person_sets_a_rollout_running() {
        for state in RolloutState::ALL {
            for event in E::ALL {
                let Ok(next) = state.apply(*event) else {
                    continue;
                };
                if next == RolloutState::Running && *state != RolloutState::Running {
                    assert!(matches!(event, E::Start | E::Resume), "{state} {event}");
                }
                if state.is_final() && next != *state {
                    let late = state.is_complete() && (*event == E::Halt || next.is_complete());
                    assert!(*event == E::RollBack || late, "{state} {event}");
                }
            }
        }
    }

    #[test]
    fn a_pause_is_not_undone_by_completion() {
        for end in [E::Complete, E::CompletePartly, E::DoNothing] {
            assert!(RolloutState::Paused.apply(end).is_err());
        }
    }
}

//! The blast radius: who is exposed to a bad release, who is back, who cannot go back and why.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_protocol::{DeploymentState, Reason, Timestamp};

use crate::admission::DeploymentFacts;

/// An exposed device as an incident sees it.
#[derive(Debug, Clone)]
pub struct Exposed<'a> {
    /// Its deployment.
    pub deployment: &'a DeploymentFacts,
    /// Whether it has missed its usual check-in.
    pub silent: bool,
    /// Time the old version is kept after a healthy start.
    pub rollback_window: Duration,
    /// Whether it still runs the release that the deployment installed.
    pub runs_it: bool,
    /// Whether what people signed lets it be ordered back.
    pub way_back: Result<(), Reason>,
    /// Whether an order is about to be given: it reaches those that an earlier one left behind.
    pub ordering: bool,
}

/// Standing of an exposed device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Offered or downloading: cancelled with the next answer to it.
    BeforeSwitch,
    /// Installing or starting the new version: past the point of no return.
    Switching,
    /// On the new version with the old one kept: returns without a download.
    InsideWindow,
    /// On the new version, rollback window over: returns to the kept slot if it still holds the old
    /// version, else by a download.
    OutsideWindow,
    /// Returning.
    Returning,
    /// Back on the old version.
    Returned,
    /// Rolled back by itself, or never completed the update.
    FailedByItself,
    /// Cancelled before it switched.
    CalledOff,
    /// Has moved on to another release.
    MovedOn,
    /// On the new version, and cannot go back.
    CannotReturn(Reason),
}

/// Returns the standing of a device.
pub fn standing(device: &Exposed<'_>) -> Standing {
    use DeploymentState as S;
    let deployment = device.deployment;
    let or_stuck = |standing| match device.way_back {
        Ok(()) => standing,
        Err(reason) => Standing::CannotReturn(reason),
    };
    match deployment.state {
        S::Offered | S::Deferred | S::Downloading => Standing::BeforeSwitch,
        S::Installing | S::Verifying => Standing::Switching,
        S::TimedOut if deployment.took => Standing::Switching,
        S::Probation if deployment.from.is_some() => or_stuck(Standing::InsideWindow),
        S::Probation => Standing::CannotReturn(Reason::NoPreviousSlot),
        S::Succeeded if !device.runs_it => Standing::MovedOn,
        S::Succeeded => or_stuck(Standing::OutsideWindow),
        S::RollingBack => Standing::Returning,
        S::RolledBack if deployment.came_back_by_itself() => Standing::FailedByItself,
        S::RolledBack => Standing::Returned,
        S::Failed if deployment.is_stuck() && !device.runs_it => Standing::MovedOn,
        S::Failed if deployment.is_stuck() && device.ordering && device.way_back.is_ok() => {
            Standing::OutsideWindow
        }
        S::Failed if deployment.is_stuck() => Standing::CannotReturn(
            deployment
                .reason
                .as_ref()
                .map_or(Reason::NoPreviousSlot, |r| r.code),
        ),
        S::Failed => Standing::FailedByItself,
        S::Cancelled | S::TimedOut | S::Superseded => Standing::CalledOff,
    }
}

/// The blast-radius sheet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sheet {
    /// Devices that were ever offered the release.
    pub exposed: u64,
    /// In flight, before the point of no return.
    pub before_switch: u64,
    /// In flight, past the point of no return.
    pub switching: u64,
    /// On the release, with the old version kept.
    pub inside_window: u64,
    /// On the release, with the old version gone.
    pub outside_window: u64,
    /// Returning.
    pub returning: u64,
    /// Rolled back by order.
    pub returned: u64,
    /// Rolled back by themselves, or never completed the update.
    pub failed_by_themselves: u64,
    /// Cancelled before they switched.
    pub called_off: u64,
    /// Moved on to another release.
    pub moved_on: u64,
    /// Cannot go back, by reason.
    pub cannot_return: BTreeMap<Reason, u64>,
    /// Devices counted above that run the release, or may, and have missed their check-in.
    pub silent: u64,
    /// Time the first kept version is dropped, unless windows are extended; `None` if none is kept.
    pub first_window_ends: Option<Timestamp>,
    /// Time the last kept version is dropped.
    pub last_window_ends: Option<Timestamp>,
}

impl Sheet {
    /// Adds a device.
    pub fn add(&mut self, device: &Exposed<'_>) {
        self.exposed += 1;
        let standing = standing(device);
        let count = match standing {
            Standing::BeforeSwitch => &mut self.before_switch,
            Standing::Switching => &mut self.switching,
            Standing::InsideWindow => &mut self.inside_window,
            Standing::OutsideWindow => &mut self.outside_window,
            Standing::Returning => &mut self.returning,
            Standing::Returned => &mut self.returned,
            Standing::FailedByItself => &mut self.failed_by_themselves,
            Standing::CalledOff => &mut self.called_off,
            Standing::MovedOn => &mut self.moved_on,
            Standing::CannotReturn(reason) => self.cannot_return.entry(reason).or_default(),
        };
        *count += 1;
        let may_run_it = matches!(
            standing,
            Standing::Switching
                | Standing::InsideWindow
                | Standing::OutsideWindow
                | Standing::Returning
        );
        self.silent += u64::from(device.silent && may_run_it);
        if standing == Standing::InsideWindow {
            let ends = device.deployment.updated_at.plus(device.rollback_window);
            self.first_window_ends = Some(self.first_window_ends.map_or(ends, |t| t.min(ends)));
            self.last_window_ends = Some(self.last_window_ends.map_or(ends, |t| t.max(ends)));
        }
    }

    /// Number of devices that run the release, or may.
    pub fn still_on_it(&self) -> u64 {
        self.switching
            + self.inside_window
            + self.outside_window
            + self.returning
            + self.cannot_return.values().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tidegate_protocol::{DeploymentId, Explained};

    fn deployment(state: DeploymentState) -> DeploymentFacts {
        DeploymentFacts {
            id: DeploymentId::from_random([1; 16]),
            wave: 0,
            state,
            from: Some("1.0.0".parse().unwrap()),
            leg: "1.1.0".parse().unwrap(),
            reason: None,
            attempts: 1,
            took: false,
            failures: BTreeMap::new(),
            updated_at: Timestamp::from_secs(1_000),
        }
    }

    fn exposed(deployment: &DeploymentFacts) -> Exposed<'_> {
        Exposed {
            deployment,
            silent: false,
            runs_it: true,
            rollback_window: Duration::from_mins(30),
            way_back: Ok(()),
            ordering: false,
        }
    }

    #[test]
    fn who_was_left_behind_is_reached_by_a_later_order_once_there_is_a_way_back() {
        let mut left = deployment(DeploymentState::Failed);
        left.reason = Some(Explained::from(Reason::RollbackNotAllowed));
        let again = left.after(
            crate::deployment::DeploymentEvent::ReturnOrdered,
            Some(Reason::RollbackOrdered.into()),
            Timestamp::from_secs(2_000),
        );
        assert_eq!(again.unwrap().state, DeploymentState::RollingBack);
        let stands = |ordering, runs_it, way_back| {
            standing(&Exposed {
                runs_it,
                way_back,
                ordering,
                ..exposed(&left)
            })
        };
        let barred = Err(Reason::RollbackNotAllowed);
        let stays = Standing::CannotReturn(Reason::RollbackNotAllowed);
        assert_eq!(stands(true, true, Ok(())), Standing::OutsideWindow);
        assert_eq!(stands(true, true, barred), stays);
        // Without an order nothing is under way.
        assert_eq!(stands(false, true, Ok(())), stays);
        // A later rollout has taken it along.
        assert_eq!(stands(true, false, Ok(())), Standing::MovedOn);
        // Any other failure is no business of a rollback.
        left.reason = Some(Explained::from(Reason::DownloadFailed));
        let order = crate::deployment::DeploymentEvent::ReturnOrdered;
        assert!(left.after(order, None, Timestamp::ZERO).is_err());
    }

    #[test]
    fn every_state_stands_somewhere_and_is_counted_once() {
        let mut sheet = Sheet::default();
        for state in DeploymentState::ALL {
            sheet.add(&exposed(&deployment(*state)));
        }
        let parts = sheet.before_switch
            + sheet.called_off
            + sheet.returned
            + sheet.failed_by_themselves
            + sheet.still_on_it();
        assert_eq!(parts, sheet.exposed);
        assert_eq!(sheet.exposed, DeploymentState::ALL.len() as u64);
        assert_eq!(sheet.first_window_ends, Some(Timestamp::from_secs(2_800)));
    }

    #[test]
    fn who_cannot_go_back_is_counted_by_the_reason() {
        let mut bare = deployment(DeploymentState::Probation);
        bare.from = None;
        let late = deployment(DeploymentState::Succeeded);
        let mut stuck = deployment(DeploymentState::Failed);
        stuck.reason = Some(Explained::from(Reason::RollbackNotAllowed));
        let kept = deployment(DeploymentState::Probation);
        let mut sheet = Sheet::default();
        sheet.add(&exposed(&bare));
        for deployment in [&late, &kept] {
            sheet.add(&Exposed {
                way_back: Err(Reason::RollbackNotAllowed),
                ..exposed(deployment)
            });
        }
        sheet.add(&exposed(&stuck));
        assert_eq!(
            sheet.cannot_return,
            BTreeMap::from([(Reason::NoPreviousSlot, 1), (Reason::RollbackNotAllowed, 3)])
        );
    }

    #[test]
    fn silence_matters_only_where_the_release_may_run() {
        let mut sheet = Sheet::default();
        for state in [DeploymentState::Cancelled, DeploymentState::Installing] {
            sheet.add(&Exposed {
                silent: true,
                ..exposed(&deployment(state))
            });
        }
        assert_eq!(sheet.silent, 1);
    }
}

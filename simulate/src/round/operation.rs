//! Operations of a device's agent: they take time, and may fail.

use tidegate_machine::fsm::{self, Effect, Phase};
use tidegate_protocol::{Explained, Reason, Version};
use tidegate_trust::assignment::Action;

use crate::device::Busy;
use crate::scenario::Failure;
use crate::world::{Page, World};

impl<'a> World<'a> {
    pub(super) fn begin(&mut self, index: usize, effect: Effect) {
        let spec = self.group(index);
        let end = self.scenario.duration;
        let now = self.now;
        let naive = self.naive;
        let (busy, length) = match effect {
            Effect::Download(job) => {
                let bytes = job.payloads.first().map_or(0, |p| p.bytes);
                let device = &mut self.devices[index];
                if naive {
                    device.stopped_at.get_or_insert(now);
                }
                match device.link.carries(spec, now, bytes, !naive, end) {
                    Some((done, carried)) => {
                        device.bytes += carried;
                        (Busy::Downloading, done - now)
                    }
                    // Not finished within the scenario: it goes on until its end.
                    None => (Busy::Downloading, end + 1),
                }
            }
            Effect::Stage(_) => (Busy::Staging, spec.install),
            Effect::Switch(_) => {
                self.devices[index].stopped_at.get_or_insert(now);
                self.feed(index, fsm::Event::Switched(fsm::Activation::Live));
                return;
            }
            Effect::CheckHealth(_) => (Busy::Restarting, spec.restart),
            Effect::Return(_) => {
                self.devices[index].stopped_at.get_or_insert(now);
                (Busy::Returning, spec.restart)
            }
            Effect::DropDownload | Effect::GiveBack(_) | Effect::Restart => return,
        };
        self.occupy(index, busy, length);
    }

    fn occupy(&mut self, index: usize, busy: Busy, length: u64) {
        let device = &mut self.devices[index];
        device.operation += 1;
        device.busy = Some(busy);
        let (operation, ends) = (device.operation, self.now + length.max(1));
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        self.write(ends, Page::Ends(number, operation));
    }

    fn failure(&self, index: usize, release: &Version) -> Option<&'a Failure> {
        let spec = self.group(index);
        let facts = self.devices[index].facts(spec, self.now);
        self.scenario
            .failure
            .iter()
            .find(|f| f.release == *release && f.selector.matches(facts.selectable()))
    }

    /// Handles the end of a device's operation.
    pub(crate) fn ends(&mut self, index: usize, operation: u32) {
        let device = &mut self.devices[index];
        if device.operation != operation || device.dead {
            return;
        }
        let Some(busy) = device.busy.take() else {
            return;
        };
        match busy {
            Busy::Downloading => {
                let bytes = device.bytes;
                self.feed(index, fsm::Event::Downloaded { bytes });
            }
            Busy::Staging => {
                let late = device.switch_by.is_some_and(|by| self.now >= by);
                let event = if late {
                    fsm::Event::StagedTooLate
                } else {
                    fsm::Event::Staged
                };
                self.feed(index, event);
            }
            Busy::Restarting => self.started(index),
            Busy::Returning => {
                let ordered = matches!(
                    &device.record.phase,
                    Phase::Returning { reason, .. } if reason.code == Reason::RollbackOrdered
                );
                self.runs_again(index);
                self.feed(index, fsm::Event::Returned);
                if ordered {
                    self.last_back = Some(self.now);
                }
                self.plan_turning_bad(index);
            }
            Busy::Window => {
                let window = match &device.record.phase {
                    Phase::Probation { job, .. } => job.rollback_window_s,
                    _ => 0,
                };
                self.feed(index, fsm::Event::WindowPassed(window));
            }
        }
        // There is something to report.
        if !self.devices[index].record.outbox.is_empty() {
            self.plan_check_in(index, self.now + 1);
        }
    }

    fn runs_again(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if let Some(since) = device.stopped_at.take() {
            device.downtime += self.now - since;
        }
    }

    /// Handles the start of a version: it is healthy, or not, or the device is never heard from
    /// again.
    fn started(&mut self, index: usize) {
        let release = self.devices[index].runs().cloned();
        if let Phase::Trial { job, .. } = &self.devices[index].record.phase
            && job.action == Action::Rollback
        {
            self.last_back = Some(self.now);
        }
        let failure = release
            .as_ref()
            .and_then(|r| self.failure(index, r))
            .cloned();
        let device = &mut self.devices[index];
        if let Some(failure) = failure {
            if device
                .chance
                .happens(Failure::millionths(failure.silent_percent))
            {
                device.dead = true;
                return;
            }
            if device
                .chance
                .happens(Failure::millionths(failure.unhealthy_percent))
            {
                let reason = Explained::from(Reason::HealthFailed);
                self.feed(index, fsm::Event::Unhealthy(reason));
                return;
            }
        }
        self.runs_again(index);
        self.feed(index, fsm::Event::Healthy);
        let device = &mut self.devices[index];
        let goal = self
            .control
            .rollouts
            .iter()
            .any(|r| Some(&r.release) == release.as_ref());
        if goal && !device.was_on_goal {
            device.arrivals += 1;
        }
        device.was_on_goal = goal;
        let window = match &device.record.phase {
            Phase::Probation { job, .. } => Some(job.rollback_window_s),
            _ => None,
        };
        if let Some(window) = window {
            self.occupy(index, Busy::Window, u64::from(window));
        }
        self.plan_turning_bad(index);
    }

    /// Plans when a device turns bad on whatever it runs, if it may.
    pub(crate) fn plan_turning_bad(&mut self, index: usize) {
        let Some(release) = self.devices[index].runs().cloned() else {
            return;
        };
        let Some(failure) = self.failure(index, &release) else {
            return;
        };
        let hourly = u64::from(Failure::millionths(failure.per_hour_percent));
        if hourly == 0 {
            return;
        }
        let mean = 3_600 * 1_000_000 / hourly;
        let when = self.now + self.devices[index].chance.memoryless(mean);
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let release = self
            .scenario
            .release
            .iter()
            .position(|r| r.version == release);
        let release = u8::try_from(release.unwrap_or(0)).unwrap_or(0);
        self.write(when, Page::TurnsBad(number, release));
    }

    pub(crate) fn turns_bad(&mut self, index: usize, release: u8) {
        let device = &self.devices[index];
        let runs = self
            .scenario
            .release
            .get(usize::from(release))
            .map(|r| &r.version);
        if device.dead || device.runs() != runs {
            return;
        }
        self.turned_bad.resize(self.control.rollouts.len(), (0, 0));
        for (number, rollout) in self.control.rollouts.iter().enumerate() {
            if Some(&rollout.release) == runs {
                self.turned_bad[number].0 += 1;
            } else if !device.deployments.contains_key(&rollout.id) {
                self.turned_bad[number].1 += 1;
            }
        }
    }
}

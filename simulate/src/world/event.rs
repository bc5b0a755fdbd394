//! Events of a scenario: orders of people, and faults of the control plane.

use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::hold::Hold;
use tidegate_domain::rollout::{RolloutEvent, find_cluster};
use tidegate_domain::selector::Selector;
use tidegate_protocol::{Explained, HoldId, Reason};

use super::{HEARS_WITHIN, World};
use crate::scenario::{Event, ScenarioError, What};

impl World<'_> {
    pub(super) fn befall(&mut self, event: &Event) -> Result<(), ScenarioError> {
        let order = match event.what {
            What::Pause => RolloutEvent::Pause,
            What::Resume => RolloutEvent::Resume,
            What::Halt => RolloutEvent::Halt,
            What::Rollback => RolloutEvent::RollBack,
            What::LeaderLost => {
                self.say(format!(
                    "the leader is lost; another one takes over after {} s",
                    event.lasts
                ));
                self.leader_back = self.now + event.lasts;
                return Ok(());
            }
            What::ClockBack => {
                self.say(format!("the clock goes back by {} s", event.lasts));
                self.behind += event.lasts;
                return Ok(());
            }
            What::Hold => {
                self.hold(event.rollout, event.selector.clone());
                return Ok(());
            }
            What::HoldSuggested => {
                let samples = self.control.samples(event.rollout, &self.scenario.devices);
                let limit = self.control.rollouts[event.rollout].policy.gate.max_failure;
                let Some(cluster) = find_cluster(&samples, limit) else {
                    self.say("no hold is suggested");
                    return Ok(());
                };
                self.say(format!(
                    "{} of {} with {} failed, {} of {} others: held",
                    cluster.failed,
                    cluster.finished,
                    cluster.selector,
                    cluster.others_failed,
                    cluster.others_finished
                ));
                self.hold(event.rollout, cluster.selector);
                RolloutEvent::Resume
            }
        };
        if event.what == What::Rollback && event.selector != Selector::default() {
            self.return_selected(event.rollout, &event.selector);
            return Ok(());
        }
        let was = self.control.rollouts[event.rollout].state;
        self.control.order(event.rollout, order)?;
        let rollout = &self.control.rollouts[event.rollout];
        let text = format!(
            "{}: a person orders {order}: {was} -> {}",
            rollout.release, rollout.state
        );
        self.say(text);
        self.changed(event.rollout);
        self.dirty = true;
        Ok(())
    }

    /// Rolls back the selected devices of a halted rollout, one by one.
    fn return_selected(&mut self, rollout: usize, selector: &Selector) {
        let (id, goal) = {
            let rollout = &self.control.rollouts[rollout];
            (rollout.id, rollout.release.clone())
        };
        self.say(format!(
            "{goal}: a person orders a rollback of the devices with {selector}"
        ));
        let now = self.at();
        for index in 0..self.devices.len() {
            let spec = self.group(index);
            let selected = selector.matches(self.devices[index].facts(spec, self.now).selectable());
            let device = &mut self.devices[index];
            let Some(deployment) = device.deployments.get(&id).map(|d| d.id) else {
                continue;
            };
            let order = DeploymentEvent::ReturnOrdered;
            let why = Some(Explained::from(Reason::RollbackOrdered));
            if selected
                && self
                    .control
                    .happen(device, deployment, order, why, now, self.now)
            {
                let hears = self.now + 1 + self.devices[index].chance.below(HEARS_WITHIN);
                self.plan_check_in(index, hears);
            }
        }
        self.dirty = true;
    }

    fn hold(&mut self, rollout: usize, selector: Selector) {
        let number = u8::try_from(self.control.plan.holds.len()).unwrap_or(u8::MAX);
        self.control.plan.holds.push(Hold {
            id: HoldId::from_random([number; 16]),
            release: Some(self.control.rollouts[rollout].release.clone()),
            selector,
            reason: "held in the scenario".into(),
            link: String::new(),
        });
    }
}

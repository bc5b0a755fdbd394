//! Rounds of one device with the control plane, and the operations of its agent.

mod operation;

use tidegate_domain::admission::{Verdict, decide};
use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::rollout::RolloutState;
use tidegate_machine::fsm::{self, Job, Phase, step};
use tidegate_protocol::{DeploymentId, DeploymentState, Timestamp, Version};
use tidegate_trust::assignment::{Action, Payload};

use crate::control::image;
use crate::world::World;

impl World<'_> {
    /// Runs a device's planned check-in, if the device is alive and its link is up.
    pub(crate) fn check_in(&mut self, index: usize) {
        let spec = self.group(index);
        let device = &mut self.devices[index];
        if device.next_check_in != self.now || device.dead {
            return;
        }
        if let Err(up) = device.link.at(spec, self.now) {
            self.plan_check_in(index, up);
            return;
        }
        self.check_ins += 1;
        device.last_seen = self.now;
        let now = self.at();
        let device = &mut self.devices[index];
        device.low_since = if device.battery(self.now).is_low() {
            device.low_since.or(Some(now))
        } else {
            None
        };
        while let Some(report) = self.devices[index].record.outbox.first().cloned() {
            let device = &mut self.devices[index];
            self.control.report(device, &report, now, self.now);
            self.feed(index, fsm::Event::Acknowledged(report.seq));
            self.dirty = true;
        }
        let asks_again = self.answer(index, now);
        let poll = self.scenario.poll;
        let device = &mut self.devices[index];
        // A tenth of jitter, as in the agent.
        let mut next = self.now + poll + device.chance.below(poll / 10 + 1);
        if !device.record.outbox.is_empty() {
            next = self.now + 1;
        } else if let Some(again) = asks_again {
            next = next.min(self.now + again.since(now).as_secs() + 1);
        }
        self.plan_check_in(index, next);
    }

    /// Decides what to tell the device and passes it to its agent; returns when the device should
    /// ask again.
    fn answer(&mut self, index: usize, now: Timestamp) -> Option<Timestamp> {
        let spec = self.group(index);
        let control = &self.control;
        let permits = |id| control.permits(id);
        let device = &self.devices[index];
        let facts = device.facts(spec, self.now);
        let decision = decide(&control.plan, &facts, now, &permits, &mut ());
        match decision.verdict {
            Verdict::Nothing => {}
            Verdict::Offer(offer) => {
                let state = self.control.rollout(offer.rollout).map(|r| r.state);
                if !state.is_some_and(RolloutState::offers) {
                    self.offers_after_halt += 1;
                }
                let device = &mut self.devices[index];
                if let Some(id) = self.control.offer(device, &offer, now, self.now) {
                    self.dirty = true;
                    let job = self.job(
                        index,
                        id,
                        Action::Install,
                        &offer.leg,
                        offer.rollback_window_s,
                    );
                    self.assign(index, job, offer.switch_within_s);
                }
            }
            Verdict::Repeat {
                deployment,
                leg,
                rollback_window_s,
                switch_within_s,
                ..
            } => {
                let knows = self.devices[index]
                    .record
                    .status()
                    .is_some_and(|(id, state, _)| {
                        id == deployment && state != DeploymentState::Deferred
                    });
                if !knows {
                    let job = self.job(index, deployment, Action::Install, &leg, rollback_window_s);
                    self.assign(index, job, switch_within_s);
                }
            }
            Verdict::Return { deployment, to, .. } => {
                let device = &mut self.devices[index];
                let order = DeploymentEvent::ReturnOrdered;
                let why = Some(decision.reason);
                self.dirty |= self
                    .control
                    .happen(device, deployment, order, why, now, self.now);
                let job = self.job(index, deployment, Action::Rollback, &to, 0);
                self.assign(index, job, None);
            }
            Verdict::Left { deployment } => {
                let device = &mut self.devices[index];
                let order = DeploymentEvent::Superseded;
                let why = Some(decision.reason);
                self.control
                    .happen(device, deployment, order, why, now, self.now);
                self.dirty = true;
            }
            Verdict::Stuck { deployment } => {
                let device = &mut self.devices[index];
                let order = DeploymentEvent::CannotReturn;
                self.control.happen(
                    device,
                    deployment,
                    order,
                    Some(decision.reason),
                    now,
                    self.now,
                );
                self.dirty = true;
            }
            Verdict::Cancel { deployment, .. } => {
                let device = &mut self.devices[index];
                let order = DeploymentEvent::Cancelled;
                self.control.happen(
                    device,
                    deployment,
                    order,
                    Some(decision.reason),
                    now,
                    self.now,
                );
                self.dirty = true;
                self.feed(index, fsm::Event::CalledOff(deployment));
                if self.devices[index].record.phase == Phase::Idle {
                    self.devices[index].operation += 1;
                    self.devices[index].busy = None;
                }
            }
        }
        decision.again
    }

    fn job(
        &mut self,
        index: usize,
        deployment: DeploymentId,
        action: Action,
        to: &Version,
        rollback_window_s: u32,
    ) -> Option<Job> {
        let spec = self.scenario.release.iter().find(|r| r.version == *to)?;
        let own = image(&self.scenario.release, to)?;
        let device = &self.devices[index];
        let delta = device
            .runs()
            .and_then(|runs| spec.delta.get(runs))
            .filter(|_| !self.naive);
        let bytes = delta.copied().unwrap_or(spec.bytes);
        let payload = Payload {
            manifest: own.sha256,
            manifest_length: 1_000,
            from: None,
            bytes,
        };
        Some(Job {
            deployment,
            action,
            target: fsm::Installed {
                format: "tar".into(),
                release: to.clone(),
                image: own,
                health: None,
            },
            rollback_window_s,
            again: false,
            signed_window_s: 0,
            switch_within_s: None,
            payloads: vec![payload],
            payload: 0,
            slot: device.record.inactive(),
            bytes: 0,
            kept: false,
            cuts: 0,
            min_release: None,
        })
    }

    fn assign(&mut self, index: usize, job: Option<Job>, switch_within_s: Option<u32>) {
        let Some(mut job) = job else { return };
        job.switch_within_s = switch_within_s.filter(|_| !self.naive);
        self.devices[index].switch_by = job.switch_within_s.map(|s| self.now + u64::from(s));
        self.counter += 1;
        let counter = self.counter;
        self.feed(index, fsm::Event::Assigned(Box::new(job), counter));
    }

    /// Steps the agent's state machine, and begins the effects it asks for.
    fn feed(&mut self, index: usize, event: fsm::Event) {
        let record = std::mem::take(&mut self.devices[index].record);
        let (record, effects) = step(record, event);
        self.devices[index].record = record;
        for effect in effects {
            self.begin(index, effect);
        }
    }
}

//! Time, and what happens in it: a calendar with one page a second.

use tidegate_agent::fsm::{self, Effect, Job, Phase, step};
use tidegate_domain::admission::{Verdict, decide};
use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::hold::Hold;
use tidegate_domain::rollout::{
    Outcome as Counts, RolloutEvent, RolloutState, Stratum, find_cluster, forecast,
};
use tidegate_domain::selector::Selector;
use tidegate_protocol::{
    DeploymentId, DeploymentState, Explained, HoldId, Reason, Timestamp, Version,
};
use tidegate_trust::assignment::{Action, Payload};

use crate::control::{Control, image};
use crate::device::{Busy, Device};
use crate::scenario::{Failure, Group, Scenario, ScenarioError, What};
use crate::sheet::{self, Line, Outcome};

/// How often the planner looks when nothing calls it, in seconds, and how often it looks at most.
const IDLE_TICK: u64 = 30;
const BUSY_TICK: u64 = 2;
/// How often the silent are counted, in seconds.
const LOOK: u64 = 30;
/// Within so many seconds a connected device hears an order, spread over them.
const HEARS_WITHIN: u64 = 2;

#[derive(Debug, Clone, Copy)]
enum Page {
    CheckIn(u32),
    /// What a device is busy with ends.
    Ends(u32, u32),
    /// A device turns bad late, on the release that it runs at this time.
    TurnsBad(u32, u8),
}

pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    naive: bool,
    control: Control,
    devices: Vec<Device>,
    calendar: Vec<Vec<Page>>,
    now: u64,
    /// Seconds that the control plane's clock has gone back.
    behind: u64,
    leader_back: u64,
    dirty: bool,
    looked: u64,
    turned_bad: Vec<(u64, u64)>,
    counter: u64,
    lines: Vec<Line>,
    check_ins: u64,
    peak: (u64, u64),
    offers_after_halt: u64,
    halted_at: Option<u64>,
    last_back: Option<u64>,
    late_warning: bool,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, naive: bool) -> Result<Self, ScenarioError> {
        let control = Control::new(scenario, naive)?;
        let mut devices = Vec::new();
        for (number, spec) in (0u16..).zip(&scenario.devices) {
            let own = image(&scenario.release, &spec.release)
                .ok_or_else(|| ScenarioError(format!("{} is no release", spec.release)))?;
            for _ in 0..spec.count {
                let index = u32::try_from(devices.len()).unwrap_or(u32::MAX);
                devices.push(Device::new(index, number, spec, own, scenario.seed));
            }
        }
        let pages = usize::try_from(scenario.duration + 1).unwrap_or(usize::MAX);
        let mut world = Self {
            scenario,
            naive,
            turned_bad: Vec::new(),
            control,
            calendar: vec![Vec::new(); pages],
            now: 0,
            behind: 0,
            leader_back: 0,
            dirty: true,
            looked: 0,
            counter: 0,
            lines: Vec::new(),
            check_ins: 0,
            peak: (0, 0),
            offers_after_halt: 0,
            halted_at: None,
            last_back: None,
            late_warning: false,
            devices,
        };
        for index in 0..world.devices.len() {
            // A fleet that runs already: its check-ins are anywhere in the interval.
            let first = world.devices[index].chance.below(scenario.poll);
            world.plan_check_in(index, first);
            world.plan_turning_bad(index);
        }
        Ok(world)
    }

    fn at(&self) -> Timestamp {
        let seconds = self.now.saturating_sub(self.behind);
        self.scenario
            .start
            .plus(std::time::Duration::from_secs(seconds))
    }

    fn group(&self, index: usize) -> &'a Group {
        &self.scenario.devices[usize::from(self.devices[index].group)]
    }

    fn write(&mut self, second: u64, page: Page) {
        if let Some(list) = usize::try_from(second)
            .ok()
            .and_then(|s| self.calendar.get_mut(s))
        {
            list.push(page);
        }
    }

    fn say(&mut self, text: impl Into<String>) {
        self.lines.push(Line {
            second: self.now,
            text: text.into(),
        });
    }

    fn plan_check_in(&mut self, index: usize, second: u64) {
        self.devices[index].next_check_in = second;
        self.write(
            second,
            Page::CheckIn(u32::try_from(index).unwrap_or(u32::MAX)),
        );
    }

    pub(crate) fn run(mut self) -> Result<Outcome, ScenarioError> {
        let scenario = self.scenario;
        for second in 0..=scenario.duration {
            self.now = second;
            for spec in scenario.rollout.iter().filter(|r| r.at == second) {
                self.control.start(scenario, spec, self.naive)?;
                self.say(format!("rollout of {} starts", spec.release));
                self.dirty = true;
            }
            if !self.naive {
                for event in scenario.event.iter().filter(|e| e.at == second) {
                    self.befall(event)?;
                }
            }
            let before = self.check_ins;
            let mut at = 0;
            // What happens in this second may add to it.
            while at < self.calendar[second as usize].len() {
                let page = self.calendar[second as usize][at];
                at += 1;
                match page {
                    Page::CheckIn(device) => self.check_in(device as usize)?,
                    Page::Ends(device, operation) => self.ends(device as usize, operation)?,
                    Page::TurnsBad(device, release) => self.turns_bad(device as usize, release),
                }
            }
            self.calendar[second as usize] = Vec::new();
            let came = self.check_ins - before;
            if came > self.peak.0 {
                self.peak = (came, second);
            }
            self.lead(second)?;
        }
        Ok(sheet::collect(
            self.scenario,
            &self.control,
            &self.devices,
            sheet::Measured {
                lines: self.lines,
                peak: self.peak,
                check_ins: self.check_ins,
                offers_after_halt: self.offers_after_halt,
                halted_at: self.halted_at,
                last_back: self.last_back,
            },
        ))
    }

    /// The leader's rounds: when something changed, and now and then in any case.
    fn lead(&mut self, second: u64) -> Result<(), ScenarioError> {
        let due = if self.dirty { BUSY_TICK } else { IDLE_TICK };
        if !second.is_multiple_of(due) || second < self.leader_back {
            return Ok(());
        }
        self.dirty = false;
        for rollout in &mut self.control.rollouts {
            let after = rollout.policy.gate.silent_after;
            let at = self.scenario.start.plus(std::time::Duration::from_secs(
                second.saturating_sub(self.behind),
            ));
            let mut marked: Vec<_> = rollout.tallies.iter_mut().collect();
            rollout.lag.mark(&mut marked, after, at);
        }
        if second >= self.looked + LOOK {
            self.looked = second;
            self.look();
        }
        for index in 0..self.control.rollouts.len() {
            let was = self.control.rollouts[index].state;
            let now = self.at();
            let said = self
                .control
                .tick(index, &self.devices, &self.scenario.devices, now)?;
            let goal = self.control.rollouts[index].goal.clone();
            let acted = !said.is_empty();
            for text in said {
                self.say(format!("{goal}: {text}"));
            }
            let is = self.control.rollouts[index].state;
            if is != was {
                self.changed(index);
            }
            self.dirty |= acted;
            if !self.late_warning && is == RolloutState::Running && second.is_multiple_of(600) {
                let outlook = forecast(&self.control.view(index), now);
                if outlook.on_time == Some(false) && outlook.measured {
                    self.late_warning = true;
                    self.say(format!(
                        "{goal}: the forecast says that the deadline will be missed"
                    ));
                }
            }
        }
        Ok(())
    }

    /// An order reaches everybody who is connected, spread over a moment.
    fn changed(&mut self, index: usize) {
        let rollout = &self.control.rollouts[index];
        let (id, state) = (rollout.id, rollout.state);
        if !state.calls_off() {
            // Nothing that anybody who is under way must hear at once.
            return;
        }
        self.halted_at.get_or_insert(self.now);
        for device in 0..self.devices.len() {
            let deployment = self.devices[device].deployments.get(&id).map(|d| d.state);
            let concerned = deployment.is_some_and(|d| {
                !d.is_final() || (state == RolloutState::RollingBack && d.has_switched())
            });
            if concerned {
                let hears = self.now + 1 + self.devices[device].chance.below(HEARS_WITHIN);
                self.plan_check_in(device, hears);
            }
        }
    }

    fn befall(&mut self, event: &crate::scenario::Event) -> Result<(), ScenarioError> {
        let order = match event.what {
            What::Pause => RolloutEvent::Pause,
            What::Resume => RolloutEvent::Resume,
            What::Halt => RolloutEvent::Halt,
            What::Rollback => RolloutEvent::RollBack,
            What::LeaderLost => {
                self.say(format!(
                    "the leader is lost, another leads after {} s",
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
                // What has failed is known and dealt with: the gate begins anew.
                for tally in &mut self.control.rollouts[event.rollout].tallies {
                    *tally = tally.with(Counts::Failed, 0);
                }
                RolloutEvent::Resume
            }
        };
        if event.what == What::Rollback && event.selector != Selector::default() {
            return self.return_selected(event.rollout, &event.selector);
        }
        let was = self.control.rollouts[event.rollout].state;
        self.control.order(event.rollout, order)?;
        let rollout = &self.control.rollouts[event.rollout];
        let text = format!(
            "{}: a person orders {order}: {was} -> {}",
            rollout.goal, rollout.state
        );
        self.say(text);
        self.changed(event.rollout);
        self.dirty = true;
        Ok(())
    }

    /// Sends some devices of a halted rollout back, one by one.
    fn return_selected(
        &mut self,
        rollout: usize,
        selector: &Selector,
    ) -> Result<(), ScenarioError> {
        let (id, goal) = {
            let rollout = &self.control.rollouts[rollout];
            (rollout.id, rollout.goal.clone())
        };
        self.say(format!(
            "{goal}: a person orders the devices with {selector} back"
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
        Ok(())
    }

    fn hold(&mut self, rollout: usize, selector: Selector) {
        let number = u8::try_from(self.control.plan.holds.len()).unwrap_or(u8::MAX);
        self.control.plan.holds.push(Hold {
            id: HoldId::from_random([number; 16]),
            release: Some(self.control.rollouts[rollout].goal.clone()),
            selector,
            reason: "held in the scenario".into(),
            link: String::new(),
        });
    }

    /// Counts the silent, gives up who was not heard of for too long, and compares old and new.
    fn look(&mut self) {
        let now = self.at();
        for index in 0..self.control.rollouts.len() {
            let rollout = &mut self.control.rollouts[index];
            let (id, timeout) = (rollout.id, rollout.timeout);
            let silent_after = rollout.policy.gate.silent_after.as_secs();
            for tally in &mut rollout.tallies {
                tally.quiet_taking = 0;
                tally.quiet_probation = 0;
            }
            if self.naive {
                continue;
            }
            let mut given_up = Vec::new();
            for (number, device) in self.devices.iter().enumerate() {
                let Some(deployment) = device.deployments.get(&id) else {
                    continue;
                };
                let unheard = self.now.saturating_sub(device.last_seen);
                if unheard <= silent_after {
                    continue;
                }
                let tally = &mut rollout.tallies[deployment.wave as usize];
                match deployment.state {
                    DeploymentState::Installing | DeploymentState::Verifying => {
                        tally.quiet_taking += 1
                    }
                    DeploymentState::Probation => tally.quiet_probation += 1,
                    _ => {}
                }
                if unheard > timeout && !deployment.state.is_final() {
                    given_up.push((number, deployment.id));
                }
            }
            for (number, deployment) in given_up {
                let device = &mut self.devices[number];
                let reason = Some(Explained::from(Reason::TimedOut));
                let event = DeploymentEvent::TimedOut;
                self.control
                    .happen(device, deployment, event, reason, now, self.now);
            }
            let (bad_new, bad_old) = self.turned_bad.get(index).copied().unwrap_or_default();
            if bad_new + bad_old > 0 {
                let rollout = &mut self.control.rollouts[index];
                let exposed: u64 = rollout
                    .tallies
                    .iter()
                    .map(tidegate_domain::rollout::Tally::exposed)
                    .sum();
                let healthy: u64 = rollout
                    .tallies
                    .iter()
                    .map(tidegate_domain::rollout::Tally::healthy)
                    .sum();
                rollout.strata.push(Stratum {
                    risk_new: healthy.max(bad_new),
                    risk_old: (self.devices.len() as u64)
                        .saturating_sub(exposed)
                        .max(bad_old),
                    bad_new,
                    bad_old,
                });
                self.turned_bad[index] = (0, 0);
                self.dirty = true;
            }
        }
    }

    /// A device asks, if it can.
    fn check_in(&mut self, index: usize) -> Result<(), ScenarioError> {
        let spec = self.group(index);
        let device = &mut self.devices[index];
        if device.next_check_in != self.now || device.dead {
            return Ok(());
        }
        if let Err(up) = device.link.at(spec, self.now) {
            self.plan_check_in(index, up);
            return Ok(());
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
            self.feed(index, fsm::Event::Acknowledged(report.seq))?;
            self.dirty = true;
        }
        let asks_again = self.answer(index, now)?;
        let poll = self.scenario.poll;
        let device = &mut self.devices[index];
        // A tenth of jitter, as the agent has it.
        let mut next = self.now + poll + device.chance.below(poll / 10 + 1);
        if !device.record.outbox.is_empty() {
            next = self.now + 1;
        } else if let Some(again) = asks_again {
            next = next.min(self.now + again.since(now).as_secs() + 1);
        }
        self.plan_check_in(index, next);
        Ok(())
    }

    /// Decides what the device is told and lets its agent hear it; when it should ask again.
    fn answer(&mut self, index: usize, now: Timestamp) -> Result<Option<Timestamp>, ScenarioError> {
        let spec = self.group(index);
        let control = &self.control;
        let room = |id| control.room(id);
        let device = &self.devices[index];
        let facts = device.facts(spec, self.now);
        let decision = decide(&control.plan, &facts, now, &room, &mut ());
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
                    let job = self.job(index, id, Action::Install, &offer.leg, offer.window_s);
                    self.assign(index, job, offer.switch_within_s)?;
                }
            }
            Verdict::Repeat {
                deployment,
                leg,
                window_s,
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
                    let job = self.job(index, deployment, Action::Install, &leg, window_s);
                    self.assign(index, job, switch_within_s)?;
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
                self.assign(index, job, None)?;
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
                self.feed(index, fsm::Event::CalledOff(deployment))?;
                if self.devices[index].record.phase == Phase::Idle {
                    self.devices[index].operation += 1;
                    self.devices[index].busy = None;
                }
            }
        }
        Ok(decision.again)
    }

    fn job(
        &mut self,
        index: usize,
        deployment: DeploymentId,
        action: Action,
        to: &Version,
        window_s: u32,
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
                release: to.clone(),
                image: own,
                health: None,
            },
            window_s,
            switch_within_s: None,
            payloads: vec![payload],
            payload: 0,
            slot: device.record.inactive(),
            bytes: 0,
            min_release: None,
        })
    }

    fn assign(
        &mut self,
        index: usize,
        job: Option<Job>,
        switch_within_s: Option<u32>,
    ) -> Result<(), ScenarioError> {
        let Some(mut job) = job else { return Ok(()) };
        job.switch_within_s = switch_within_s.filter(|_| !self.naive);
        self.devices[index].switch_by = job.switch_within_s.map(|s| self.now + u64::from(s));
        self.counter += 1;
        let counter = self.counter;
        self.feed(index, fsm::Event::Assigned(Box::new(job), counter))
    }

    /// Lets the agent's machine step, and begins what it asks for.
    fn feed(&mut self, index: usize, event: fsm::Event) -> Result<(), ScenarioError> {
        let record = std::mem::take(&mut self.devices[index].record);
        let (record, effects) = step(record, event);
        self.devices[index].record = record;
        for effect in effects {
            self.begin(index, effect)?;
        }
        Ok(())
    }

    fn begin(&mut self, index: usize, effect: Effect) -> Result<(), ScenarioError> {
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
                    // Not within the scenario: it goes on until its end.
                    None => (Busy::Downloading, end + 1),
                }
            }
            Effect::Stage(_) => (Busy::Staging, spec.install),
            Effect::Switch(_) => {
                self.devices[index].stopped_at.get_or_insert(now);
                return Ok(());
            }
            Effect::CheckHealth(_) => (Busy::Restarting, spec.restart),
            Effect::Return(_) => {
                self.devices[index].stopped_at.get_or_insert(now);
                (Busy::Returning, spec.restart)
            }
            Effect::DropDownload => return Ok(()),
        };
        self.occupy(index, busy, length);
        Ok(())
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

    /// What a device was busy with has ended.
    fn ends(&mut self, index: usize, operation: u32) -> Result<(), ScenarioError> {
        let device = &mut self.devices[index];
        if device.operation != operation || device.dead {
            return Ok(());
        }
        let Some(busy) = device.busy.take() else {
            return Ok(());
        };
        match busy {
            Busy::Downloading => {
                let bytes = device.bytes;
                self.feed(index, fsm::Event::Downloaded { bytes })?;
            }
            Busy::Staging => {
                let late = device.switch_by.is_some_and(|by| self.now >= by);
                let event = if late {
                    fsm::Event::StagedTooLate
                } else {
                    fsm::Event::Staged
                };
                self.feed(index, event)?;
            }
            Busy::Restarting => self.started(index)?,
            Busy::Returning => {
                let ordered = matches!(
                    &device.record.phase,
                    Phase::Returning { reason, .. } if reason.code == Reason::RollbackOrdered
                );
                self.runs_again(index);
                self.feed(index, fsm::Event::Returned)?;
                if ordered {
                    self.last_back = Some(self.now);
                }
                self.plan_turning_bad(index);
            }
            Busy::Window => {
                let window = match &device.record.phase {
                    Phase::Probation { job, .. } => job.window_s,
                    _ => 0,
                };
                self.feed(index, fsm::Event::WindowPassed(window))?;
            }
        }
        // There is something to tell.
        if !self.devices[index].record.outbox.is_empty() {
            self.plan_check_in(index, self.now + 1);
        }
        Ok(())
    }

    fn runs_again(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if let Some(since) = device.stopped_at.take() {
            device.stood_still += self.now - since;
        }
    }

    /// A version has started: it is healthy, or not, or the device is never heard of again.
    fn started(&mut self, index: usize) -> Result<(), ScenarioError> {
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
                return Ok(());
            }
            if device
                .chance
                .happens(Failure::millionths(failure.unhealthy_percent))
            {
                let reason = Explained::from(Reason::HealthFailed);
                return self.feed(index, fsm::Event::Unhealthy(reason));
            }
        }
        self.runs_again(index);
        self.feed(index, fsm::Event::Healthy)?;
        let device = &mut self.devices[index];
        let goal = self
            .control
            .rollouts
            .iter()
            .any(|r| Some(&r.goal) == release.as_ref());
        if goal && !device.was_on_goal {
            device.arrivals += 1;
        }
        device.was_on_goal = goal;
        let window = match &device.record.phase {
            Phase::Probation { job, .. } => Some(job.window_s),
            _ => None,
        };
        if let Some(window) = window {
            self.occupy(index, Busy::Window, u64::from(window));
        }
        self.plan_turning_bad(index);
        Ok(())
    }

    /// A device may turn bad late, on whatever it runs.
    fn plan_turning_bad(&mut self, index: usize) {
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

    fn turns_bad(&mut self, index: usize, release: u8) {
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
            if Some(&rollout.goal) == runs {
                self.turned_bad[number].0 += 1;
            } else if !device.deployments.contains_key(&rollout.id) {
                self.turned_bad[number].1 += 1;
            }
        }
    }
}

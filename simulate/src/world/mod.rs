//! Simulated time and its events: a calendar with one page per second.

mod event;
mod look;

use tidegate_domain::rollout::{RolloutState, forecast};
use tidegate_protocol::Timestamp;

use crate::control::{Control, image};
use crate::device::Device;
use crate::scenario::{Group, Scenario, ScenarioError};
use crate::sheet::{self, Line, Outcome};

/// Intervals between planner runs in seconds: while nothing changes, and after a change.
const IDLE_TICK: u64 = 30;
const BUSY_TICK: u64 = 2;
/// Interval between counts of silent devices, in seconds.
const LOOK: u64 = 30;
/// Time within which a connected device hears an order, in seconds; devices are spread over it.
const HEARS_WITHIN: u64 = 2;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Page {
    CheckIn(u32),
    /// The operation of a device ends.
    Ends(u32, u32),
    /// A device turns bad late, if it still runs the same release.
    TurnsBad(u32, u8),
}

pub(crate) struct World<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) naive: bool,
    pub(crate) control: Control,
    pub(crate) devices: Vec<Device>,
    pub(crate) calendar: Vec<Vec<Page>>,
    pub(crate) now: u64,
    /// Seconds by which the control plane's clock has gone back.
    pub(crate) behind: u64,
    pub(crate) leader_back: u64,
    pub(crate) dirty: bool,
    pub(crate) looked: u64,
    pub(crate) turned_bad: Vec<(u64, u64)>,
    pub(crate) counter: u64,
    pub(crate) lines: Vec<Line>,
    pub(crate) check_ins: u64,
    pub(crate) peak: (u64, u64),
    pub(crate) offers_after_halt: u64,
    pub(crate) halted_at: Option<u64>,
    pub(crate) last_back: Option<u64>,
    pub(crate) late_warning: bool,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, naive: bool) -> Result<Self, ScenarioError> {
        let control = Control::new(scenario, naive)?;
        let mut devices = Vec::new();
        for (number, spec) in (0u16..).zip(&scenario.devices) {
            let own = image(&scenario.release, &spec.release).ok_or_else(|| {
                ScenarioError(format!(
                    "{} is not a release of this scenario",
                    spec.release
                ))
            })?;
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
            // The fleet runs already: its first check-ins are spread over the interval.
            let first = world.devices[index].chance.below(scenario.poll);
            world.plan_check_in(index, first);
            world.plan_turning_bad(index);
        }
        Ok(world)
    }

    pub(crate) fn at(&self) -> Timestamp {
        let seconds = self.now.saturating_sub(self.behind);
        self.scenario
            .start
            .plus(std::time::Duration::from_secs(seconds))
    }

    pub(crate) fn group(&self, index: usize) -> &'a Group {
        &self.scenario.devices[usize::from(self.devices[index].group)]
    }

    pub(crate) fn write(&mut self, second: u64, page: Page) {
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

    pub(crate) fn plan_check_in(&mut self, index: usize, second: u64) {
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
            let page_number = usize::try_from(second).unwrap_or(usize::MAX);
            // Events of this second may add to its page.
            while at < self.calendar[page_number].len() {
                let page = self.calendar[page_number][at];
                at += 1;
                match page {
                    Page::CheckIn(device) => self.check_in(device as usize),
                    Page::Ends(device, operation) => self.ends(device as usize, operation),
                    Page::TurnsBad(device, release) => self.turns_bad(device as usize, release),
                }
            }
            self.calendar[page_number] = Vec::new();
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

    /// Runs the leader's round: soon after a change, and at intervals in any case.
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
            let goal = self.control.rollouts[index].release.clone();
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
                    self.say(format!("{goal}: the deadline is forecast to be missed"));
                }
            }
        }
        Ok(())
    }

    /// Plans a check-in of every device that an order concerns, spread over a moment.
    fn changed(&mut self, index: usize) {
        let rollout = &self.control.rollouts[index];
        let (id, state) = (rollout.id, rollout.state);
        if !state.calls_off() {
            // Nothing that a device in mid-update must hear at once.
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
}

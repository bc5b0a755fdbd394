//! Result of a scenario: the timeline and the table.

use std::collections::BTreeMap;
use std::fmt;

use tidegate_domain::rollout::{Outcome as Counts, Tally};

use crate::control::Control;
use crate::device::Device;
use crate::scenario::Scenario;

/// A line of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) second: u64,
    pub(crate) text: String,
}

/// Measurements taken during a run.
pub(crate) struct Measured {
    pub(crate) lines: Vec<Line>,
    pub(crate) peak: (u64, u64),
    pub(crate) check_ins: u64,
    pub(crate) offers_after_halt: u64,
    pub(crate) halted_at: Option<u64>,
    pub(crate) last_back: Option<u64>,
}

/// State of a region at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Region {
    /// Number of its devices.
    pub devices: u64,
    /// Devices that were exposed.
    pub exposed: u64,
    /// Devices that run the last rollout's release.
    pub on_goal: u64,
    /// Devices that failed, or rolled back on their own.
    pub failed: u64,
    /// Devices that were ordered back.
    pub returned: u64,
    /// Devices that took the update and were not heard from again.
    pub lost: u64,
}

/// Result of a scenario.
#[derive(Debug, Clone)]
pub struct Outcome {
    intent: String,
    lines: Vec<Line>,
    /// Results by region.
    pub regions: BTreeMap<String, Region>,
    /// States of the rollouts at the end.
    pub states: Vec<String>,
    /// Devices that were ever offered a release.
    pub exposed: u64,
    /// Time of the first failure in a wave whose gate stopped its rollout, in seconds from the
    /// beginning.
    pub first_failure: Option<u64>,
    /// Time when the first rollout was stopped, in seconds from the beginning.
    pub halted_at: Option<u64>,
    /// Time when the last device was back, in seconds from the beginning.
    pub last_back: Option<u64>,
    /// Number of check-ins in the busiest second, and that second.
    pub peak: (u64, u64),
    /// Number of check-ins.
    pub check_ins: u64,
    /// Mean downtime per device, in seconds.
    pub downtime: u64,
    /// Number of bytes that the links carried.
    pub bytes: u64,
    /// Devices that reached the goal more than once.
    pub flips: u64,
    /// Offers made after a rollout was stopped.
    pub offers_after_halt: u64,
    /// Result of the naive strategy, if it was run beside it.
    pub naive: Option<Box<Outcome>>,
}

pub(crate) fn collect(
    scenario: &Scenario,
    control: &Control,
    devices: &[Device],
    measured: Measured,
) -> Outcome {
    let mut regions: BTreeMap<String, Region> = BTreeMap::new();
    let goal = control.rollouts.last().map(|r| r.release.clone());
    let last = control.rollouts.last().map(|r| r.id);
    for device in devices {
        let spec = &scenario.devices[usize::from(device.group)];
        let region = regions.entry(spec.region.to_string()).or_default();
        region.devices += 1;
        if !device.dead && device.runs() == goal.as_ref() {
            region.on_goal += 1;
        }
        let Some(deployment) = last.and_then(|id| device.deployments.get(&id)) else {
            continue;
        };
        region.exposed += 1;
        match Counts::of(deployment, u32::MAX) {
            Counts::Failed => region.failed += 1,
            Counts::Returned => region.returned += 1,
            _ if device.dead => region.lost += 1,
            _ => {}
        }
    }
    let exposed: Tally = control
        .rollouts
        .iter()
        .flat_map(|r| r.tallies.iter().copied())
        .sum();
    // A device that is still down at the end counts as down until the end.
    let downtime: u64 = devices
        .iter()
        .map(|d| {
            let open = d.stopped_at.map_or(0, |since| scenario.duration - since);
            d.downtime + open
        })
        .sum();
    Outcome {
        intent: scenario.intent.clone(),
        lines: measured.lines,
        regions,
        states: control
            .rollouts
            .iter()
            .map(|r| format!("{} {}: {}", r.release, r.state, r.reason))
            .collect(),
        exposed: exposed.exposed(),
        first_failure: control
            .rollouts
            .iter()
            .filter_map(|r| r.first_failure[r.breached?])
            .min(),
        halted_at: measured.halted_at,
        last_back: measured.last_back,
        peak: measured.peak,
        check_ins: measured.check_ins,
        downtime: downtime / (devices.len() as u64).max(1),
        bytes: devices.iter().map(|d| d.bytes).sum(),
        flips: devices.iter().filter(|d| d.arrivals > 1).count() as u64,
        offers_after_halt: measured.offers_after_halt,
        naive: None,
    }
}

/// Formats days, hours, minutes and seconds.
fn clock(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    format!(
        "{days}d {:02}:{:02}:{:02}",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

impl Outcome {
    /// Sum of all regions.
    pub fn total(&self) -> Region {
        let mut total = Region::default();
        for region in self.regions.values() {
            total.devices += region.devices;
            total.exposed += region.exposed;
            total.on_goal += region.on_goal;
            total.failed += region.failed;
            total.returned += region.returned;
            total.lost += region.lost;
        }
        total
    }

    /// Share of devices on the goal, in hundredths of a percent.
    pub fn share_on_goal(&self) -> u64 {
        let total = self.total();
        total.on_goal * 10_000 / total.devices.max(1)
    }

    fn figures(&self) -> Vec<(String, String)> {
        let share = self.share_on_goal();
        let still = self.downtime * 10 / 60;
        let mut list = vec![
            (
                "on the new release".into(),
                format!("{}.{:02} %", share / 100, share % 100),
            ),
            ("exposed".into(), self.exposed.to_string()),
        ];
        let since = |from: Option<u64>, to: Option<u64>| {
            from.zip(to)
                .map(|(from, to)| format!("{} s", to.saturating_sub(from)))
        };
        let mut push = |what: &str, value: Option<String>| {
            if let Some(value) = value {
                list.push((what.into(), value));
            }
        };
        push("stopped at", self.halted_at.map(clock));
        push(
            "time from first failure to stop",
            since(self.first_failure, self.halted_at),
        );
        push(
            "time from stop to last device back",
            since(
                self.halted_at,
                self.last_back.filter(|back| Some(*back) >= self.halted_at),
            ),
        );
        list.extend([
            (
                "downtime, mean per device".into(),
                format!("{}.{} min", still / 10, still % 10),
            ),
            ("fetched".into(), format!("{} MB", self.bytes / 1_000_000)),
            (
                "check-ins".into(),
                format!(
                    "{}, at most {} in a second ({})",
                    self.check_ins,
                    self.peak.0,
                    clock(self.peak.1)
                ),
            ),
            (
                "devices that reached the release twice".into(),
                self.flips.to_string(),
            ),
            (
                "offers after a stop".into(),
                self.offers_after_halt.to_string(),
            ),
        ]);
        list
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.intent)?;
        for line in &self.lines {
            writeln!(f, "{}  {}", clock(line.second), line.text)?;
        }
        writeln!(f)?;
        for state in &self.states {
            writeln!(f, "{state}")?;
        }
        writeln!(
            f,
            "\n{:10} {:>8} {:>8} {:>8} {:>8} {:>10} {:>6}",
            "REGION", "DEVICES", "EXPOSED", "ON NEW", "FAILED", "ROLLED BACK", "LOST"
        )?;
        let all = ("all".to_owned(), self.total());
        let regions = self.regions.iter().map(|(n, r)| (n.clone(), *r));
        for (name, r) in regions.chain([all]) {
            writeln!(
                f,
                "{name:10} {:>8} {:>8} {:>8} {:>8} {:>10} {:>6}",
                r.devices, r.exposed, r.on_goal, r.failed, r.returned, r.lost
            )?;
        }
        writeln!(f)?;
        let beside = self.naive.as_ref().map(|n| n.figures()).unwrap_or_default();
        let of_naive = |what: &str| {
            beside
                .iter()
                .find(|(name, _)| name == what)
                .map_or_else(String::new, |(_, value)| value.clone())
        };
        if self.naive.is_some() {
            writeln!(
                f,
                "{:40} {:34} naive: all at once, full images, no resume",
                "", "Tidegate"
            )?;
        }
        for (what, value) in self.figures() {
            let line = format!("{what:40} {value:34} {}", of_naive(&what));
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

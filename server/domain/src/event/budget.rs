//! Number of events that one device may cause.
//!
//! A device writes events by its facts and its reports, as often as it likes. In an hour a device gets
//! [`Budget::NOTES`] rows beside the steps of its deployments. What it causes beyond is counted, and the
//! count becomes one row when the hour is over. Steps have a bound of their own, so high that no honest
//! device reaches it: beyond it a step is a note like any other.

use std::time::Duration;

use tidegate_protocol::{DeviceId, Timestamp};

use super::Event;

/// Cost of an event to the device that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Nothing: it is caused by people, or at most once.
    Free,
    /// A step of a deployment.
    Step(DeviceId),
    /// A row of the device's hour.
    Note(DeviceId),
}

impl Event {
    /// Returns what the event costs the device that it is about.
    pub fn cost(&self) -> Cost {
        if let Self::DeploymentReported {
            device,
            taken: true,
            ..
        } = self
        {
            return Cost::Step(*device);
        }
        if let Self::DeploymentReported { device, .. }
        | Self::DeviceRuns { device, .. }
        | Self::ReportUnknown { device, .. }
        | Self::DeviceRefused { device, .. }
        | Self::DeviceDiagnosed { device, .. }
        | Self::DataLeft { device, .. } = self
        {
            return Cost::Note(*device);
        }
        Cost::Free
    }
}

/// Length of the time that a count is for.
pub const HOUR: Duration = Duration::from_hours(1);

/// Events of one device in its hour, which begins with the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Begin of the hour.
    pub since: Timestamp,
    /// Rows written in it.
    pub written: u32,
    /// Events that were counted alone.
    pub withheld: u64,
}

impl Budget {
    /// Rows of an hour, beside the steps of deployments.
    pub const NOTES: u32 = 20;
    /// Steps of deployments in an hour, above which each costs as much as a note.
    pub const STEPS: u32 = 100;

    /// A budget whose hour begins now.
    pub fn new(now: Timestamp) -> Self {
        Self {
            since: now,
            written: 0,
            withheld: 0,
        }
    }

    /// Begins the next hour if this one is over. Returns the event that tells what was withheld in the
    /// one before, if anything was.
    pub fn renew(&mut self, device: DeviceId, now: Timestamp) -> Option<Event> {
        if now < self.since.plus(HOUR) {
            return None;
        }
        let was = std::mem::replace(self, Self::new(now));
        (was.withheld > 0).then_some(Event::EventsWithheld {
            device,
            count: was.withheld,
            since: was.since,
        })
    }

    /// Takes one event: returns whether it is written; else it is counted.
    pub fn take(&mut self) -> bool {
        if self.written < Self::NOTES {
            self.written += 1;
            return true;
        }
        self.withheld = self.withheld.saturating_add(1);
        false
    }
}

/// Steps of a device's deployments in an hour, as one replica counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps {
    since: Timestamp,
    count: u32,
}

impl Steps {
    /// Counts a step; returns whether it is still one that costs nothing.
    pub fn take(&mut self, now: Timestamp) -> bool {
        if now >= self.since.plus(HOUR) {
            *self = Self {
                since: now,
                count: 0,
            };
        }
        self.count = self.count.saturating_add(1);
        self.count <= Budget::STEPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    #[test]
    fn an_hour_has_twenty_rows_and_one_that_counts_the_rest() {
        let device = DeviceId::from_random([9; 16]);
        let mut budget = Budget::new(NOW);
        let kept = (0..1_000).filter(|_| budget.take()).count();
        assert_eq!(kept, 20);
        let almost = NOW.plus(Duration::from_secs(3_599));
        assert_eq!(budget.renew(device, almost), None);
        let told = budget.renew(device, NOW.plus(HOUR)).unwrap();
        assert_eq!(
            told.to_string(),
            "980 more events of this device since 1970-01-01T00:16:40Z were counted and not kept"
        );
        assert!(budget.take());
        // An hour in which nothing was withheld says nothing.
        assert_eq!(budget.renew(device, NOW.plus(HOUR * 2)), None);
        assert_eq!(budget, Budget::new(NOW.plus(HOUR * 2)));
    }

    #[test]
    fn steps_cost_nothing_until_no_honest_device_makes_so_many() {
        let mut steps = Steps::default();
        let free = (0..1_000).filter(|_| steps.take(NOW)).count();
        assert_eq!(free, 100);
        assert!(steps.take(NOW.plus(HOUR)));
    }
}

//! One device: the real agent's state machine around a link, a battery and some chance.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_domain::admission::{DeploymentFacts, DeviceFacts, Keeps};
use tidegate_domain::ring::Ring;
use tidegate_machine::fsm::{Installed, Record, SlotId};
use tidegate_protocol::{Battery, Channel, Image, Power, RolloutId, Sha256, Timestamp, Version};

use crate::chance::Chance;
use crate::scenario::Group;

/// Operation that a device is busy with; at most one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Fetching; ends when all bytes are there.
    Downloading,
    /// Installing.
    Staging,
    /// Restarting; health is known when it ends.
    Restarting,
    /// Restarting the previous version.
    Returning,
    /// In its rollback window.
    Window,
}

/// A link that is alternately up and down. It has its own random stream, so that a copy can look
/// ahead and see what will really come.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    chance: Chance,
    up: bool,
    changes: u64,
}

impl Link {
    fn new(spec: &Group, mut chance: Chance) -> Self {
        if spec.up == 0 || spec.down == 0 {
            return Self {
                chance,
                up: true,
                changes: u64::MAX,
            };
        }
        // Starts at a random point of its cycle.
        let up = chance.below(spec.up + spec.down) < spec.up;
        let changes = chance.memoryless(if up { spec.up } else { spec.down });
        Self {
            chance,
            up,
            changes,
        }
    }

    /// Returns `Ok` if the link is up at a time that is not before the last one asked for;
    /// otherwise the time at which it will be up.
    pub(crate) fn at(&mut self, spec: &Group, at: u64) -> Result<(), u64> {
        while self.changes <= at {
            self.up = !self.up;
            let mean = if self.up { spec.up } else { spec.down };
            self.changes += self.chance.memoryless(mean);
        }
        if self.up { Ok(()) } else { Err(self.changes) }
    }

    /// Returns the time at which all the bytes will have arrived, and the number of bytes that the
    /// link will have carried by then; `None` if that is after the end.
    pub(crate) fn carries(
        &self,
        spec: &Group,
        from: u64,
        bytes: u64,
        resume: bool,
        end: u64,
    ) -> Option<(u64, u64)> {
        let needed = bytes.div_ceil(spec.rate).max(1);
        let (mut left, mut at, mut carried) = (needed, from, 0);
        let mut ahead = self.clone();
        while at <= end {
            if let Err(up) = ahead.at(spec, at) {
                at = up;
                continue;
            }
            let stays = ahead.changes - at;
            if stays >= left {
                return Some((at + left, (carried + left) * spec.rate));
            }
            carried += stays;
            at = ahead.changes;
            left = if resume { left - stays } else { needed };
        }
        None
    }
}

/// A device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) group: u16,
    pub(crate) ring: Ring,
    pub(crate) chance: Chance,
    /// State of the agent.
    pub(crate) record: Record,
    /// State known to the control plane: this field and those down to `low_since`.
    pub(crate) release: Option<Version>,
    pub(crate) image: Option<Sha256>,
    pub(crate) deployments: BTreeMap<RolloutId, DeploymentFacts>,
    pub(crate) quarantine: BTreeSet<Version>,
    pub(crate) last_seen: u64,
    pub(crate) low_since: Option<Timestamp>,
    /// State of the simulated device: this field and those below.
    pub(crate) metered: bool,
    pub(crate) low_until: u64,
    pub(crate) dead: bool,
    pub(crate) link: Link,
    pub(crate) busy: Option<Busy>,
    /// Number of the current operation, so that one that was cancelled does not end later.
    pub(crate) operation: u32,
    /// Time of the next planned check-in; an older plan is void.
    pub(crate) next_check_in: u64,
    /// Time by which the current assignment must be put to use.
    pub(crate) switch_by: Option<u64>,
    pub(crate) offered_at: u64,
    pub(crate) stopped_at: Option<u64>,
    pub(crate) downtime: u64,
    pub(crate) bytes: u64,
    pub(crate) was_on_goal: bool,
    /// Number of times it reached the goal: more than one is a flip.
    pub(crate) arrivals: u8,
}

impl Device {
    pub(crate) fn new(index: u32, group: u16, spec: &Group, image: Image, seed: u64) -> Self {
        let mut chance = Chance::new(seed, u64::from(index));
        let ring = Ring::from_random(chance.bits());
        let low = chance.happens(spec.low_percent * 10_000);
        let low_until = match (low, spec.charges_after) {
            (false, _) => 0,
            (true, 0) => u64::MAX,
            (true, mean) => chance.memoryless(mean),
        };
        let record = Record {
            active: Some(SlotId::A),
            a: Some(Installed {
                format: "tar".into(),
                release: spec.release.clone(),
                image,
                health: None,
            }),
            ..Record::new()
        };
        Self {
            group,
            ring,
            record,
            release: Some(spec.release.clone()),
            image: Some(image.sha256),
            deployments: BTreeMap::new(),
            quarantine: BTreeSet::new(),
            last_seen: 0,
            low_since: None,
            metered: chance.happens(spec.metered_percent * 10_000),
            low_until,
            dead: chance.happens(spec.off_percent * 10_000),
            link: Link::new(spec, Chance::new(seed ^ 0x11, u64::from(index))),
            busy: None,
            operation: 0,
            next_check_in: 0,
            switch_by: None,
            offered_at: 0,
            stopped_at: None,
            downtime: 0,
            bytes: 0,
            was_on_goal: false,
            arrivals: 0,
            chance,
        }
    }

    /// Returns the state of the battery.
    pub(crate) fn battery(&self, at: u64) -> Battery {
        if self.low_until == 0 {
            Battery::default()
        } else if at < self.low_until {
            Battery {
                percent: Some(12),
                power: Power::Battery,
            }
        } else {
            Battery {
                percent: Some(80),
                power: Power::Mains,
            }
        }
    }

    /// Facts about the device as the domain sees them.
    pub(crate) fn facts<'a>(&'a self, spec: &'a Group, at: u64) -> DeviceFacts<'a> {
        DeviceFacts {
            active: true,
            awaiting: false,
            isolated: false,
            platform: &spec.platform,
            region: &spec.region,
            channel: Channel::Stable,
            labels: &spec.labels,
            ring: self.ring,
            release: self.release.as_ref(),
            image: self.image,
            keeps: self
                .record
                .kept()
                .map_or(Keeps::Nothing, |kept| Keeps::Release(&kept.release)),
            battery: self.battery(at),
            low_since: self.low_since,
            metered: self.metered,
            deployments: &self.deployments,
            quarantine: &self.quarantine,
        }
    }

    /// Release that its agent runs.
    pub(crate) fn runs(&self) -> Option<&Version> {
        self.record.running().map(|i| &i.release)
    }
}

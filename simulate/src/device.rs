//! One device: the real agent's state machine around a link, a battery and a bit of luck.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_agent::fsm::{Installed, Record, SlotId};
use tidegate_domain::admission::{DeploymentFacts, DeviceFacts};
use tidegate_domain::ring::Ring;
use tidegate_protocol::{Battery, Channel, Image, Power, RolloutId, Sha256, Timestamp, Version};

use crate::chance::Chance;
use crate::scenario::Group;

/// Something that a device is busy with; at most one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Fetching; ends with all bytes.
    Downloading,
    /// Installing.
    Staging,
    /// Restarting; the health is known at its end.
    Restarting,
    /// Restarting the previous version.
    Returning,
    /// In its rollback window.
    Window,
}

/// A link that is up and down by turns. It has its own stream of chance, so that a copy can look
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
        // Somewhere in its life.
        let up = chance.below(spec.up + spec.down) < spec.up;
        let changes = chance.memoryless(if up { spec.up } else { spec.down });
        Self {
            chance,
            up,
            changes,
        }
    }

    /// Whether it is up at a time that is not before the last one asked for; otherwise when it
    /// will be.
    pub(crate) fn at(&mut self, spec: &Group, at: u64) -> Result<(), u64> {
        while self.changes <= at {
            self.up = !self.up;
            let mean = if self.up { spec.up } else { spec.down };
            self.changes += self.chance.memoryless(mean);
        }
        if self.up { Ok(()) } else { Err(self.changes) }
    }

    /// When so many bytes will be there, and how many the link will have carried by then; `None`
    /// when that is beyond the end.
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
    /// The agent.
    pub(crate) record: Record,
    /// What the control plane knows.
    pub(crate) release: Option<Version>,
    pub(crate) image: Option<Sha256>,
    pub(crate) deployments: BTreeMap<RolloutId, DeploymentFacts>,
    pub(crate) quarantine: BTreeSet<Version>,
    pub(crate) last_seen: u64,
    pub(crate) low_since: Option<Timestamp>,
    /// The model.
    pub(crate) metered: bool,
    pub(crate) low_until: u64,
    pub(crate) dead: bool,
    pub(crate) link: Link,
    pub(crate) busy: Option<Busy>,
    /// Names what it is busy with: what was called off must not end later.
    pub(crate) operation: u32,
    /// When its next check-in is planned: an older plan is void.
    pub(crate) next_check_in: u64,
    /// Until when its present assignment must be put to use.
    pub(crate) switch_by: Option<u64>,
    pub(crate) offered_at: u64,
    pub(crate) stopped_at: Option<u64>,
    pub(crate) stood_still: u64,
    pub(crate) bytes: u64,
    pub(crate) was_on_goal: bool,
    /// Times that it came to the goal: more than once is a flip.
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
            stood_still: 0,
            bytes: 0,
            was_on_goal: false,
            arrivals: 0,
            chance,
        }
    }

    /// Its battery.
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

    /// As the domain sees it.
    pub(crate) fn facts<'a>(&'a self, spec: &'a Group, at: u64) -> DeviceFacts<'a> {
        DeviceFacts {
            active: true,
            isolated: false,
            platform: &spec.platform,
            region: &spec.region,
            channel: Channel::Stable,
            labels: &spec.labels,
            ring: self.ring,
            release: self.release.as_ref(),
            image: self.image,
            battery: self.battery(at),
            low_since: self.low_since,
            metered: self.metered,
            deployments: &self.deployments,
            quarantine: &self.quarantine,
        }
    }

    /// What its agent runs.
    pub(crate) fn runs(&self) -> Option<&Version> {
        self.record.running().map(|i| &i.release)
    }
}

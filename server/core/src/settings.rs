//! Settings of what the server does; those of its listeners are the composition's.

use std::time::Duration;

use crate::clock::Clock;
use crate::public::PublicUrl;

/// Settings of the core.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Settings for devices.
    pub devices: DeviceSettings,
    /// Background work.
    pub jobs: JobSettings,
    /// Largest artifact that may be uploaded, in bytes.
    pub max_upload: u64,
    /// The clock.
    pub clock: Clock,
}

/// Settings for devices.
#[derive(Debug, Clone)]
pub struct DeviceSettings {
    /// Interval between a device's check-ins, before jitter.
    pub poll: Duration,
    /// Lifetime of a session ticket.
    pub session: Duration,
    /// Time over which held check-ins are answered when the plan changes and many are held.
    pub wake_ramp: Duration,
    /// Mirrors from which devices may fetch payloads, best first: `https://host[/folder]`.
    pub mirrors: Vec<String>,
    /// Addresses by which devices know the server; empty for whatever a request's `Host` says.
    pub public_urls: Vec<PublicUrl>,
    /// Whether blobs and metadata are served to enrolled devices and operators alone.
    pub closed: bool,
    /// Number of poll intervals without contact after which a device is offline.
    pub offline_after_polls: u32,
}

impl DeviceSettings {
    /// Time without contact after which a device counts as offline. A held check-in counts as
    /// contact, so the longest hold is added.
    pub fn offline_after(&self) -> Duration {
        self.poll * self.offline_after_polls
            + Duration::from_secs(u64::from(tidegate_protocol::MAX_WAIT_S))
    }
}

/// Settings for background work.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// Interval between planner runs when nothing wakes it.
    pub tick: Duration,
    /// Interval between writes of heartbeats.
    pub flush: Duration,
    /// Time that a leader may be silent before another replica takes over.
    pub lease: Duration,
    /// Maximum memory of one delta build, in bytes; images that need more get no delta.
    pub delta_memory: u64,
    /// Threads of a delta build.
    pub delta_threads: usize,
}

impl Default for DeviceSettings {
    fn default() -> Self {
        Self {
            poll: Duration::from_mins(1),
            mirrors: Vec::new(),
            public_urls: Vec::new(),
            closed: false,
            session: Duration::from_hours(1),
            wake_ramp: Duration::from_secs(1),
            offline_after_polls: 3,
        }
    }
}

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(1),
            flush: Duration::from_secs(5),
            lease: Duration::from_secs(10),
            delta_memory: 2 << 30,
            delta_threads: 1,
        }
    }
}

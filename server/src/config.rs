//! Configuration, parsed into typed values before anything starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;
use crate::tls::TlsSettings;

/// Settings of a server.
#[derive(Clone)]
pub struct Settings {
    /// Address on which people and devices reach it.
    pub listen: SocketAddr,
    /// TLS settings; `None` for plain HTTP behind a proxy that serves TLS.
    pub tls: Option<TlsSettings>,
    /// Address on which Prometheus reaches `/metrics`; `None` to serve no metrics.
    pub metrics_listen: Option<SocketAddr>,
    /// `sqlite:PATH` or `postgres://...`. May hold a password: never logged.
    pub database: String,
    /// A folder, or `s3://bucket/prefix`.
    pub blobs: BlobSettings,
    /// Folder in which the first administrator's token is written.
    pub data: PathBuf,
    /// Settings for devices.
    pub devices: DeviceSettings,
    /// Background work.
    pub jobs: JobSettings,
    /// Largest artifact that may be uploaded, in bytes.
    pub max_upload: u64,
    /// Maximum number of concurrent requests, held check-ins included; others are told to come back
    /// later.
    pub max_requests: usize,
    /// The clock.
    pub clock: Clock,
}

/// Location of the blobs.
#[derive(Debug, Clone)]
pub enum BlobSettings {
    /// A folder.
    Folder(PathBuf),
    /// An S3 bucket; credentials come from the usual AWS environment variables.
    S3 {
        /// The bucket.
        bucket: String,
        /// A prefix for every key, without slashes at its ends; may be empty.
        prefix: String,
    },
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

impl std::fmt::Debug for Settings {
    /// Leaves out the database's address, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("tls", &self.tls)
            .field("metrics_listen", &self.metrics_listen)
            .field("blobs", &self.blobs)
            .field("data", &self.data)
            .field("devices", &self.devices)
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
}

impl BlobSettings {
    /// Parses a folder's path or `s3://bucket/prefix`.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("s3://") {
            None => Self::Folder(PathBuf::from(text)),
            Some(rest) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                Self::S3 {
                    bucket: bucket.to_owned(),
                    prefix: prefix.trim_matches('/').to_owned(),
                }
            }
        }
    }
}

//! Configuration, parsed into facts before anything starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;
use crate::tls::TlsSettings;

/// Everything that a server is told.
#[derive(Clone)]
pub struct Settings {
    /// Where people and devices reach it.
    pub listen: SocketAddr,
    /// How TLS is served; `None` for plain HTTP behind something that does.
    pub tls: Option<TlsSettings>,
    /// Where Prometheus reaches `/metrics`; `None` for nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// `sqlite:PATH` or `postgres://...`. May hold a password: never logged.
    pub database: String,
    /// A folder, or `s3://bucket/prefix`.
    pub blobs: BlobSettings,
    /// Where the first administrator's token is written.
    pub data: PathBuf,
    /// What devices are told.
    pub devices: DeviceSettings,
    /// Background work.
    pub jobs: JobSettings,
    /// Largest artifact that may be uploaded, in bytes.
    pub max_upload: u64,
    /// Most requests at once, held check-ins included; what is beyond is told to come back later.
    pub max_requests: usize,
    /// The clock.
    pub clock: Clock,
}

/// Where blobs are kept.
#[derive(Debug, Clone)]
pub enum BlobSettings {
    /// In a folder.
    Folder(PathBuf),
    /// In an S3 bucket; credentials come from the usual AWS environment variables.
    S3 {
        /// The bucket.
        bucket: String,
        /// A prefix for every key, without slashes at its ends; may be empty.
        prefix: String,
    },
}

/// How devices are treated.
#[derive(Debug, Clone)]
pub struct DeviceSettings {
    /// How often a device checks in, before jitter.
    pub poll: Duration,
    /// How long a session ticket is good.
    pub session: Duration,
    /// Over how long held check-ins are answered when the plan changes and many are held.
    pub wake_ramp: Duration,
    /// Where else devices may fetch payloads, best first: `https://host[/folder]`.
    pub mirrors: Vec<String>,
    /// A device that was not heard of for this many poll intervals is offline.
    pub offline_after_polls: u32,
}

impl DeviceSettings {
    /// How long a device may be silent before it counts as offline. A held check-in counts as
    /// heard of, so the longest hold is added.
    pub fn offline_after(&self) -> Duration {
        self.poll * self.offline_after_polls
            + Duration::from_secs(u64::from(tidegate_protocol::MAX_WAIT_S))
    }
}

/// How background work is done.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// How often the planner looks when nothing wakes it.
    pub tick: Duration,
    /// How often heartbeats are written.
    pub flush: Duration,
    /// How long a leader may be silent before another takes over.
    pub lease: Duration,
    /// Memory that one delta build may take, in bytes; larger images get no delta.
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
    /// Without the database's address, which may hold a password.
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
    /// Reads a folder's path or `s3://bucket/prefix`.
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

//! Configuration, parsed into typed values before anything starts.

use std::net::SocketAddr;
use std::path::PathBuf;

use tidegate_core::settings;

use crate::tls::TlsSettings;

pub use crate::listen::Patience;
pub use tidegate_web::connections::Network;

pub use tidegate_core::blob::BlobSettings;
pub use tidegate_core::clock::Clock;
pub use tidegate_core::public::PublicUrl;
pub use tidegate_core::settings::{DeviceSettings, JobSettings};

/// Settings of a server.
#[derive(Clone)]
pub struct Settings {
    /// Address on which people and devices reach it.
    pub listen: SocketAddr,
    /// TLS settings; `None` for plain HTTP behind a proxy that serves TLS.
    pub tls: Option<TlsSettings>,
    /// Whether plain HTTP may be served beyond this machine.
    pub plain_http: bool,
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
    /// Proxies in front of the server: what they forward as the client's address is believed.
    pub trusted_proxies: Vec<Network>,
    /// Deadlines of connections.
    pub patience: Patience,
    /// The clock.
    pub clock: Clock,
}

impl Settings {
    /// Settings of what the server does, without its listeners and stores.
    pub(crate) fn core(&self) -> settings::Settings {
        settings::Settings {
            devices: self.devices.clone(),
            jobs: self.jobs.clone(),
            max_upload: self.max_upload,
            clock: self.clock.clone(),
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

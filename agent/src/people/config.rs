//! Configuration of the agent: written at enrollment, overridden by `agent.conf`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidegate_protocol::{Channel, DeviceId, Platform, ProductName};
use tidegate_trust::CommandLine;

use super::control::ControlSettings;
use crate::fs::{Fs, Mode};
use crate::host::power::{Metered, PowerSettings};
use crate::install::BackendSettings;
use crate::net::rate::RateLimit;

/// `agent.json` of a state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Address of the control plane, `https://host[:port][/folder]`.
    pub server: String,
    /// The device's id.
    pub device: DeviceId,
    /// Display name of the device.
    pub name: String,
    /// Product of the device.
    pub product: ProductName,
    /// Platform of the device.
    pub platform: Platform,
    /// Release channel of the device.
    pub channel: Channel,
    /// Other addresses of the same control plane, tried in turn when the first does not answer.
    #[serde(default)]
    pub also: Vec<String>,
    /// Hosts whose mirrors are used beside those on the server's own.
    #[serde(default)]
    pub mirror_hosts: Vec<String>,
    /// PEM file with the server's certificate authority; `None` for the public ones.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether secrets may leave this machine unencrypted, by an address with `http://`. A device that
    /// enrolled before anybody was asked goes on as it did: an update must not cut it off.
    #[serde(default = "yes")]
    pub plain_http: bool,
    /// Health check that overrides the publisher's.
    #[serde(default)]
    pub health: Option<CommandLine>,
    /// Command that restarts the installed software after each switch.
    #[serde(default)]
    pub restart: Option<CommandLine>,
    /// Backend that installs versions.
    #[serde(default)]
    pub backend: BackendSettings,
    /// Command that reboots the machine, for backends whose switch takes effect at boot.
    #[serde(default)]
    pub reboot: Option<CommandLine>,
    /// Program that decodes payloads; `None` for the agent's own.
    #[serde(default)]
    pub decoder: Option<PathBuf>,
    /// Whether payloads are decoded; otherwise only those are fetched that are the image itself.
    #[serde(default = "yes")]
    pub decode: bool,
    /// Number of chunks fetched in parallel.
    #[serde(default = "two")]
    pub parallel: u8,
    /// Limits on the download rate, by hour of the day.
    #[serde(default)]
    pub limits: Vec<RateLimit>,
    /// Deadline of one download, in seconds.
    #[serde(default = "two_days")]
    pub download_deadline_s: u32,
    /// Source of the battery state.
    #[serde(default)]
    pub power: PowerSettings,
    /// Whether the link is metered.
    #[serde(default)]
    pub metered: Metered,
    /// Whether the clock is set by a trusted source: if so, expiry is judged by it alone.
    #[serde(default)]
    pub clock_trusted: bool,
    /// Access to the running agent: socket and group.
    #[serde(default)]
    pub control: ControlSettings,
    /// Interval between health checks outside of updates, in seconds.
    #[serde(default = "five_minutes")]
    pub health_every_s: u32,
}

fn five_minutes() -> u32 {
    300
}

fn yes() -> bool {
    true
}

fn two() -> u8 {
    2
}

fn two_days() -> u32 {
    172_800
}

const FILE: &str = "agent.json";
/// Reason why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The device is not enrolled.
    #[error("{0} not found: enroll this device first (tidegate-agent enroll --help)")]
    NotEnrolled(PathBuf),
    /// Reading or writing failed.
    #[error("{path}", path = path.display())]
    Io {
        /// Name of the file.
        path: PathBuf,
        /// Error from the operating system.
        #[source]
        source: io::Error,
    },
    /// The device's key is gone.
    #[error(
        "{path} is gone, and the server knows this device by it alone: bring it back from a copy, or \
         enroll this device anew in an empty state directory",
        path = .0.display()
    )]
    NoIdentity(PathBuf),
    /// Another agent holds the lock of the state directory.
    #[error("another agent uses {0}")]
    Busy(PathBuf),
    /// The file cannot be parsed.
    #[error("{path} cannot be read: {what}", path = path.display())]
    Malformed {
        /// Name of the file.
        path: PathBuf,
        /// Description of the problem.
        what: String,
    },
    /// The device's key was changed too often.
    #[error(
        "the device's key was changed four times within 30 days, for which it keeps each earlier one: \
         change it later, or enroll the device anew in an empty state directory"
    )]
    KeyChanges,
}

pub(super) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> ConfigError + '_ {
    move |source| ConfigError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Config {
    /// Returns all addresses of the control plane, in order of preference.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        let also = self.also.iter().map(String::as_str);
        std::iter::once(self.server.as_str()).chain(also)
    }

    /// Loads `agent.json` as enrollment wrote it, without `agent.conf`.
    pub(crate) fn as_enrolled(state: &Path) -> Result<Self, ConfigError> {
        let path = state.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(ConfigError::NotEnrolled(path));
            }
            Err(e) => return Err(io_at(&path)(e)),
        };
        // All JSON is read from bytes: a reader of strings would be another 13 KB of program.
        serde_json::from_slice(&text).map_err(|e| ConfigError::Malformed {
            path,
            what: e.to_string(),
        })
    }

    /// Writes `agent.json` atomically.
    pub fn save(&self, fs: &dyn Fs, state: &Path) -> Result<(), ConfigError> {
        let path = state.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|e| ConfigError::Malformed {
            path: path.clone(),
            what: e.to_string(),
        })?;
        fs.replace(&path, &text, Mode::Plain).map_err(io_at(&path))
    }
}

/// Locks a state directory against a second agent, until the returned file is dropped.
pub fn lock(state: &Path) -> Result<fs::File, ConfigError> {
    let path = state.join("lock");
    // Opened for reading: a file system with errors must be able to become read-only under us.
    let open = || match fs::File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::File::create_new(&path)?;
            fs::File::open(&path)
        }
        other => other,
    };
    let file = open().map_err(io_at(&path))?;
    // Whoever may read a file may lock it, and so keep the agent from its start. Where nothing can be
    // written, it stays as it is.
    #[cfg(unix)]
    let _ = file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600));
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(ConfigError::Busy(state.to_owned())),
        Err(fs::TryLockError::Error(e)) => Err(io_at(&path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_keeps_a_second_agent_out_and_nobody_else_can_take_it() {
        let state = tempfile::tempdir().unwrap();
        drop(lock(state.path()).unwrap());
        #[cfg(unix)]
        {
            // As agents made it before.
            use std::os::unix::fs::PermissionsExt as _;
            let path = state.path().join("lock");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            drop(lock(state.path()).unwrap());
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let _held = lock(state.path()).unwrap();
        assert!(matches!(lock(state.path()), Err(ConfigError::Busy(_))));
    }
}

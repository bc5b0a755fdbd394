//! What the agent was told when it was enrolled, and may be told anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidegate_protocol::{Channel, DeviceId, Platform, ProductName};
use tidegate_trust::{Health, SecretKey};

use crate::control::ControlSettings;
use crate::download::RateLimit;
use crate::fs::{Fs, Mode};
use crate::install::BackendSettings;
use crate::power::{Metered, PowerSettings};
use crate::settings;

/// `agent.json` of a state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Address of the control plane, `http://host:port` or `https://host:port`.
    pub server: String,
    /// The device's id.
    pub device: DeviceId,
    /// Its name for people.
    pub name: String,
    /// Its product.
    pub product: ProductName,
    /// Its platform.
    pub platform: Platform,
    /// Its channel.
    pub channel: Channel,
    /// Other addresses of the same control plane, tried in turn when the first does not answer.
    #[serde(default)]
    pub also: Vec<String>,
    /// A PEM file with the certificate authority of the server; the public ones by default.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// A health check that stands in for the publisher's.
    #[serde(default)]
    pub health: Option<Health>,
    /// A command that restarts what runs from the slots, after each switch.
    #[serde(default)]
    pub restart: Option<Health>,
    /// How versions are installed.
    #[serde(default)]
    pub backend: BackendSettings,
    /// A command that starts the machine again, for images that a boot loader starts.
    #[serde(default)]
    pub reboot: Option<Health>,
    /// Chunks that are fetched at once.
    #[serde(default = "two")]
    pub parallel: u8,
    /// How fast downloads may be, by the hour.
    #[serde(default)]
    pub limits: Vec<RateLimit>,
    /// How long one download may take, in seconds.
    #[serde(default = "two_days")]
    pub download_deadline_s: u32,
    /// Where the power is read.
    #[serde(default)]
    pub power: PowerSettings,
    /// Whether the link costs by the byte.
    #[serde(default)]
    pub metered: Metered,
    /// Whether the clock is set by a trusted source: then expiry is judged by it alone.
    #[serde(default)]
    pub clock_trusted: bool,
    /// Who may speak to the running agent, and where.
    #[serde(default)]
    pub control: ControlSettings,
    /// How often what runs is checked outside of updates, in seconds.
    #[serde(default = "five_minutes")]
    pub health_every_s: u32,
}

fn five_minutes() -> u32 {
    300
}

fn two() -> u8 {
    2
}

fn two_days() -> u32 {
    172_800
}

const FILE: &str = "agent.json";
const IDENTITY: &str = "identity.pem";
const NEXT_IDENTITY: &str = "identity.next.pem";

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The device is not enrolled.
    #[error("{0} is not there: enrol this device first (tidegate-agent enroll --help)")]
    NotEnrolled(PathBuf),
    /// Reading or writing failed.
    #[error("{path}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another agent runs on it.
    #[error("another agent uses {0}")]
    Busy(PathBuf),
    /// It cannot be understood.
    #[error("{path} cannot be read: {what}", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> ConfigError + '_ {
    move |source| ConfigError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Config {
    /// All addresses of the control plane, the best first.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        let also = self.also.iter().map(String::as_str);
        std::iter::once(self.server.as_str()).chain(also)
    }

    /// Reads it, and what an administrator has changed.
    pub fn load(state: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::as_enrolled(state)?;
        settings::overlay(state, &mut config)?;
        Ok(config)
    }

    /// Reads what the device was told when it joined, and nothing that was changed since.
    pub(crate) fn as_enrolled(state: &Path) -> Result<Self, ConfigError> {
        let path = state.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(ConfigError::NotEnrolled(path));
            }
            Err(e) => return Err(io_at(&path)(e)),
        };
        serde_json::from_str(&text).map_err(|e| ConfigError::Malformed {
            path,
            what: e.to_string(),
        })
    }

    /// Writes it.
    pub fn save(&self, fs: &dyn Fs, state: &Path) -> Result<(), ConfigError> {
        let path = state.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|e| ConfigError::Malformed {
            path: path.clone(),
            what: e.to_string(),
        })?;
        fs.replace(&path, &text, Mode::Plain).map_err(io_at(&path))
    }
}

/// The device's key: made on the device, never leaves it.
pub fn identity(fs: &dyn Fs, state: &Path) -> Result<SecretKey, ConfigError> {
    read_or_make(fs, &state.join(IDENTITY))
}

fn read_or_make(fs: &dyn Fs, path: &Path) -> Result<SecretKey, ConfigError> {
    let malformed = |e: tidegate_trust::KeyError| ConfigError::Malformed {
        path: path.to_owned(),
        what: e.to_string(),
    };
    match std::fs::read_to_string(path) {
        Ok(pem) => SecretKey::from_pem(&pem).map_err(malformed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let key = SecretKey::from_seed(rand::random());
            let pem = key.to_pem().map_err(malformed)?;
            fs.replace(path, pem.as_bytes(), Mode::Private)
                .map_err(io_at(path))?;
            Ok(key)
        }
        Err(e) => Err(io_at(path)(e)),
    }
}

/// The key that is to take the identity's place; made when there is none yet.
pub(crate) fn next_identity(fs: &dyn Fs, state: &Path) -> Result<SecretKey, ConfigError> {
    read_or_make(fs, &state.join(NEXT_IDENTITY))
}

/// Whether a change of the key was begun.
pub(crate) fn has_next_identity(state: &Path) -> bool {
    state.join(NEXT_IDENTITY).exists()
}

/// Puts the next key in the identity's place; the server knows it already.
pub(crate) fn take_next_identity(fs: &dyn Fs, state: &Path) -> Result<(), ConfigError> {
    let path = state.join(NEXT_IDENTITY);
    fs.rename(&path, &state.join(IDENTITY))
        .and_then(|()| fs.sync_dir(state))
        .map_err(io_at(&path))
}

/// Keeps a second agent off a state directory for as long as it lives.
pub fn lock(state: &Path) -> Result<fs::File, ConfigError> {
    let path = state.join("lock");
    // Held for reading: a file system with errors must be able to become read-only under us.
    let open = || match fs::File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::File::create_new(&path)?;
            fs::File::open(&path)
        }
        other => other,
    };
    let file = open().map_err(io_at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(ConfigError::Busy(state.to_owned())),
        Err(fs::TryLockError::Error(e)) => Err(io_at(&path)(e)),
    }
}

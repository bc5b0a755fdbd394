//! Messages of the device API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Battery, Channel, DeploymentId, DeploymentState, DeviceId, Diagnosis, Explained, Platform,
    ProductName, Region, Sha256, Timestamp, Version,
};

/// A new device's request to join the fleet. The request is signed by the device's key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrol {
    /// The join token as text.
    pub token: String,
    /// The device's Ed25519 public key, 32 bytes in hexadecimal.
    pub public_key: String,
    /// A name for people; the host name by default.
    pub name: String,
    /// The product that the device runs.
    pub product: ProductName,
    /// What the device is.
    pub platform: Platform,
    /// Where it stands; a join token may fix it.
    #[serde(default)]
    pub region: Option<Region>,
    /// Which stages it takes; a join token may fix it.
    #[serde(default)]
    pub channel: Option<Channel>,
    /// Further facts.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What is installed already.
    #[serde(default)]
    pub release: Option<Version>,
    /// The image of what is installed already.
    #[serde(default)]
    pub image: Option<Sha256>,
}

/// Answer to [`Enrol`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// The id given to the device.
    pub device: DeviceId,
    /// The region it was put into.
    pub region: Region,
    /// The channel it was put on.
    pub channel: Channel,
    /// The trusted root metadata to start from, as JSON text; the join token carries its hash.
    pub root: String,
}

/// A device's request for a session, signed by its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionRequest {
    /// Which device.
    pub device: DeviceId,
    /// One more than in any signed request before. A number that was used already is a repeated
    /// request, or a second machine with this identity.
    pub counter: u64,
}

/// A device's request to be known by another key. It is signed by the present one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyChange {
    /// Which device.
    pub device: DeviceId,
    /// One more than in any signed request before.
    pub counter: u64,
    /// The new Ed25519 public key, 32 bytes in hexadecimal.
    pub public_key: String,
    /// The new key's signature over the change, in hexadecimal: proof that the device has it.
    pub proof: String,
}

/// Answer to a [`KeyChange`], given after it is committed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyChanged {
    /// The key that the device is known by from now on.
    pub public_key: String,
}

/// Answer to a session request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionGranted {
    /// The ticket to send with each check-in.
    pub ticket: String,
    /// For how long it is good, in seconds.
    pub expires_in_s: u32,
}

/// What the device is doing in a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// Which deployment.
    pub id: DeploymentId,
    /// Where it stands.
    pub state: DeploymentState,
    /// Seconds of rollback window left, in probation.
    #[serde(default)]
    pub window_left_s: Option<u32>,
}

/// What a device can do with payloads. A server takes what is missing for least.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// Encodings that it applies, by name. A name that the server does not know is passed over;
    /// none at all means those of agents that did not tell: `raw`, `full`, `bsdiff`.
    #[serde(default)]
    pub encodings: Vec<String>,
    /// Memory that decoding may take, in KiB; 0 where that is not told: 12 MiB.
    #[serde(default)]
    pub memory_kib: u32,
    /// Thousands of bits that its models decode in a second, measured; 0 where it is not told.
    #[serde(default)]
    pub kilobits: u32,
    /// Bytes a second of its last download; 0 where there was none.
    #[serde(default)]
    pub link: u64,
}

/// One way to fetch an image: a manifest by content, and how it encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// SHA-256 of the manifest.
    pub manifest: Sha256,
    /// Length of the manifest in bytes.
    pub manifest_length: u64,
    /// The image that it starts from, for a delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Sha256>,
    /// Bytes to fetch.
    pub bytes: u64,
}

/// A device's check-in: facts up, orders down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckIn {
    /// 32 fresh random bytes in hexadecimal; a signed assignment must repeat them.
    pub nonce: String,
    /// The highest assignment counter accepted so far.
    pub counter: u64,
    /// How long the server may hold the request while there is nothing new, in seconds, at most
    /// [`crate::MAX_WAIT_S`].
    #[serde(default)]
    pub wait: u16,
    /// The agent's own version.
    pub agent_version: String,
    /// The release that runs now.
    #[serde(default)]
    pub release: Option<Version>,
    /// The image that runs now: what a delta can start from.
    #[serde(default)]
    pub image: Option<Sha256>,
    /// Power and charge.
    #[serde(default)]
    pub battery: Battery,
    /// Whether the device's link costs by the byte.
    #[serde(default)]
    pub metered: bool,
    /// What it can do with payloads.
    #[serde(default)]
    pub abilities: Abilities,
    /// Whether what runs was found healthy when it was last checked; absent where there is no
    /// health check.
    #[serde(default)]
    pub healthy: Option<bool>,
    /// The deployment that the device is working on.
    #[serde(default)]
    pub deployment: Option<DeploymentStatus>,
    /// Why the device refused what it was told last: signatures, versions, expiry, floors. Absent
    /// once it has accepted something.
    #[serde(default)]
    pub refused: Option<Explained>,
    /// The image that it is to go back to and whose kept bytes are damaged: it has to be fetched
    /// again. What it is, the device knows; no order is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Sha256>,
    /// What the device found while it could not reach the server; told once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<Diagnosis>,
}

/// Answer to a check-in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckInAnswer {
    /// The server's clock. Not signed: for display only.
    pub time: Timestamp,
    /// Why this answer.
    pub reason: Explained,
    /// When to check in next, in seconds, before jitter.
    pub poll_after_s: u32,
    /// A signed assignment as JSON text, when there is one.
    #[serde(default)]
    pub assignment: Option<String>,
    /// A deployment to call off if it has not switched yet.
    #[serde(default)]
    pub cancel: Option<DeploymentId>,
    /// Keep the previous version at least this long from now, in seconds: an incident extended the
    /// rollback window, or froze pruning. It never shortens the window.
    #[serde(default)]
    pub keep_previous_s: Option<u32>,
    /// Whether the device is to make itself a new key.
    #[serde(default)]
    pub new_key: bool,
    /// Where else payloads may be fetched, best first: `https://host[:port][/folder]`, under which
    /// the blobs lie as on the server. Not signed: what comes from there is verified all the same.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Ways to fetch the image that the device has to restore, best first. Not signed: the device
    /// compares what comes of them with the image that it had verified before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore: Vec<Payload>,
}

//! Messages of the device API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Battery, Channel, DeploymentId, DeploymentState, DeviceId, Diagnosis, Explained, Format, Image,
    Platform, ProductName, Region, Sha256, Timestamp, Version,
};

/// A new device's request to join the fleet. The request is signed by the device's key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enroll {
    /// Format of the device's messages.
    #[serde(default = "Format::unnamed")]
    pub format: Format,
    /// The join token as text.
    pub token: String,
    /// The device's Ed25519 public key, 32 bytes in hexadecimal.
    pub public_key: String,
    /// A name for people; the host name by default.
    pub name: String,
    /// The product that the device runs.
    pub product: ProductName,
    /// Platform of the device.
    pub platform: Platform,
    /// Region it is in; a join token may fix it.
    #[serde(default)]
    pub region: Option<Region>,
    /// Channel, which decides the stages it takes; a join token may fix it.
    #[serde(default)]
    pub channel: Option<Channel>,
    /// Additional facts about the device.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Release already installed, if any.
    #[serde(default)]
    pub release: Option<Version>,
    /// Image of the release already installed.
    #[serde(default)]
    pub image: Option<Sha256>,
}

/// Answer to [`Enroll`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// Id assigned to the device.
    pub device: DeviceId,
    /// Region assigned to the device.
    pub region: Region,
    /// Channel assigned to the device.
    pub channel: Channel,
    /// The trusted root metadata to start from, as JSON text; the join token carries its hash.
    pub root: String,
    /// Whether the device waits for a person to accept it.
    #[serde(default)]
    pub awaiting: bool,
    /// Reason that the device could not be ordered back to what it runs now, once the rollback window of
    /// its next update is over. Shown to whoever enrolls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_way_back: Option<Explained>,
}

/// A device's request for a session, signed by its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionRequest {
    /// Format of the device's messages.
    #[serde(default = "Format::unnamed")]
    pub format: Format,
    /// Id of the device.
    pub device: DeviceId,
    /// Counter, one higher than in any signed request before. A counter that was already used means
    /// a replayed request, or a second machine with this identity.
    pub counter: u64,
}

/// A device's request to replace its key, signed by the current one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyChange {
    /// Id of the device.
    pub device: DeviceId,
    /// Counter, one higher than in any signed request before.
    pub counter: u64,
    /// The new Ed25519 public key, 32 bytes in hexadecimal.
    pub public_key: String,
    /// Signature over the change by the new key, in hexadecimal: proof that the device holds it.
    pub proof: String,
}

/// Answer to a [`KeyChange`], given after it is committed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyChanged {
    /// Key that identifies the device from now on.
    pub public_key: String,
}

/// Answer to a session request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionGranted {
    /// The ticket to send with each check-in.
    pub ticket: String,
    /// Lifetime of the ticket, in seconds.
    pub expires_in_s: u32,
}

/// Progress of a device in a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// The deployment.
    pub id: DeploymentId,
    /// Its current state.
    pub state: DeploymentState,
    /// Remaining rollback window in seconds, during probation.
    #[serde(default)]
    pub rollback_window_left_s: Option<u32>,
}

/// Payload capabilities of a device. For a value that is missing, a server assumes the least.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// Names of the encodings that it applies. A name that the server does not know is ignored; an
    /// empty list means an agent that does not report them, and stands for `raw`, `full`, `bsdiff`.
    #[serde(default)]
    pub encodings: Vec<String>,
    /// Memory that decoding may take, in KiB; 0 if not reported, which means 12 MiB.
    #[serde(default)]
    pub memory_kib: u32,
    /// Thousands of bits that its models decode per second, as measured; 0 if not reported.
    #[serde(default)]
    pub kilobits: u32,
    /// Speed of its last download in bytes per second; 0 if there was none.
    #[serde(default)]
    pub link: u64,
}

/// One way to fetch an image: a manifest named by its hash, and the image it starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// SHA-256 of the manifest.
    pub manifest: Sha256,
    /// Length of the manifest in bytes.
    pub manifest_length: u64,
    /// Base image, for a delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Sha256>,
    /// Number of bytes to fetch.
    pub bytes: u64,
}

/// A device's check-in: facts up, orders down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckIn {
    /// Format of the device's messages.
    #[serde(default = "Format::unnamed")]
    pub format: Format,
    /// 32 fresh random bytes in hexadecimal; a signed assignment must repeat them.
    pub nonce: String,
    /// The highest assignment counter accepted so far.
    pub counter: u64,
    /// Number of this check-in since the agent started, from 1: one that was used by another shows two
    /// machines with one memory. 0 from agents that do not count.
    #[serde(default)]
    pub turn: u64,
    /// Number of the last report that a server has acknowledged; absent if there is none, and from
    /// agents that do not say it. A server that has recorded fewer answers at once, so that the device
    /// sends again what is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<u64>,
    /// Time the server may hold the request while there is nothing new, in seconds; at most
    /// [`crate::MAX_WAIT_S`].
    #[serde(default)]
    pub wait: u16,
    /// The agent's own version.
    pub agent_version: String,
    /// Release that is running.
    #[serde(default)]
    pub release: Option<Version>,
    /// Image that is running: the base that a delta can start from.
    #[serde(default)]
    pub image: Option<Sha256>,
    /// Power and charge.
    #[serde(default)]
    pub battery: Battery,
    /// Whether the device is on a metered link.
    #[serde(default)]
    pub metered: bool,
    /// Payload capabilities of the device.
    #[serde(default)]
    pub abilities: Abilities,
    /// Whether the running release was healthy at its last check; absent if there is no health
    /// check.
    #[serde(default)]
    pub healthy: Option<bool>,
    /// The deployment that the device is working on.
    #[serde(default)]
    pub deployment: Option<DeploymentStatus>,
    /// Version that the device keeps from before this deployment and can be ordered back to without a
    /// download; absent when it keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// Reason the device refused the last thing it was given: signatures, versions, expiry or
    /// floors. Absent once it has accepted something.
    #[serde(default)]
    pub refused: Option<Explained>,
    /// Image that the device has to return to but whose kept bytes are damaged, so that it must be
    /// fetched again. The device knows which image that is; no order is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Sha256>,
    /// Data that somebody wrote into an earlier version and that the device keeps aside; absent if there
    /// is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
    /// Findings from the time when the device could not reach the server; sent once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<Diagnosis>,
}

/// Data that somebody wrote into a version, moved aside when its slot was used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Number of files.
    pub files: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Folder of the machine in which they lie.
    pub folder: String,
}

impl Left {
    /// Upper bound on a number, and on the characters of the folder, in what comes from outside.
    const MOST: (u64, usize) = (1 << 50, 200);

    /// Returns a copy within the bounds.
    pub fn bounded(&self) -> Self {
        Self {
            files: self.files.min(Self::MOST.0),
            bytes: self.bytes.min(Self::MOST.0),
            folder: self.folder.chars().take(Self::MOST.1).collect(),
        }
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (files, bytes, folder) = (self.files, self.bytes, crate::plain(&self.folder));
        write!(
            f,
            "{files} files ({bytes} bytes) that somebody wrote into an earlier version are kept in {folder} of the machine"
        )
    }
}

/// Version that a device keeps in its other slot: it held and ran it before the deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The release.
    pub release: Version,
    /// Its bytes, as the device holds them: they need not be those of a published release.
    #[serde(flatten)]
    pub image: Image,
}

/// Answer to a check-in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckInAnswer {
    /// The server's clock. Not signed: for display only.
    pub time: Timestamp,
    /// Reason for this answer.
    pub reason: Explained,
    /// Delay until the next check-in in seconds, before jitter.
    pub poll_after_s: u32,
    /// A signed assignment as JSON text, when there is one.
    #[serde(default)]
    pub assignment: Option<String>,
    /// Deployment to cancel, if the device has not switched yet.
    #[serde(default)]
    pub cancel: Option<DeploymentId>,
    /// Keep the previous version at least this long from now, in seconds: an incident extended the
    /// rollback window, or froze pruning. It never shortens the window.
    #[serde(default)]
    pub keep_previous_s: Option<u32>,
    /// Number of the newest report of the device that is recorded: it sends the last one again if that is
    /// missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<u64>,
    /// Whether the device has to generate a new key, for agents from before `key_order`; later ones
    /// do not obey it, as it is not signed.
    #[serde(default)]
    pub new_key: bool,
    /// A signed order to generate a new key as JSON text, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_order: Option<String>,
    /// Other addresses to fetch payloads from, best first: `https://host[:port][/folder]`, with
    /// blobs laid out below it as on the server. Not signed: everything fetched there is verified
    /// all the same.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Ways to fetch the image that the device has to restore, best first. Not signed: the device
    /// compares the result with the image that it verified before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore: Vec<Payload>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ReportBatch;

    fn takes<T: serde::de::DeserializeOwned>(mut body: Value) {
        body["of_a_newer_agent"] = json!({ "deep": [1] });
        if let Err(error) = serde_json::from_value::<T>(body) {
            panic!("{}: {error}", std::any::type_name::<T>());
        }
    }

    #[test]
    fn a_newer_agent_may_send_a_server_fields_that_it_does_not_know() {
        let id = DeviceId::from_random([1; 16]);
        let report = json!({
            "seq": 1, "deployment": DeploymentId::from_random([2; 16]), "leg": "1.1.0", "state": "failed", "at": 0,
            "of_a_newer_agent": true,
        });
        takes::<CheckIn>(json!({
            "nonce": "00", "counter": 1, "agent_version": "9.0.0",
            "abilities": { "of_a_newer_agent": 3 }, "battery": { "of_a_newer_agent": 3 },
        }));
        takes::<ReportBatch>(json!({ "reports": [report] }));
        takes::<SessionRequest>(json!({ "device": id, "counter": 1 }));
        takes::<KeyChange>(json!({ "device": id, "counter": 1, "public_key": "", "proof": "" }));
        takes::<Enroll>(json!({
            "token": "", "public_key": "", "name": "one", "product": "app", "platform": "linux-x86_64",
        }));
    }
}

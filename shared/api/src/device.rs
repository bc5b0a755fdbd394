//! Devices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ReasonView;

/// A device.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its product.
    pub product: String,
    /// Its platform.
    pub platform: String,
    /// Its region.
    pub region: String,
    /// Its channel.
    pub channel: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it may take part; `false` if it is revoked or waits to be accepted.
    pub active: bool,
    /// Whether it has joined and waits for a person to accept it.
    #[serde(default)]
    pub awaiting: bool,
    /// Fingerprint of its key: SHA-256 of the public key.
    #[serde(default)]
    pub key_sha256: String,
    /// Reason for its isolation; absent if it is not isolated.
    pub isolated: Option<String>,
    /// Reason it refused its last order; absent once it has accepted something.
    pub refused: Option<ReasonView>,
    /// Diagnosis from the last time it was cut off from the server.
    pub diagnosis: Option<String>,
    /// Whether it was heard from recently.
    pub online: bool,
    /// Release running on it.
    pub release: Option<String>,
    /// SHA-256 of the image running on it.
    pub image: Option<String>,
    /// Fields here that are the word of its check-ins alone, which are not signed; no gate counts them.
    #[serde(default)]
    pub claimed: Vec<String>,
    /// Version of its agent.
    pub agent_version: String,
    /// Charge in percent.
    pub battery_percent: Option<u8>,
    /// Source of its power.
    pub power: String,
    /// Time it enrolled.
    pub enrolled_at: String,
    /// Time it was last heard from.
    pub last_seen: String,
    /// State of its current deployment; absent if it has none.
    pub state: Option<String>,
    /// Seconds left of the rollback window, during probation.
    pub rollback_window_left_s: Option<u32>,
    /// Quarantined releases.
    pub quarantine: Vec<String>,
    /// Reason that it could not be ordered back to what it runs now, once the rollback window of its next
    /// update is over; absent if it could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_way_back: Option<ReasonView>,
    /// Reason for what it is told now.
    pub reason: ReasonView,
}

/// One step in the chain behind a decision.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// Rollout that was checked; absent for the device itself.
    pub rollout: Option<String>,
    /// Name of the check.
    pub check: String,
    /// Whether the device passed it.
    pub passed: bool,
    /// Finding of the check.
    pub found: String,
}

/// Explanation of what a device is told.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WhyView {
    /// The decision.
    pub reason: ReasonView,
    /// Steps that led to it.
    pub steps: Vec<StepView>,
}

/// Body of a change that needs a reason.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonBody {
    /// The reason.
    #[schema(min_length = 1, max_length = 300)]
    pub reason: String,
}

/// Request to lift a quarantine.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LiftBody {
    /// Release to lift it for.
    pub version: String,
    /// The reason.
    #[schema(min_length = 1, max_length = 300)]
    pub reason: String,
}

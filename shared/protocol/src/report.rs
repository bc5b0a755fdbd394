//! What happened on a device, in the order in which it happened.

use serde::{Deserialize, Serialize};

use crate::{DeploymentId, DeploymentState, Explained, Sha256, Version};

/// One thing that happened to a deployment on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Number of the report on this device, from 1, without gaps. The server takes each number
    /// once, so that a report whose acknowledgement was lost may be sent again.
    pub seq: u64,
    /// Which deployment.
    pub deployment: DeploymentId,
    /// What it has become.
    pub state: DeploymentState,
    /// Why, where there is something to say.
    #[serde(default)]
    pub reason: Option<Explained>,
    /// The release that the device runs at that moment.
    #[serde(default)]
    pub release: Option<Version>,
    /// The image that the device runs at that moment.
    #[serde(default)]
    pub image: Option<Sha256>,
    /// Bytes fetched from the network for this deployment up to then.
    #[serde(default)]
    pub bytes_downloaded: u64,
    /// For how long what is updated did not run because of this deployment, up to then, in
    /// milliseconds; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_ms: Option<u64>,
    /// The device's Ed25519 signature over all of the above and its id, in hexadecimal: a result
    /// that neither side can deny.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// Body of a report request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportBatch {
    /// At most [`ReportBatch::MAX`] reports in order.
    pub reports: Vec<Report>,
}

impl ReportBatch {
    /// The most reports in one request.
    pub const MAX: usize = 64;
}

/// Answer to a report request, given after the reports are committed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportsAccepted {
    /// The highest number now held by the server; the device may forget up to it.
    pub acknowledged: u64,
}

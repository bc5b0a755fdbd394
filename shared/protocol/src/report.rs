//! Reports of what happened on a device, in order.

use serde::{Deserialize, Serialize};

use crate::{DeploymentId, DeploymentState, Explained, Sha256, Version};

/// One change of a deployment on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Number of the report on this device, from 1, without gaps. The server takes each number
    /// once, so that a report whose acknowledgement was lost may be sent again.
    pub seq: u64,
    /// The deployment.
    pub deployment: DeploymentId,
    /// Its new state.
    pub state: DeploymentState,
    /// Reason for the change, if there is one to give.
    #[serde(default)]
    pub reason: Option<Explained>,
    /// Release that the device runs at that moment.
    #[serde(default)]
    pub release: Option<Version>,
    /// Image that the device runs at that moment.
    #[serde(default)]
    pub image: Option<Sha256>,
    /// Bytes fetched from the network for this deployment up to then.
    #[serde(default)]
    pub bytes_downloaded: u64,
    /// Downtime caused by this deployment up to then, in milliseconds: time that the updated
    /// software did not run. Absent if not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_ms: Option<u64>,
    /// The device's Ed25519 signature over all of the above and its id, in hexadecimal, so that
    /// neither side can deny the result.
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
    /// Maximum number of reports in one request.
    pub const MAX: usize = 64;
}

/// Answer to a report request, given after the reports are committed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportsAccepted {
    /// Highest report number that the server holds; the device may discard reports up to it.
    pub acknowledged: u64,
}

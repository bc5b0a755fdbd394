//! What is carried between a control plane and devices without a network.
//!
//! ```text
//! bundle.json      a signed order for each device
//! metadata/        signed files, as the server serves them
//! blobs/           manifests and payloads, named by their SHA-256
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DeviceId, Report};

/// `bundle.json`. Nothing in it is believed before its signature was checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// [`Bundle::FORMAT`].
    pub format: String,
    /// The rollout that it belongs to.
    pub rollout: String,
    /// A signed assignment as JSON text for each device.
    pub orders: BTreeMap<DeviceId, String>,
}

impl Bundle {
    /// The format that this version writes and reads.
    pub const FORMAT: &str = "tidegate-bundle-1";
    /// The name of the file in its folder.
    pub const FILE: &str = "bundle.json";
    /// The largest that is read, in bytes: 2,000 orders.
    pub const MAX_BYTES: u64 = 32 << 20;
}

/// What a device has to report, to be carried back. Each report has its own signature.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CarriedReports {
    /// [`CarriedReports::FORMAT`].
    pub format: String,
    /// Whose.
    pub device: DeviceId,
    /// Signed, oldest first.
    pub reports: Vec<Report>,
}

impl CarriedReports {
    /// The format that this version writes and reads.
    pub const FORMAT: &str = "tidegate-reports-1";
}

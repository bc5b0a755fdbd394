//! Files carried between a control plane and devices that have no network.
//!
//! ```text
//! bundle.json      what it is
//! orders/          a signed order for each device
//! metadata/        signed files, as the server serves them
//! blobs/           manifests and payloads, named by their SHA-256
//! ```

use serde::{Deserialize, Serialize};

use crate::{DeviceId, Report};

/// `bundle.json`. Nothing in it is trusted: only the signed files count.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// [`Bundle::FORMAT`].
    pub format: String,
    /// Rollout the bundle belongs to.
    pub rollout: String,
    /// Number of devices the bundle has orders for.
    pub devices: usize,
}

impl Bundle {
    /// The format that this version writes and reads.
    pub const FORMAT: &str = "tidegate-bundle-2";
    /// Name of this file in the bundle's folder.
    pub const FILE: &str = "bundle.json";
    /// Size limit in bytes for a file of the bundle, which is read whole: an order, with room to
    /// spare.
    pub const MAX_BYTES: u64 = 256 << 10;

    /// Path of the file with a device's order, a signed assignment, relative to the bundle's
    /// folder. A small device reads its own order and no other.
    pub fn order(device: DeviceId) -> String {
        format!("orders/{device}.json")
    }
}

/// Reports of one device, carried back to the control plane. Each report has its own signature.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CarriedReports {
    /// [`CarriedReports::FORMAT`].
    pub format: String,
    /// Device that made the reports.
    pub device: DeviceId,
    /// Signed reports, oldest first.
    pub reports: Vec<Report>,
}

impl CarriedReports {
    /// The format that this version writes and reads.
    pub const FORMAT: &str = "tidegate-reports-2";
}

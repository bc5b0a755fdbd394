//! What is carried between a control plane and devices without a network.
//!
//! ```text
//! bundle.json      what it is
//! orders/          a signed order for each device
//! metadata/        signed files, as the server serves them
//! blobs/           manifests and payloads, named by their SHA-256
//! ```

use serde::{Deserialize, Serialize};

use crate::{DeviceId, Report};

/// `bundle.json`. Nothing of it is believed: what counts is signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// [`Bundle::FORMAT`].
    pub format: String,
    /// The rollout that it belongs to.
    pub rollout: String,
    /// How many devices it has orders for.
    pub devices: usize,
}

impl Bundle {
    /// The format that this version writes and reads.
    pub const FORMAT: &str = "tidegate-bundle-1";
    /// The name of the file in its folder.
    pub const FILE: &str = "bundle.json";
    /// The largest file of its folder that is read at once, in bytes: an order, with room.
    pub const MAX_BYTES: u64 = 256 << 10;

    /// The name of the file with a device's order, below the bundle's folder: a signed assignment. A
    /// small machine reads its own and no other.
    pub fn order(device: DeviceId) -> String {
        format!("orders/{device}.json")
    }
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

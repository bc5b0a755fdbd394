//! Signed metadata.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One signed file.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MetadataFileBody {
    /// `root`, `targets` or the name of a product-channel role.
    pub role: String,
    /// The signed file as text.
    pub body: String,
}

/// Signed files, taken all or none, in order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MetadataBody {
    /// The files.
    pub files: Vec<MetadataFileBody>,
}

/// What the server trusts and signs with.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TrustView {
    /// Public halves of the online keys by role.
    pub online_keys: BTreeMap<String, String>,
    /// Newest version of each role.
    pub versions: BTreeMap<String, u64>,
    /// SHA-256 of the newest root.
    pub root_sha256: Option<String>,
}

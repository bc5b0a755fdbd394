//! Signed metadata.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One signed file.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataFileBody {
    /// `root`, `targets` or the name of a product-channel role.
    pub role: String,
    /// The signed file as text.
    pub body: String,
}

/// Signed files, taken in order, all or none.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataBody {
    /// The files.
    pub files: Vec<MetadataFileBody>,
}

/// Keys and metadata of the server.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TrustView {
    /// Public halves of the online keys by role.
    pub online_keys: BTreeMap<String, String>,
    /// Newest version of each role.
    pub versions: BTreeMap<String, u64>,
    /// Problems with the stored files and the server's own keys; empty if all is well.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Expiry of the newest file of each role.
    #[serde(default)]
    pub expires: BTreeMap<String, String>,
    /// SHA-256 of the newest root.
    pub root_sha256: Option<String>,
}

/// File with some of its signatures.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DraftBody {
    /// `root`, `targets` or the name of a product-channel role.
    pub role: String,
    /// The file with the signatures so far, as text.
    pub body: String,
    /// Its purpose, in a person's words.
    #[serde(default)]
    pub purpose: String,
}

/// Draft, as operators see it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DraftView {
    /// Its role.
    pub role: String,
    /// Version it will have.
    pub version: u64,
    /// The file with the signatures so far, as text.
    pub body: String,
    /// Its purpose.
    pub purpose: String,
    /// Holders who have signed.
    pub signed_by: Vec<String>,
    /// All holders who may sign.
    pub holders: Vec<String>,
    /// Number of holders who must sign.
    pub people: u32,
    /// Whether it is complete and in force.
    pub complete: bool,
    /// Time of its newest signature.
    pub created_at: String,
    /// Operator whose token uploaded it.
    pub created_by: String,
}

//! Products, releases, artifacts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Request to create a product.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductBody {
    /// Its name: a-z, 0-9 and '-'.
    #[schema(max_length = 40)]
    pub name: String,
}

/// A product.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProductView {
    /// Its name.
    pub name: String,
}

/// Request to create a release.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseBody {
    /// Its semantic version.
    #[schema(max_length = 64)]
    pub version: String,
    /// Release notes.
    #[serde(default)]
    pub notes: String,
}

/// A release.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReleaseView {
    /// Product of the release.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Its stage.
    pub stage: String,
    /// Release notes.
    pub notes: String,
    /// Reason it has its stage.
    pub reason: Option<String>,
    /// Time of its end of life, past or future; absent if none is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eol_at: Option<String>,
    /// Text of the end-of-life announcement.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub eol_notice: String,
    /// Incremented by every change; also the `ETag`.
    pub revision: i64,
    /// Time it was created.
    pub created_at: String,
    /// Operator who created it.
    pub created_by: String,
    /// Its artifacts; absent in lists.
    #[serde(default)]
    pub artifacts: Vec<ArtifactView>,
}

/// Request to add an artifact; its bytes were uploaded before.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArtifactBody {
    /// Platform, for example `linux-x86_64`.
    pub platform: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// An artifact.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// Its platform.
    pub platform: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Number of bytes.
    pub length: u64,
}

/// Stored blob.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BlobView {
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Number of bytes.
    pub length: u64,
}

/// Request to promote a release.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteBody {
    /// New stage: alpha, beta, ga, eol or withdrawn.
    pub to: String,
    /// The reason; needed if a stage is skipped and for a withdrawal.
    pub reason: Option<String>,
    /// Only preview the result.
    #[serde(default)]
    pub dry_run: bool,
}

/// Announcement of the end of life of a release.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EolBody {
    /// Time, RFC 3339; from then on the release is no longer offered, and the version gate refuses
    /// it.
    pub at: String,
    /// Notice for its users.
    #[serde(default)]
    #[schema(max_length = 500)]
    pub notice: String,
    /// Only preview the result.
    #[serde(default)]
    pub dry_run: bool,
}

/// Settings of a product. A setting left out is switched off.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsBody {
    /// Oldest supported version: the version gate refuses older clients.
    pub min_version: Option<String>,
    /// Oldest TLS version that clients may use: `TLSv1.2`.
    pub min_tls: Option<String>,
    /// Capabilities that a client must have.
    pub capabilities: Vec<String>,
    /// Address with upgrade instructions for people.
    pub upgrade_url: String,
    /// Number of other people who must approve a change that widens a rollout.
    #[schema(maximum = 10)]
    pub approvals: u32,
    /// Chunk size of new deltas, in KiB: small for bad links; 1024 if left out.
    #[schema(minimum = 64, maximum = 1024)]
    pub delta_chunk_kib: Option<u32>,
    /// Chunk size of new full payloads, in KiB; 10240 if left out.
    #[schema(minimum = 64, maximum = 10240)]
    pub full_chunk_kib: Option<u32>,
}

/// Settings of a product, and the change of them that waits for approvals.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SettingsView {
    /// Settings in force.
    #[serde(flatten)]
    pub settings: SettingsBody,
    /// Change that waits for approvals, with the number of them that has been needed so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<AskedSettingsView>,
}

/// Change of a product's settings that waits for approvals.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AskedSettingsView {
    /// Settings that it leads to.
    pub settings: SettingsBody,
    /// Operator who asked for it.
    pub asked_by: String,
    /// Hash of the plan, which approvers must name.
    pub plan: String,
    /// Number of other people who must approve.
    pub needed: u32,
    /// Number of approvals still missing.
    pub missing: u32,
    /// Names of those who have approved.
    pub given_by: Vec<String>,
}

/// Payload, for people.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PayloadView {
    /// Its platform.
    pub platform: String,
    /// Release that it starts from; absent for full payloads.
    pub from: Option<String>,
    /// Its encoding.
    pub encoding: String,
    /// Bytes to download.
    pub bytes: u64,
    /// Size in bytes of the image it produces.
    pub image_bytes: u64,
    /// `ready`, `building` or `failed`.
    pub state: String,
    /// Reason it failed, or was not kept.
    pub error: String,
}

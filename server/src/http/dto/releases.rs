//! Products, releases, artifacts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time;
use crate::store::products::{Artifact, ProductSettings, Release};

/// A product to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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

/// A release to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReleaseBody {
    /// Its semantic version.
    #[schema(max_length = 64)]
    pub version: String,
    /// What is new in it.
    #[serde(default)]
    pub notes: String,
}

/// A release.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReleaseView {
    /// Whose.
    pub product: String,
    /// Which.
    pub version: String,
    /// How far it has come.
    pub stage: String,
    /// What is new in it.
    pub notes: String,
    /// Why it has its stage.
    pub reason: Option<String>,
    /// When its life ends or ended, where that is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eol_at: Option<String>,
    /// What was announced.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub eol_notice: String,
    /// Rises with every change; also the `ETag`.
    pub revision: i64,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// Its artifacts; absent in lists.
    #[serde(default)]
    pub artifacts: Vec<ArtifactView>,
}

impl ReleaseView {
    pub(crate) fn new(release: Release, artifacts: &[Artifact]) -> Self {
        Self {
            product: release.product.to_string(),
            version: release.version.to_string(),
            stage: release.stage.to_string(),
            notes: release.notes,
            reason: release.reason,
            eol_at: release.eol.as_ref().map(|(at, _)| time(*at)),
            eol_notice: release.eol.map(|(_, notice)| notice).unwrap_or_default(),
            revision: release.revision,
            created_at: time(release.created_at),
            created_by: release.created_by,
            artifacts: artifacts.iter().map(ArtifactView::from).collect(),
        }
    }
}

/// An artifact to be added; its bytes were uploaded before.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ArtifactBody {
    /// For what, for example `linux-x86_64`.
    pub platform: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// An artifact.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// For what.
    pub platform: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Their number.
    pub length: u64,
}

impl From<&Artifact> for ArtifactView {
    fn from(artifact: &Artifact) -> Self {
        Self {
            platform: artifact.platform.to_string(),
            sha256: artifact.image.sha256.to_string(),
            length: artifact.image.length,
        }
    }
}

/// Bytes that are stored.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BlobView {
    /// Their SHA-256.
    pub sha256: String,
    /// Their number.
    pub length: u64,
}

/// A promotion.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PromoteBody {
    /// The stage to take: alpha, beta, ga, eol or withdrawn.
    pub to: String,
    /// Why; needed when a stage is skipped and for a withdrawal.
    pub reason: Option<String>,
    /// Only say what would be.
    #[serde(default)]
    pub dry_run: bool,
}

/// The end of a release's life, announced.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct EolBody {
    /// When, RFC 3339; from then on it is offered no more, and the version gate turns it away.
    pub at: String,
    /// What its users are told.
    #[serde(default)]
    #[schema(max_length = 500)]
    pub notice: String,
    /// Only say what would be.
    #[serde(default)]
    pub dry_run: bool,
}

/// What holds for a whole product. What is left out is switched off.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SettingsBody {
    /// The oldest supported version: the version gate turns older clients away.
    pub min_version: Option<String>,
    /// The oldest TLS that clients may speak: `TLSv1.2`.
    pub min_tls: Option<String>,
    /// What a client must be able to do.
    pub capabilities: Vec<String>,
    /// Where a person finds the way to upgrade.
    pub upgrade_url: String,
    /// How many other people must approve what widens a rollout.
    #[schema(maximum = 10)]
    pub approvals: u32,
    /// KiB of a chunk of deltas that are made from now on: small ones for bad links. 1024 if left out.
    #[schema(minimum = 64, maximum = 1024)]
    pub delta_chunk_kib: Option<u32>,
    /// KiB of a chunk of full payloads that are made from now on. 10240 if left out.
    #[schema(minimum = 64, maximum = 10240)]
    pub full_chunk_kib: Option<u32>,
}

impl From<ProductSettings> for SettingsBody {
    fn from(s: ProductSettings) -> Self {
        Self {
            min_version: s.min_version.map(|v| v.to_string()),
            min_tls: s.min_tls,
            capabilities: s.capabilities.into_iter().collect(),
            upgrade_url: s.upgrade_url,
            approvals: s.approvals,
            delta_chunk_kib: s.delta_chunk_kib,
            full_chunk_kib: s.full_chunk_kib,
        }
    }
}

/// Why a client may not connect, and what it is to do: a problem (RFC 9457).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TurnedAwayView {
    /// The status of the answer.
    pub status: u16,
    /// What it is about.
    pub title: String,
    /// The reason's code.
    pub code: String,
    /// The reason for people.
    pub detail: String,
    /// The version to come to.
    pub go_to: Option<String>,
    /// The version to install first, where one may not be skipped.
    pub first: Option<String>,
    /// Where to find the way.
    pub upgrade_url: Option<String>,
}

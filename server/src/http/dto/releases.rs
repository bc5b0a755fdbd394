//! Products, releases, artifacts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time;
use crate::store::products::{Artifact, Release};

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

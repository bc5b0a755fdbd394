//! What a service may answer instead of a result.

use tidegate_domain::lifecycle::LifecycleRefusal;
use tidegate_domain::rollout::RolloutRefusal;
use tidegate_protocol::{Problem, ProblemCode, error_chain};
use tidegate_trust::TrustError;

use crate::blob::BlobError;
use crate::store::StoreError;

/// Why a service refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A refusal with a stable code and a text for the caller.
    #[error("{1}")]
    Refused(ProblemCode, String),
    /// The store failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// The blob store failed.
    #[error("the blob store failed")]
    Blob(#[source] BlobError),
    /// Signed metadata was refused.
    #[error("signed metadata was refused")]
    Trust(#[from] TrustError),
    /// A stage may not be taken.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleRefusal),
    /// A rollout does not take an order.
    #[error(transparent)]
    Rollout(#[from] RolloutRefusal),
}

impl From<BlobError> for ServiceError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::WrongDigest { .. } => {
                Self::Refused(ProblemCode::DigestMismatch, error.to_string())
            }
            BlobError::TooLarge(_) => Self::Refused(ProblemCode::TooLarge, error.to_string()),
            BlobError::Read(_) => Self::Refused(
                ProblemCode::InvalidRequest,
                "the upload broke off; send it again".into(),
            ),
            BlobError::Store(_) | BlobError::Folder(..) | BlobError::Damaged(_) => {
                Self::Blob(error)
            }
        }
    }
}

impl ServiceError {
    /// A refusal.
    pub fn refuse(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self::Refused(code, detail.into())
    }

    /// Something that is not there.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::Refused(ProblemCode::NotFound, format!("there is no {what}"))
    }

    /// A value that cannot be read.
    pub fn invalid(what: impl std::fmt::Display) -> Self {
        Self::Refused(ProblemCode::InvalidRequest, what.to_string())
    }

    /// What the caller is told. The particulars of an inner failure are for the log alone.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(code, detail) => Problem::new(*code, detail),
            Self::Trust(error) => Problem::new(ProblemCode::MetadataRefused, error_chain(error)),
            Self::Lifecycle(error) => {
                Problem::new(ProblemCode::IllegalTransition, error.to_string())
            }
            Self::Rollout(error) => Problem::new(ProblemCode::IllegalTransition, error.to_string()),
            Self::Store(_) | Self::Blob(_) => Problem::new(
                ProblemCode::Unavailable,
                "the server's storage does not answer as it should; try again shortly",
            ),
        }
    }

    /// Whether it is a failure of ours, to be logged.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Blob(_))
    }
}

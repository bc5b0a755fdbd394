//! Errors of the use cases.

use tidegate_domain::approval::ApprovalRefusal;
use tidegate_domain::lifecycle::LifecycleRefusal;
use tidegate_domain::rollout::RolloutRefusal;
use tidegate_protocol::{Problem, ProblemCode, error_chain};
use tidegate_store::StoreError;
use tidegate_trust::TrustError;

use crate::blob::BlobError;

/// Reason a use case refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
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
    /// A release may not move to this stage.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleRefusal),
    /// A rollout does not accept this order.
    #[error(transparent)]
    Rollout(#[from] RolloutRefusal),
}

impl From<ApprovalRefusal> for CoreError {
    fn from(refusal: ApprovalRefusal) -> Self {
        let code = match refusal {
            ApprovalRefusal::OwnRequest(_) | ApprovalRefusal::SamePerson { .. } => {
                ProblemCode::Forbidden
            }
            ApprovalRefusal::OtherPlan { .. } => ProblemCode::PreconditionFailed,
            ApprovalRefusal::NothingAsked => ProblemCode::Conflict,
        };
        Self::Refused(code, refusal.to_string())
    }
}

impl From<BlobError> for CoreError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::WrongDigest { .. } => {
                Self::Refused(ProblemCode::DigestMismatch, error.to_string())
            }
            BlobError::Full { .. } => Self::Refused(ProblemCode::Unavailable, error.to_string()),
            BlobError::TooLarge(_) => Self::Refused(ProblemCode::TooLarge, error.to_string()),
            BlobError::Read(_) => Self::Refused(
                ProblemCode::InvalidRequest,
                "the upload was interrupted; send it again".into(),
            ),
            BlobError::Store(_) | BlobError::Folder(..) | BlobError::Damaged(_) => {
                Self::Blob(error)
            }
        }
    }
}

impl From<tidegate_delta::ManifestError> for CoreError {
    fn from(error: tidegate_delta::ManifestError) -> Self {
        Self::invalid(error)
    }
}

impl From<tidegate_api::Invalid> for CoreError {
    fn from(invalid: tidegate_api::Invalid) -> Self {
        Self::invalid(invalid)
    }
}

impl CoreError {
    /// Builds a refusal.
    pub fn refuse(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self::Refused(code, detail.into())
    }

    /// Builds the refusal for something that does not exist.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::Refused(ProblemCode::NotFound, format!("there is no {what}"))
    }

    /// Builds the refusal for an invalid value.
    pub fn invalid(what: impl std::fmt::Display) -> Self {
        Self::Refused(ProblemCode::InvalidRequest, what.to_string())
    }

    /// Problem document for the caller. Details of an internal failure go to the log only.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(code, detail) => Problem::new(*code, detail),
            Self::Trust(error) => Problem::new(ProblemCode::MetadataRefused, error_chain(error)),
            // Something else is missing first: the stage itself allows it.
            Self::Lifecycle(error @ LifecycleRefusal::NotSigned { .. }) => {
                Problem::new(ProblemCode::Conflict, error.to_string())
            }
            Self::Lifecycle(error) => {
                Problem::new(ProblemCode::IllegalTransition, error.to_string())
            }
            Self::Rollout(error) => Problem::new(ProblemCode::IllegalTransition, error.to_string()),
            Self::Store(_) | Self::Blob(_) => Problem::new(
                ProblemCode::Unavailable,
                "the server's storage is not working; try again shortly",
            ),
        }
    }

    /// Returns whether the database's disk had no room for a write.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_full())
    }

    /// Returns whether this is a failure of the server, to be logged.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Blob(_))
    }
}

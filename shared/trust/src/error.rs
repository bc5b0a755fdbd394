//! Reasons for refusing something signed.

use tidegate_protocol::{Explained, Reason, Version};

/// A refusal. Each variant is one numbered check; the agent reports it and changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The verification core refused a file (signatures, versions, pins, expiry).
    #[error("{file}: {source}")]
    Metadata {
        /// Name of the file.
        file: String,
        /// Error of the core.
        #[source]
        source: sigstore_tuf::Error,
    },
    /// A file is larger than allowed.
    #[error("{file} has {length} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Name of the file.
        file: String,
        /// Its length in bytes.
        length: usize,
        /// The cap.
        limit: usize,
    },
    /// A required file is missing.
    #[error("{0} is not there")]
    Missing(String),
    /// More consecutive root versions than one refresh follows.
    #[error(
        "more than {} root versions behind: cannot follow them in one refresh",
        crate::size_limit::ROOT_STEPS
    )]
    TooManyRoots,
    /// A field is missing or of the wrong form.
    #[error("{file}: {what}")]
    Field {
        /// Name of the file.
        file: String,
        /// Description of the problem.
        what: String,
    },
    /// Older than a version that this device has seen, whatever the stored files say.
    #[error(
        "{file} is version {got}, older than version {floor} that this device has already seen"
    )]
    BelowVersionFloor {
        /// Name of the file.
        file: String,
        /// Its version.
        got: u64,
        /// The newest version seen.
        floor: u64,
    },
    /// The assignment does not name exactly one image.
    #[error("the assignment names {0} images; expected exactly one")]
    NotOneImage(usize),
    /// Made for another device.
    #[error("the assignment is for another device")]
    WrongDevice,
    /// Does not answer this request.
    #[error("the assignment does not repeat the nonce of the request")]
    WrongNonce,
    /// Its counter is not the next one.
    #[error("the assignment's counter is {got}; expected {expected}")]
    WrongCounter {
        /// The only counter that is accepted.
        expected: u64,
        /// The counter that came.
        got: u64,
    },
    /// Valid for longer than an assignment may be.
    #[error("the assignment is valid for more than {} h", crate::lifetime::ASSIGNMENT_MAX.as_secs() / 3600)]
    TooLongLived,
    /// Its path is not one that the role may speak for.
    #[error("{0} is outside the paths of this product and channel")]
    PathOutsideRole(String),
    /// The offline-signed role does not list it.
    #[error("{0} is not listed in the offline-signed role")]
    NotListed(String),
    /// Length or digest differ from the offline-signed role.
    #[error("the assigned image is not the one that was signed offline")]
    ImageDiffers,
    /// Not for this platform.
    #[error("the image is for {0}, not for this device")]
    WrongPlatform(String),
    /// The installed release is older than the image's minimum source.
    #[error("{image} can only be installed over {needed} or newer")]
    BelowMinimumSource {
        /// Assigned image.
        image: Version,
        /// The oldest release that it can replace.
        needed: Version,
    },
    /// A release that must not be skipped lies in between.
    #[error("{image} may not be installed before {stone}, which is a stepping stone")]
    SkipsSteppingStone {
        /// Assigned image.
        image: Version,
        /// Release that has to come first.
        stone: Version,
    },
    /// Needs a newer agent.
    #[error("{image} needs agent {needed} or newer")]
    AgentTooOld {
        /// Assigned image.
        image: Version,
        /// The oldest agent that can install it.
        needed: Version,
    },
    /// Below the floor that this device or the policy sets.
    #[error("{image} is older than {floor}, the oldest release allowed")]
    BelowFloor {
        /// Assigned image.
        image: Version,
        /// The oldest release allowed.
        floor: Version,
    },
    /// The offline-signed policy ended its life.
    #[error("{0} has reached its end of life")]
    EndOfLife(Version),
    /// Older than the installed release, without being a rollback.
    #[error("{image} is older than the installed {installed} and no rollback was ordered")]
    Downgrade {
        /// Assigned image.
        image: Version,
        /// Release that is installed.
        installed: Version,
    },
    /// A rollback to a release that is newer than the installed one.
    #[error("a rollback to {image} was ordered, which is newer than the installed {installed}")]
    RollbackUpwards {
        /// The assigned release.
        image: Version,
        /// The installed one.
        installed: Version,
    },
    /// The installed release does not allow a rollback.
    #[error("rollback from {0} is not allowed")]
    RollbackNotAllowed(Version),
    /// The release is already running.
    #[error("{0} is already running")]
    AlreadyInstalled(Version),
}

impl TrustError {
    pub(crate) fn field(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Field {
            file: file.into(),
            what: what.into(),
        }
    }

    /// Returns whether only signatures are missing.
    pub fn lacks_signatures(&self) -> bool {
        matches!(
            self,
            Self::Metadata {
                source: sigstore_tuf::Error::ThresholdNotMet { .. },
                ..
            }
        )
    }

    /// Returns whether the refusal is about the assignment, not the repository.
    fn is_about_assignment(&self) -> bool {
        match self {
            Self::Metadata { file, .. }
            | Self::TooLarge { file, .. }
            | Self::Missing(file)
            | Self::Field { file, .. } => file == crate::assignment::FILE,
            Self::TooManyRoots | Self::BelowVersionFloor { .. } => false,
            _ => true,
        }
    }

    /// The reason to report, with this error as its detail.
    pub fn explained(&self) -> Explained {
        let code = match self {
            Self::Metadata {
                source: sigstore_tuf::Error::Expired { .. },
                ..
            } => Reason::MetadataExpired,
            error if error.is_about_assignment() => Reason::AssignmentRefused,
            _ => Reason::MetadataRefused,
        };
        Explained::new(code, self.to_string())
    }
}

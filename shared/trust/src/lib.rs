#![doc = include_str!("../README.md")]

pub mod assignment;
pub mod http_signature;
pub mod verify;

mod canonical;
mod document;
mod error;
mod floors;
mod join;
mod key;
mod ml_dsa;
mod online;
mod provider;
mod quorum;
mod report;
mod repository;
mod role;
mod role_key;
mod strict;
mod top;
mod trusted;

pub use document::{Signed, sign};
pub use error::TrustError;
pub use floors::{Floor, Floors};
pub use join::{Backstop, JoinToken, JoinTokenError};
pub use key::{KeyError, PublicKey, SecretKey};
pub use ml_dsa::{MlDsaPublic, MlDsaSecret};
pub use online::{FileFacts, signed_version, snapshot_body, timestamp_body};
pub use quorum::{Holder, Quorum, signed_by};
pub use report::{key_change, sign_report, verify_report};
pub use repository::{Repository, UploadedFile};
pub use role::{CommandLine, ImageFacts, ImagePath, Policy, ProductRole, RoleName};
pub use role_key::{KeyKind, RoleKey, RoleSigner};
pub use top::{DIRECTOR, Delegation, RootRole, TOP_ROLES, TopTargets};

use tidegate_protocol::Timestamp;

/// Version of the TUF specification that the metadata is written to.
pub const SPEC_VERSION: &str = "1.0.31";

/// Lifetime of each kind of metadata.
pub mod lifetime {
    use std::time::Duration;

    const DAY: u64 = 86_400;
    /// Time that a signer's clock may be ahead of whoever takes the file.
    pub const AHEAD: Duration = Duration::from_mins(5);
    /// `root`: two years.
    pub const ROOT: Duration = Duration::from_secs(730 * DAY);
    /// `targets`: one year.
    pub const TARGETS: Duration = Duration::from_secs(365 * DAY);
    /// A product-channel role: half a year.
    pub const ROLE: Duration = Duration::from_secs(180 * DAY);
    /// `snapshot`: a week.
    pub const SNAPSHOT: Duration = Duration::from_secs(7 * DAY);
    /// `timestamp`: a day; signed again each hour.
    pub const TIMESTAMP: Duration = Duration::from_secs(DAY);
    /// An assignment: time within which a device must accept it.
    pub const ASSIGNMENT: Duration = Duration::from_hours(1);
    /// Maximum lifetime of an assignment that an agent accepts.
    pub const ASSIGNMENT_MAX: Duration = Duration::from_secs(DAY);
    /// Maximum lifetime of an assignment that is carried to a machine without a network.
    pub const CARRIED_MAX: Duration = Duration::from_secs(60 * DAY);
}

/// Size limits of accepted files, in bytes.
pub mod size_limit {
    /// One version of `root`.
    pub const ROOT: usize = 64 << 10;
    /// `timestamp`.
    pub const TIMESTAMP: usize = 16 << 10;
    /// `snapshot`.
    pub const SNAPSHOT: usize = 64 << 10;
    /// `targets`, which lists no images.
    pub const TARGETS: usize = 64 << 10;
    /// One product-channel role: some 700 images. Reading the largest one takes 3.8 MB of memory
    /// (`cargo test -p tidegate-trust --test memory -- --nocapture`), which a PLC has.
    pub const ROLE: usize = 192 << 10;
    /// One assignment.
    pub const ASSIGNMENT: usize = 64 << 10;
    /// Root versions followed in one refresh.
    pub const ROOT_STEPS: u32 = 32;
}

/// Converts to the calendar type of the verification core; times outside its range are clamped.
pub(crate) fn to_jiff(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or(if at < Timestamp::ZERO {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    })
}

/// Returns the moment after `now`: the core accepts metadata that expires exactly now, and the
/// specification (5.3.10 and similar) does not.
pub(crate) fn expiry_check(now: Timestamp) -> jiff::Timestamp {
    let now = to_jiff(now);
    now.checked_add(jiff::SignedDuration::from_nanos(1))
        .unwrap_or(now)
}

pub(crate) fn from_jiff(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from_micros(at.as_microsecond())
}

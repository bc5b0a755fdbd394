#![doc = include_str!("../README.md")]

mod battery;
mod bundle;
mod chain;
mod checkin;
mod deployment;
mod diagnosis;
mod digest;
mod encoding;
mod explained;
mod format;
mod host;
mod id;
mod image;
mod name;
mod problem;
mod reason;
mod report;
mod stage;
mod text;
mod time;
mod version;

pub use battery::{Battery, Power};
pub use bundle::{Bundle, CarriedReports};
pub use chain::error_chain;
pub use checkin::{
    Abilities, CheckIn, CheckInAnswer, DeploymentStatus, Enroll, Enrolled, Kept, KeyChange,
    KeyChanged, Left, Payload, SessionGranted, SessionRequest,
};
pub use deployment::DeploymentState;
pub use diagnosis::{Diagnosis, Finding, Verdict};
pub use digest::{ParseDigestError, Sha256};
pub use encoding::Encoding;
pub use explained::Explained;
pub use format::{Format, UnsupportedFormat};
pub use host::is_loopback;
pub use id::{
    ChangeId, DeploymentId, DeviceId, HoldId, IncidentId, JobId, JoinTokenId, ParseIdError,
    RolloutId, TokenId,
};
pub use image::Image;
pub use name::{Label, NameError, Platform, ProductName, Region};
pub use problem::{Problem, ProblemCode};
pub use reason::Reason;
pub use report::{Report, ReportBatch, ReportsAccepted};
pub use stage::{Channel, Stage, UnknownWord};
pub use text::{Speaker, bounded, cut, plain, plain_lines, said};
pub use time::Timestamp;
pub use version::{ParseVersionError, Version};

/// Paths of the device API, relative to the server's base address.
pub mod paths {
    /// POST: a new device's request to join, signed by its key.
    pub const ENROLL: &str = "/device/v1/enroll";
    /// POST: a signed request for a session ticket.
    pub const SESSION: &str = "/device/v1/session";
    /// POST: a signed announcement of the device's next key.
    pub const KEY: &str = "/device/v1/key";
    /// POST: a check-in; facts up, orders down.
    pub const CHECK_IN: &str = "/device/v1/checkin";
    /// POST: numbered reports of what happened on the device.
    pub const REPORTS: &str = "/device/v1/reports";
    /// GET: signed metadata files, `/metadata/N.role.json`.
    pub const METADATA: &str = "/metadata/";
    /// GET: immutable bytes named by their SHA-256.
    pub const BLOBS: &str = "/blobs/";
}

/// Header in which the server hands out a fresh nonce for a signed request.
pub const NONCE_HEADER: &str = "tidegate-nonce";
/// Header in which a device says which host it has signed a request for. It is not believed: it helps to say
/// what is wrong where something on the way has changed `Host`.
pub const SIGNED_FOR_HEADER: &str = "tidegate-signed-for";
/// Scheme of the `Authorization` header of a device session.
pub const SESSION_SCHEME: &str = "Tidegate-Session";
/// Maximum time that a check-in may be held, in seconds.
pub const MAX_WAIT_S: u16 = 55;

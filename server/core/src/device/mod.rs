//! Use cases of devices: enrollment, sessions, check-ins, reports, and what people do about them.

mod assign;
mod bundles;
mod checkin;
mod enroll;
mod heartbeat;
mod manage;
mod reports;
mod session;
mod silent;

pub use bundles::Carried;
pub use enroll::NewJoinToken;
pub use manage::{DeviceStanding, WhyDevice};

use tidegate_protocol::{Format, ProblemCode};

use crate::CoreError;

/// Refuses a device whose messages this server would misread.
fn require_format(format: Format) -> Result<(), CoreError> {
    format
        .check("the agent", "this server")
        .map_err(|e| CoreError::refuse(ProblemCode::FormatUnsupported, e.to_string()))
}

/// Refusal for a revoked device.
fn revoked() -> CoreError {
    CoreError::refuse(ProblemCode::DeviceRevoked, "the device is revoked")
}

//! Use cases of devices: enrollment, sessions, check-ins, reports, and what people do about them.

mod assign;
mod bundles;
mod checkin;
mod enroll;
mod heartbeat;
mod join;
mod manage;
mod reports;
mod session;
mod silent;

pub use bundles::Carried;
pub use join::NewJoinToken;
pub use manage::{DeviceStanding, WhyDevice, fingerprint};

use tidegate_protocol::{Format, ProblemCode};
use tidegate_store::devices::Device;

use crate::CoreError;

/// Refuses a device whose messages this server would misread.
fn require_format(format: Format) -> Result<(), CoreError> {
    format
        .check("the agent", "this server")
        .map_err(|e| CoreError::refuse(ProblemCode::FormatUnsupported, e.to_string()))
}

/// Refuses a device that may not take part.
fn require_active(device: &Device) -> Result<(), CoreError> {
    if device.awaiting {
        let text = "the device waits for a person to accept it";
        return Err(CoreError::refuse(ProblemCode::Forbidden, text));
    }
    if !device.active {
        let text = "the device is revoked";
        return Err(CoreError::refuse(ProblemCode::DeviceRevoked, text));
    }
    Ok(())
}

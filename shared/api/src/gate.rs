//! Answers of the version gate.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Refusal of the version gate: the reason and the way to upgrade, as a problem (RFC 9457).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TurnedAwayView {
    /// HTTP status of the answer.
    pub status: u16,
    /// Summary of the problem.
    pub title: String,
    /// Code of the reason.
    pub code: String,
    /// Reason, as a sentence for people.
    pub detail: String,
    /// Version to upgrade to.
    pub go_to: Option<String>,
    /// Version to install first, if one must not be skipped.
    pub first: Option<String>,
    /// Address with upgrade instructions.
    pub upgrade_url: Option<String>,
}

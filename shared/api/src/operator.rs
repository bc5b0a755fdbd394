//! Operators.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Request to create a token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// Name of its owner: one that no token has ever had, in small or capital letters.
    #[schema(min_length = 1, max_length = 60)]
    pub name: String,
    /// Its role: viewer, responder, release_manager or admin.
    pub role: String,
    /// Validity in seconds; 90 days by default, a year at most.
    #[schema(minimum = 1, maximum = 31_536_000)]
    pub valid_s: Option<u64>,
    /// Whether it is for emergencies alone: a responder without an expiry, for the safe, who reads
    /// nothing but incidents and whose every use is alarmed.
    #[serde(default)]
    pub break_glass: bool,
}

/// A token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// Name of its owner.
    pub name: String,
    /// Its role.
    pub role: String,
    /// Its state: live, expired or revoked.
    #[serde(default)]
    pub state: String,
    /// Whether it is for emergencies alone.
    #[serde(default)]
    pub break_glass: bool,
    /// Time it was created.
    pub created_at: String,
    /// Time it expires; absent if it does not.
    pub expires_at: Option<String>,
    /// Name of the token that made it; absent if it was made on the server's host.
    #[serde(default)]
    pub made_by: Option<String>,
    /// Name of the administrator who confirmed that it belongs to a person of its own.
    #[serde(default)]
    pub confirmed_by: Option<String>,
    /// Person whose it counts as where several must agree: its own name, or that of whoever made it
    /// until it is confirmed.
    #[serde(default)]
    pub person: String,
    /// Its secret; only in the answer that creates it.
    pub secret: Option<String>,
}

/// Name and role of a token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WhoamiView {
    /// Name of the token.
    pub name: String,
    /// Its role.
    pub role: String,
    /// Time it expires; absent if it does not.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// Whether it is for emergencies alone.
    #[serde(default)]
    pub break_glass: bool,
}

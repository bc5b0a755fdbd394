//! Operators.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Request to create a token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// Name of its owner.
    #[schema(min_length = 1, max_length = 60)]
    pub name: String,
    /// Its role: viewer, responder, release_manager or admin.
    pub role: String,
    /// Validity in seconds; for ever by default.
    pub valid_s: Option<u64>,
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
    /// Time it was created.
    pub created_at: String,
    /// Time it expires; absent if it does not.
    pub expires_at: Option<String>,
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
}

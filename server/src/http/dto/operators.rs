//! Operators.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time;

/// A token to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenBody {
    /// Whose it is.
    #[schema(min_length = 1, max_length = 60)]
    pub name: String,
    /// What it may do: viewer, responder, release_manager or admin.
    pub role: String,
    /// For how many seconds; for ever by default.
    pub valid_s: Option<u64>,
}

/// A token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub role: String,
    /// When it was made.
    pub created_at: String,
    /// When it ends.
    pub expires_at: Option<String>,
    /// Its secret; only in the answer that makes it.
    pub secret: Option<String>,
}

impl TokenView {
    pub(crate) fn new(
        token: &crate::store::operators::OperatorToken,
        secret: Option<String>,
    ) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name.clone(),
            role: token.role.to_string(),
            created_at: time(token.created_at),
            expires_at: token.expires_at.map(time),
            secret,
        }
    }
}

/// Who a token belongs to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WhoamiView {
    /// The token's name.
    pub name: String,
    /// Its role.
    pub role: String,
}

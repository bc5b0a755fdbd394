//! Tokens.

use tidegate_api::{TokenView, time};
use tidegate_core::rows::OperatorToken;

/// Shows it.
pub(crate) fn token_view(token: &OperatorToken, secret: Option<String>) -> TokenView {
    TokenView {
        id: token.id.to_string(),
        name: token.name.clone(),
        role: token.role.to_string(),
        created_at: time(token.created_at),
        expires_at: token.expires_at.map(time),
        secret,
    }
}

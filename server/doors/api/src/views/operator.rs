//! Tokens.

use tidegate_api::{TokenView, time};
use tidegate_core::operator::TokenStanding;
use tidegate_protocol::Timestamp;

/// Shows it.
pub(crate) fn token_view(
    standing: TokenStanding,
    secret: Option<String>,
    now: Timestamp,
) -> TokenView {
    let token = standing.token;
    let state = match (token.revoked, token.is_live(now)) {
        (true, _) => "revoked",
        (false, true) => "live",
        (false, false) => "expired",
    };
    TokenView {
        id: token.id.to_string(),
        name: token.name,
        role: token.role.to_string(),
        state: state.into(),
        break_glass: token.break_glass,
        created_at: time(token.created_at),
        expires_at: token.expires_at.map(time),
        made_by: standing.made_by,
        confirmed_by: standing.confirmed_by,
        person: standing.person,
        secret,
    }
}

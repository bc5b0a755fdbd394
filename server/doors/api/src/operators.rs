//! Operators and their tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tidegate_api::{TokenBody, TokenView, WhoamiView, time};
use tidegate_core::App;
use tidegate_core::memory::tokens::NewToken;
use tidegate_web::{Administrator, AnyReader, ApiResult, Body, Params, Segments, parse};
use utoipa::IntoParams;

use crate::views::token_view;

/// Tokens to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenParams {
    /// Whether expired and revoked ones are listed too.
    #[serde(default)]
    all: bool,
}

/// Conditions of a revocation.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeParams {
    /// Whether it may be the last administrator's: the way back in is then on the server's host.
    #[serde(default)]
    last_admin: bool,
}

/// Returns the name and role of the token.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "operators", security(("token" = ["read"])),
    responses((status = 200, description = "Name and role", body = WhoamiView)))]
pub(crate) async fn whoami(AnyReader(by): AnyReader) -> Json<WhoamiView> {
    Json(WhoamiView {
        name: by.name,
        role: by.role.to_string(),
        expires_at: by.expires_at.map(time),
        break_glass: by.break_glass,
    })
}

/// Lists the tokens that can be used; never their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "operators", security(("token" = ["administer"])),
    params(TokenParams),
    responses((status = 200, description = "The tokens", body = [TokenView])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    _by: Administrator,
    Params(params): Params<TokenParams>,
) -> ApiResult<Json<Vec<TokenView>>> {
    let tokens = app.tokens(params.all).await?;
    let now = app.now();
    let views = tokens.into_iter().map(|t| token_view(t, None, now));
    Ok(Json(views.collect()))
}

/// Creates a token; its secret is shown once.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "operators", security(("token" = ["administer"])),
    request_body = TokenBody,
    responses((status = 201, description = "The token with its secret", body = TokenView)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Body(body): Body<TokenBody>,
) -> ApiResult<Response> {
    let new = NewToken {
        role: parse(&body.role)?,
        name: body.name,
        valid: body.valid_s.map(Duration::from_secs),
        break_glass: body.break_glass,
    };
    let (token, secret) = app.create_token(&by, &new).await?;
    let view = token_view(token, Some(secret), app.now());
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// Confirms that a token belongs to a person other than its maker: from then on they are two where
/// several people must agree. Needs an administrator who is neither.
#[utoipa::path(post, path = "/api/v1/tokens/{id}/confirm", tag = "operators",
    security(("token" = ["administer"])), params(("id" = String, Path, description = "The token")),
    responses((status = 204, description = "It is confirmed")))]
pub(crate) async fn confirm(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Segments(id): Segments<String>,
) -> ApiResult<StatusCode> {
    app.confirm_token(&by, parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes a token.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "operators",
    security(("token" = ["administer"])),
    params(("id" = String, Path, description = "The token"), RevokeParams),
    responses((status = 204, description = "It is revoked")))]
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Segments(id): Segments<String>,
    Params(params): Params<RevokeParams>,
) -> ApiResult<StatusCode> {
    app.revoke_token(&by, parse(&id)?, params.last_admin)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

//! Operators and their tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tidegate_api::{TokenBody, TokenView, WhoamiView};
use tidegate_core::App;
use tidegate_web::{Administrator, ApiResult, Body, Reader, Segments, parse};

use crate::views::token_view;

/// Returns the name and role of the token.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "operators", security(("token" = ["read"])),
    responses((status = 200, description = "Name and role", body = WhoamiView)))]
pub(crate) async fn whoami(Reader(by): Reader) -> Json<WhoamiView> {
    Json(WhoamiView {
        name: by.name,
        role: by.role.to_string(),
    })
}

/// Lists the tokens that are not revoked; never their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "operators", security(("token" = ["administer"])),
    responses((status = 200, description = "The tokens", body = [TokenView])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    _by: Administrator,
) -> ApiResult<Json<Vec<TokenView>>> {
    let tokens = app.tokens().await?;
    Ok(Json(tokens.iter().map(|t| token_view(t, None)).collect()))
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
    let valid = body.valid_s.map(Duration::from_secs);
    let (token, secret) = app
        .create_token(&by, body.name.trim(), parse(&body.role)?, valid)
        .await?;
    Ok((StatusCode::CREATED, Json(token_view(&token, Some(secret)))).into_response())
}

/// Revokes a token.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "operators",
    security(("token" = ["administer"])), params(("id" = String, Path, description = "The token")),
    responses((status = 204, description = "It is revoked")))]
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Segments(id): Segments<String>,
) -> ApiResult<StatusCode> {
    app.revoke_token(&by, parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! Joining: tokens, and devices that wait to be accepted.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tidegate_api::{
    AcceptBody, DeviceView, JoinTokenBody, JoinTokenItem, JoinTokenView, Page, ReasonBody,
    RevokeJoinTokensBody, RevokedView,
};
use tidegate_core::App;
use tidegate_core::device::NewJoinToken;
use tidegate_protocol::ProductName;
use tidegate_web::{
    Administrator, ApiError, ApiResult, Body, PageParams, Params, Reader, Segments, needed_reason,
    parse, parse_opt,
};

use crate::views::View;

/// Creates a join token for enrolling devices; it is shown once.
#[utoipa::path(post, path = "/api/v1/join-tokens", tag = "devices",
    security(("token" = ["administer"])), request_body = JoinTokenBody,
    responses((status = 201, description = "The token", body = JoinTokenView)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Body(body): Body<JoinTokenBody>,
) -> ApiResult<Response> {
    let valid = body.valid_s.unwrap_or(86_400);
    let keys = body.keys.iter().map(|key| parse(key));
    let keys: std::collections::BTreeSet<_> = keys.collect::<Result<_, ApiError>>()?;
    let count = u32::try_from(keys.len().max(1)).unwrap_or(u32::MAX);
    let new = NewJoinToken {
        product: parse(&body.product)?,
        region: parse_opt(body.region.as_deref())?,
        channel: parse_opt(body.channel.as_deref())?,
        labels: body.labels,
        uses: body.uses.unwrap_or(count),
        valid: Duration::from_secs(valid),
        approve: body.approve,
        keys,
    };
    let token = app.create_join_token(&by, new).await?;
    let view = JoinTokenView {
        id: token.id.to_string(),
        token: token.to_string(),
    };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// Lists the join tokens with which a device can join now; never their secrets.
#[utoipa::path(get, path = "/api/v1/join-tokens", tag = "devices",
    security(("token" = ["administer"])), params(PageParams),
    responses((status = 200, description = "A page of tokens", body = Page<JoinTokenItem>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    _by: Administrator,
    Params(page): Params<PageParams>,
) -> ApiResult<Response> {
    let page = page.of("/api/v1/join-tokens", &["product"])?;
    let (after, limit) = (page.position()?, page.limit);
    let rows = app.join_tokens(page.product, after, limit).await?;
    let items = rows
        .into_iter()
        .map(|row| (row.id.to_string(), JoinTokenItem::view(row)))
        .collect();
    Ok(page.respond(items))
}

/// Revokes a join token. Devices that joined with it stay.
#[utoipa::path(post, path = "/api/v1/join-tokens/{id}/revoke", tag = "devices",
    security(("token" = ["administer"])), params(("id" = String, Path, description = "The token")),
    request_body = ReasonBody,
    responses((status = 200, description = "It is revoked", body = RevokedView)))]
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Segments(id): Segments<String>,
    Body(body): Body<ReasonBody>,
) -> ApiResult<Json<RevokedView>> {
    app.revoke_join_token(&by, parse(&id)?, &needed_reason(&body.reason)?)
        .await?;
    Ok(Json(RevokedView { revoked: 1 }))
}

/// Revokes every join token that could be used, of one product or of all.
#[utoipa::path(post, path = "/api/v1/join-tokens/revoke", tag = "devices",
    security(("token" = ["administer"])), request_body = RevokeJoinTokensBody,
    responses((status = 200, description = "How many were revoked", body = RevokedView)))]
pub(crate) async fn revoke_all(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Body(body): Body<RevokeJoinTokensBody>,
) -> ApiResult<Json<RevokedView>> {
    let product: Option<ProductName> = parse_opt(body.product.as_deref())?;
    let revoked = app
        .revoke_join_tokens(&by, product, &needed_reason(&body.reason)?)
        .await?;
    Ok(Json(RevokedView { revoked }))
}

/// Lists the devices that have joined and wait for a person to accept them.
#[utoipa::path(get, path = "/api/v1/devices/waiting", tag = "devices", security(("token" = ["read"])),
    params(PageParams),
    responses((status = 200, description = "A page of devices", body = Page<DeviceView>)))]
pub(crate) async fn waiting(
    State(app): State<Arc<App>>,
    _by: Reader,
    Params(page): Params<PageParams>,
) -> ApiResult<Response> {
    let page = page.of("/api/v1/devices/waiting", &["product"])?;
    let (after, limit) = (page.position()?, page.limit);
    let ids = app.waiting_devices(after, page.product, limit).await?;
    let mut items = Vec::with_capacity(ids.len());
    for id in ids {
        let standing = app.device_standing(id).await?;
        items.push((id.to_string(), DeviceView::view(standing)));
    }
    Ok(page.respond(items))
}

/// Accepts a device that waits: from now on it takes part.
#[utoipa::path(post, path = "/api/v1/devices/{id}/accept", tag = "devices",
    security(("token" = ["administer"])), params(("id" = String, Path, description = "The device")),
    request_body = AcceptBody,
    responses((status = 200, description = "The device after it", body = DeviceView)))]
pub(crate) async fn accept(
    state: State<Arc<App>>,
    by: Administrator,
    id: Segments<String>,
    body: Body<AcceptBody>,
) -> ApiResult<Json<DeviceView>> {
    decide(state, by, id, body, true).await
}

/// Rejects a device that waits: it is shut out, and its key stays known.
#[utoipa::path(post, path = "/api/v1/devices/{id}/reject", tag = "devices",
    security(("token" = ["administer"])), params(("id" = String, Path, description = "The device")),
    request_body = AcceptBody,
    responses((status = 200, description = "The device after it", body = DeviceView)))]
pub(crate) async fn reject(
    state: State<Arc<App>>,
    by: Administrator,
    id: Segments<String>,
    body: Body<AcceptBody>,
) -> ApiResult<Json<DeviceView>> {
    decide(state, by, id, body, false).await
}

async fn decide(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Segments(id): Segments<String>,
    Body(body): Body<AcceptBody>,
    accept: bool,
) -> ApiResult<Json<DeviceView>> {
    let id = parse(&id)?;
    let key = parse_opt(body.key_sha256.as_deref())?;
    app.decide_waiting(&by, id, accept, key, &needed_reason(&body.reason)?)
        .await?;
    Ok(Json(DeviceView::view(app.device_standing(id).await?)))
}

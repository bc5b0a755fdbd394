//! Devices, as operators see them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use tidegate_api::{DeviceView, EventView, LiftBody, Page, ReasonBody, WhyView};
use tidegate_core::App;
use tidegate_protocol::DeviceId;
use tidegate_web::{
    Administrator, ApiResult, Body, PageParams, Params, Reader, Releaser, Responder, Segments,
    needed_reason, parse,
};

use crate::views::View;

/// Lists devices in order of id.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices", security(("token" = ["read"])),
    params(PageParams),
    responses((status = 200, description = "A page of devices", body = Page<DeviceView>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    _by: Reader,
    Params(page): Params<PageParams>,
) -> ApiResult<Response> {
    let page = page.of("/api/v1/devices", &["product", "region"])?;
    let (after, limit) = (page.position()?, page.limit);
    let ids = app
        .device_ids(after, page.product, page.region, limit)
        .await?;
    let mut items = Vec::with_capacity(ids.len());
    for id in ids {
        let standing = app.device_standing(id).await?;
        items.push((id.to_string(), DeviceView::view(standing)));
    }
    Ok(page.respond(items))
}

/// Returns one device.
#[utoipa::path(get, path = "/api/v1/devices/{id}", tag = "devices", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The device")),
    responses((status = 200, description = "The device", body = DeviceView)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments(id): Segments<String>,
) -> ApiResult<Json<DeviceView>> {
    Ok(Json(DeviceView::view(
        app.device_standing(parse(&id)?).await?,
    )))
}

/// Explains why a device is told what it is told: the whole chain of the decision.
#[utoipa::path(get, path = "/api/v1/devices/{id}/why", tag = "devices", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The device")),
    responses((status = 200, description = "The chain", body = WhyView)))]
pub(crate) async fn why(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments(id): Segments<String>,
) -> ApiResult<Json<WhyView>> {
    Ok(Json(WhyView::view(app.why_device(parse(&id)?).await?)))
}

/// Lists the events of a device, oldest first; the cursor of the last page continues from there.
#[utoipa::path(get, path = "/api/v1/devices/{id}/events", tag = "devices",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "The device"), PageParams),
    responses((status = 200, description = "A page of events", body = Page<EventView>)))]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments(id): Segments<String>,
    Params(page): Params<PageParams>,
) -> ApiResult<Response> {
    let device: DeviceId = parse(&id)?;
    let page = page.of(format!("/api/v1/devices/{device}/events"), &[])?;
    let rows = app
        .device_events(device, page.number()?, page.limit)
        .await?;
    let items = rows
        .into_iter()
        .map(|row| (row.seq.to_string(), EventView::view(row)))
        .collect();
    Ok(page.respond(items))
}

/// Revokes a device, effective with its next request.
#[utoipa::path(post, path = "/api/v1/devices/{id}/revoke", tag = "devices",
    security(("token" = ["administer"])), params(("id" = String, Path, description = "The device")),
    request_body = ReasonBody,
    responses((status = 200, description = "The device after it", body = DeviceView)))]
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Segments(id): Segments<String>,
    Body(body): Body<ReasonBody>,
) -> ApiResult<Json<DeviceView>> {
    let id = parse(&id)?;
    app.set_device_active(&by, id, false, &needed_reason(&body.reason)?)
        .await?;
    Ok(Json(DeviceView::view(app.device_standing(id).await?)))
}

/// Isolates a device: it may only roll back until it is readmitted.
#[utoipa::path(post, path = "/api/v1/devices/{id}/isolate", tag = "devices",
    security(("token" = ["respond"])), params(("id" = String, Path, description = "The device")),
    request_body = ReasonBody,
    responses((status = 200, description = "The device after it", body = DeviceView)))]
pub(crate) async fn isolate(
    State(app): State<Arc<App>>,
    Responder(by): Responder,
    Segments(id): Segments<String>,
    Body(body): Body<ReasonBody>,
) -> ApiResult<Json<DeviceView>> {
    let id = parse(&id)?;
    app.isolate_device(&by, id, &needed_reason(&body.reason)?)
        .await?;
    Ok(Json(DeviceView::view(app.device_standing(id).await?)))
}

/// Asks a device to generate a new key; it does so at its next check-in.
#[utoipa::path(post, path = "/api/v1/devices/{id}/new-key", tag = "devices",
    security(("token" = ["administer"])), params(("id" = String, Path, description = "The device")),
    request_body = ReasonBody,
    responses((status = 200, description = "The device after it", body = DeviceView)))]
pub(crate) async fn new_key(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Segments(id): Segments<String>,
    Body(body): Body<ReasonBody>,
) -> ApiResult<Json<DeviceView>> {
    let id = parse(&id)?;
    app.want_new_key(&by, id, &needed_reason(&body.reason)?)
        .await?;
    Ok(Json(DeviceView::view(app.device_standing(id).await?)))
}

/// Readmits a revoked or isolated device. The numbering of its signed requests starts over.
#[utoipa::path(post, path = "/api/v1/devices/{id}/readmit", tag = "devices",
    security(("token" = ["administer"])), params(("id" = String, Path, description = "The device")),
    request_body = ReasonBody,
    responses((status = 200, description = "The device after it", body = DeviceView)))]
pub(crate) async fn readmit(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Segments(id): Segments<String>,
    Body(body): Body<ReasonBody>,
) -> ApiResult<Json<DeviceView>> {
    let id = parse(&id)?;
    app.set_device_active(&by, id, true, &needed_reason(&body.reason)?)
        .await?;
    Ok(Json(DeviceView::view(app.device_standing(id).await?)))
}

/// Lifts the quarantine of a release on a device that rolled back from it.
#[utoipa::path(post, path = "/api/v1/devices/{id}/lift-quarantine", tag = "devices",
    security(("token" = ["release"])), params(("id" = String, Path, description = "The device")),
    request_body = LiftBody,
    responses((status = 200, description = "The device after it", body = DeviceView)))]
pub(crate) async fn lift_quarantine(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments(id): Segments<String>,
    Body(body): Body<LiftBody>,
) -> ApiResult<Json<DeviceView>> {
    let id = parse(&id)?;
    app.lift_quarantine(
        &by,
        id,
        &parse(&body.version)?,
        &needed_reason(&body.reason)?,
    )
    .await?;
    Ok(Json(DeviceView::view(app.device_standing(id).await?)))
}

//! Incidents and holds: the actions of responders.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tidegate_api::{
    HoldBody, HoldView, IncidentSummary, IncidentView, KeepBody, OrderBody, Page, RollbackBody,
    RolloutView,
};
use tidegate_core::incident::ReturnOf;
use tidegate_core::incident::holds::NewHold;
use tidegate_core::memory::access::Operator;
use tidegate_core::{App, CoreError};
use tidegate_web::{
    AnyReader, ApiResult, Body, PageParams, Params, Reader, Releaser, Responder, Segments,
    needed_reason, parse, parse_opt,
};

use crate::views::{View, hold_view};

/// Rolls back a rollout or a release, as the body says.
pub(crate) async fn order_return(
    app: &App,
    by: &Operator,
    what: ReturnOf,
    body: &RollbackBody,
) -> ApiResult<Json<IncidentView>> {
    let reason = needed_reason(&body.reason)?;
    let selector = parse(&body.selector)?;
    let incident = app
        .order_return(by, what, &selector, &reason, body.dry_run)
        .await?;
    Ok(Json(IncidentView::view(incident)))
}

/// Lists incidents, newest first.
#[utoipa::path(get, path = "/api/v1/incidents", tag = "incidents", security(("token" = ["read"])),
    params(PageParams),
    responses((status = 200, description = "A page of incidents", body = Page<IncidentSummary>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    _by: AnyReader,
    Params(page): Params<PageParams>,
) -> ApiResult<Response> {
    let page = page.of("/api/v1/incidents", &[])?;
    let (before, id) = page.before()?;
    let rows = app.incidents((before, &id), page.limit).await?;
    let items = rows
        .into_iter()
        .map(|row| {
            let position = format!("{}/{}", row.opened_at.as_micros(), row.id);
            (position, IncidentSummary::view(row))
        })
        .collect();
    Ok(page.respond(items))
}

/// Returns an incident: the blast-radius sheet and the progress of the rollback.
#[utoipa::path(get, path = "/api/v1/incidents/{id}", tag = "incidents", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The incident")),
    responses((status = 200, description = "The incident", body = IncidentView)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    _by: AnyReader,
    Segments(id): Segments<String>,
) -> ApiResult<Json<IncidentView>> {
    Ok(Json(IncidentView::view(app.incident(parse(&id)?).await?)))
}

/// Extends the rollback window: devices in it keep the previous version longer, or until pruning is
/// unfrozen. Never asks for a revision or an approval.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/keep-previous", tag = "incidents", security(("token" = ["respond"])),
    params(("id" = String, Path, description = "The rollout")), request_body = KeepBody,
    responses((status = 200, description = "The rollout after it", body = RolloutView)))]
pub(crate) async fn keep_previous(
    State(app): State<Arc<App>>,
    Responder(by): Responder,
    Segments(id): Segments<String>,
    Body(body): Body<KeepBody>,
) -> ApiResult<Json<RolloutView>> {
    let reason = needed_reason(&body.reason)?;
    if body.seconds == 0 && body.frozen.is_none() {
        return Err(CoreError::invalid("give a number of seconds, or set frozen").into());
    }
    let ordered = app
        .keep_longer(&by, parse(&id)?, body.seconds, body.frozen, &reason)
        .await?;
    Ok(Json(RolloutView::view(ordered)))
}

/// Lists the holds in force.
#[utoipa::path(get, path = "/api/v1/holds", tag = "incidents", security(("token" = ["read"])),
    params(PageParams),
    responses((status = 200, description = "A page of holds", body = Page<HoldView>)))]
pub(crate) async fn list_holds(
    State(app): State<Arc<App>>,
    _by: Reader,
    Params(page): Params<PageParams>,
) -> ApiResult<Response> {
    let page = page.of("/api/v1/holds", &["product"])?;
    let rows = app
        .holds(page.position()?, page.product, page.limit)
        .await?;
    let items = rows
        .into_iter()
        .map(|row| (row.hold.id.to_string(), hold_view(row, None, false)))
        .collect();
    Ok(page.respond(items))
}

/// Holds a release back from devices, while the rollout continues for the rest.
#[utoipa::path(post, path = "/api/v1/holds", tag = "incidents", security(("token" = ["respond"])),
    request_body = HoldBody,
    responses((status = 201, description = "The hold", body = HoldView),
              (status = 200, description = "Preview (dry run)", body = HoldView)))]
pub(crate) async fn create_hold(
    State(app): State<Arc<App>>,
    Responder(by): Responder,
    Body(body): Body<HoldBody>,
) -> ApiResult<Response> {
    let new = NewHold {
        product: parse(&body.product)?,
        release: parse_opt(body.release.as_deref())?,
        selector: parse(&body.selector)?,
        reason: needed_reason(&body.reason)?,
        link: body.link,
    };
    let (row, devices) = app.create_hold(&by, new, body.dry_run).await?;
    let status = if body.dry_run {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let view = hold_view(row, Some(devices), body.dry_run);
    Ok((status, Json(view)).into_response())
}

/// Lifts a hold: its devices may have the release again.
#[utoipa::path(post, path = "/api/v1/holds/{id}/lift", tag = "incidents", security(("token" = ["release"])),
    params(("id" = String, Path, description = "The hold")), request_body = OrderBody,
    responses((status = 204, description = "The hold is lifted")))]
pub(crate) async fn lift_hold(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments(id): Segments<String>,
    Body(body): Body<OrderBody>,
) -> ApiResult<StatusCode> {
    let reason = needed_reason(&body.reason)?;
    app.lift_hold(&by, parse(&id)?, &reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

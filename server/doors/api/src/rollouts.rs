//! Rollouts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tidegate_api::{
    DeploymentView, EventView, IncidentView, OrderBody, Page, RollbackBody, RolloutBody,
    RolloutView, WhyRolloutView, instant,
};
use tidegate_core::incident::ReturnOf;
use tidegate_core::memory::access::Operator;
use tidegate_core::rows::ChangeKind;
use tidegate_core::{App, CoreError};
use tidegate_domain::rollout::RolloutEvent;
use tidegate_protocol::RolloutId;
use tidegate_web::{
    ApiResult, Body, PageParams, Params, Reader, Releaser, Responder, Segments, needed_reason,
    parse,
};

use super::revision::{if_match, view};
use super::widen::widen;
use crate::views::{View, rollout_view};

/// Lists rollouts, newest first.
#[utoipa::path(get, path = "/api/v1/rollouts", tag = "rollouts", security(("token" = ["read"])),
    params(PageParams),
    responses((status = 200, description = "A page of rollouts", body = Page<RolloutView>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    _by: Reader,
    Params(page): Params<PageParams>,
) -> ApiResult<Response> {
    let page = page.of("/api/v1/rollouts", &["product"])?;
    let (before, id) = page.before()?;
    let standings = app
        .rollouts((before, &id), page.product, page.limit)
        .await?;
    let items = standings
        .into_iter()
        .map(|standing| {
            let rollout = &standing.rollout;
            let position = format!("{}/{}", rollout.created_at.as_micros(), rollout.id);
            (position, rollout_view(standing, false))
        })
        .collect();
    Ok(page.respond(items))
}

/// Creates a draft rollout, or previews it (`dry_run`). With an `Idempotency-Key`, repeating the
/// request creates no second one.
#[utoipa::path(post, path = "/api/v1/rollouts", tag = "rollouts", security(("token" = ["release"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "At most 100 characters")),
    request_body = RolloutBody,
    responses((status = 201, description = "The draft", body = RolloutView),
              (status = 200, description = "What it would be", body = RolloutView)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    headers: HeaderMap,
    Body(body): Body<RolloutBody>,
) -> ApiResult<Response> {
    let key = headers
        .get("idempotency-key")
        .map(|v| v.to_str().unwrap_or_default().to_owned());
    if key.as_ref().is_some_and(|k| k.is_empty() || k.len() > 100) {
        return Err(CoreError::invalid("Idempotency-Key: 1 to 100 visible characters").into());
    }
    let dry_run = body.dry_run;
    let standing = app.create_rollout(&by, &body, key.as_deref()).await?;
    let status = if dry_run {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, view(rollout_view(standing, dry_run))).into_response())
}

/// Returns a rollout: waves, counts, and the reason it does not proceed.
#[utoipa::path(get, path = "/api/v1/rollouts/{id}", tag = "rollouts", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The rollout")),
    responses((status = 200, description = "The rollout", body = RolloutView)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments(id): Segments<String>,
) -> ApiResult<Response> {
    Ok(view(rollout_view(app.rollout(parse(&id)?).await?, false)))
}

async fn order(
    app: &App,
    by: &Operator,
    id: RolloutId,
    event: RolloutEvent,
    reason: &str,
    revision: Option<i64>,
    dry_run: bool,
) -> ApiResult<Response> {
    let ordered = app
        .order_rollout(by, id, event, reason, revision, dry_run)
        .await?;
    Ok(view(RolloutView::view(ordered)))
}

/// Starts a draft, now or at a given time. `If-Match` is honoured if sent.
///
/// Refused while the rollout would update devices that could not be ordered back, unless
/// `accept_no_way_back` says how many may be.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/start", tag = "rollouts", security(("token" = ["release"])),
    params(("id" = String, Path, description = "The rollout")), request_body = OrderBody,
    responses((status = 200, description = "The rollout after it", body = RolloutView)))]
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments(id): Segments<String>,
    headers: HeaderMap,
    Body(body): Body<OrderBody>,
) -> ApiResult<Response> {
    let id: RolloutId = parse(&id)?;
    if let Some(at) = &body.at {
        let at = instant("at", at)?;
        let accepted = body.accept_no_way_back;
        let ordered = app
            .schedule_rollout(&by, id, at, accepted, body.dry_run)
            .await?;
        return Ok(view(RolloutView::view(ordered)));
    }
    widen(&app, &by, id, ChangeKind::Start, &headers, &body).await
}

/// Explains the state of a rollout: what it waits for, which devices it does not apply to, what
/// failed and what the failures have in common.
#[utoipa::path(get, path = "/api/v1/rollouts/{id}/why", tag = "rollouts", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The rollout")),
    responses((status = 200, description = "Why", body = WhyRolloutView)))]
pub(crate) async fn why(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments(id): Segments<String>,
) -> ApiResult<Json<WhyRolloutView>> {
    Ok(Json(WhyRolloutView::view(
        app.why_rollout(parse(&id)?).await?,
    )))
}

/// Pauses a rollout; devices in flight continue.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/pause", tag = "rollouts", security(("token" = ["respond"])),
    params(("id" = String, Path, description = "The rollout")), request_body = OrderBody,
    responses((status = 200, description = "The rollout after it", body = RolloutView)))]
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    Responder(by): Responder,
    Segments(id): Segments<String>,
    headers: HeaderMap,
    Body(body): Body<OrderBody>,
) -> ApiResult<Response> {
    let reason = body.reason.trim().to_owned();
    let id = parse(&id)?;
    order(
        &app,
        &by,
        id,
        RolloutEvent::Pause,
        &reason,
        if_match(&app, id, &headers).await?,
        body.dry_run,
    )
    .await
}

/// Resumes a paused or halted rollout.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/resume", tag = "rollouts", security(("token" = ["release"])),
    params(("id" = String, Path, description = "The rollout")), request_body = OrderBody,
    responses((status = 200, description = "The rollout after it", body = RolloutView)))]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments(id): Segments<String>,
    headers: HeaderMap,
    Body(body): Body<OrderBody>,
) -> ApiResult<Response> {
    needed_reason(&body.reason)?;
    widen(&app, &by, parse(&id)?, ChangeKind::Resume, &headers, &body).await
}

/// Halts a rollout at once; devices that have not switched are called off. Never asks for a
/// revision or an approval.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/halt", tag = "rollouts", security(("token" = ["respond"])),
    params(("id" = String, Path, description = "The rollout")), request_body = OrderBody,
    responses((status = 200, description = "The rollout after it", body = RolloutView)))]
pub(crate) async fn halt(
    State(app): State<Arc<App>>,
    Responder(by): Responder,
    Segments(id): Segments<String>,
    Body(body): Body<OrderBody>,
) -> ApiResult<Response> {
    let reason = needed_reason(&body.reason)?;
    let id = parse(&id)?;
    order(
        &app,
        &by,
        id,
        RolloutEvent::Halt,
        &reason,
        None,
        body.dry_run,
    )
    .await
}

/// Halts a rollout and rolls back the devices that switched. Needs one person, no revision and no
/// approval. Returns the blast-radius sheet.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/rollback", tag = "incidents", security(("token" = ["respond"])),
    params(("id" = String, Path, description = "The rollout")), request_body = RollbackBody,
    responses((status = 200, description = "The incident", body = IncidentView)))]
pub(crate) async fn roll_back(
    State(app): State<Arc<App>>,
    Responder(by): Responder,
    Segments(id): Segments<String>,
    Body(body): Body<RollbackBody>,
) -> ApiResult<Json<IncidentView>> {
    let what = ReturnOf::Rollout(parse(&id)?);
    super::incidents::order_return(&app, &by, what, &body).await
}

/// Cancels a rollout; devices stay on the release they run.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/cancel", tag = "rollouts", security(("token" = ["respond"])),
    params(("id" = String, Path, description = "The rollout")), request_body = OrderBody,
    responses((status = 200, description = "The rollout after it", body = RolloutView)))]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Responder(by): Responder,
    Segments(id): Segments<String>,
    headers: HeaderMap,
    Body(body): Body<OrderBody>,
) -> ApiResult<Response> {
    let reason = needed_reason(&body.reason)?;
    let id = parse(&id)?;
    order(
        &app,
        &by,
        id,
        RolloutEvent::Cancel,
        &reason,
        if_match(&app, id, &headers).await?,
        body.dry_run,
    )
    .await
}

/// Lists the deployments of a rollout.
#[utoipa::path(get, path = "/api/v1/rollouts/{id}/deployments", tag = "rollouts",
    security(("token" = ["read"])), params(("id" = String, Path, description = "The rollout"), PageParams),
    responses((status = 200, description = "A page of deployments", body = Page<DeploymentView>)))]
pub(crate) async fn deployments(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments(id): Segments<String>,
    Params(page): Params<PageParams>,
) -> ApiResult<Response> {
    let rollout: RolloutId = parse(&id)?;
    let page = page.of(
        format!("/api/v1/rollouts/{rollout}/deployments"),
        &["state"],
    )?;
    let rows = app
        .deployments(rollout, page.position()?, page.state, page.limit)
        .await?;
    let items = rows
        .into_iter()
        .map(|row| (row.facts.id.to_string(), DeploymentView::view(row)))
        .collect();
    Ok(page.respond(items))
}

/// Lists the events of a rollout, oldest first; the cursor of the last page continues from there.
#[utoipa::path(get, path = "/api/v1/rollouts/{id}/events", tag = "rollouts",
    security(("token" = ["read"])), params(("id" = String, Path, description = "The rollout"), PageParams),
    responses((status = 200, description = "A page of events", body = Page<EventView>)))]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments(id): Segments<String>,
    Params(page): Params<PageParams>,
) -> ApiResult<Response> {
    let rollout: RolloutId = parse(&id)?;
    let page = page.of(format!("/api/v1/rollouts/{rollout}/events"), &[])?;
    let rows = app
        .rollout_events(rollout, page.number()?, page.limit)
        .await?;
    let items = rows
        .into_iter()
        .map(|row| (row.seq.to_string(), EventView::view(row)))
        .collect();
    Ok(page.respond(items))
}

//! Rollouts.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidegate_api::preset;
use tidegate_domain::rollout::{RolloutEvent, Wave};
use tidegate_protocol::{DeploymentState, Region, RolloutId, Timestamp};

use super::dto::{
    DeploymentView, EventView, IncidentView, OrderBody, Page, RollbackBody, RolloutBody,
    RolloutView, WaveBody, WhyRolloutView, instant,
};
use super::error::{ApiError, ApiResult};
use super::extract::{Body, Params, Reader, Releaser, Responder, Segments, parse, parse_opt};
use super::page::{PageParams, respond};
use super::widen::widen;
use crate::app::App;
use crate::service::ServiceError;
use crate::service::access::Operator;
use crate::service::incidents::ReturnOf;
use crate::service::rollouts::create::NewRollout;
use crate::store::changes::ChangeKind;
use tidegate_domain::rollout::policy::SILENT_AFTER;

/// Lists rollouts, newest first.
#[utoipa::path(get, path = "/api/v1/rollouts", tag = "rollouts", security(("token" = ["read"])),
    params(PageParams),
    responses((status = 200, description = "A page of rollouts", body = Page<RolloutView>)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    _by: Reader,
    Params(page): Params<PageParams>,
) -> ApiResult<Response> {
    let limit = page.limit()?;
    let position = page.position()?;
    let (before, id) = match position.split_once('/') {
        Some((at, id)) => (Timestamp::from_micros(parse(at)?), id.to_owned()),
        None => (Timestamp::from_micros(i64::MAX), String::new()),
    };
    let product = page.product.unwrap_or_default();
    let rows = app.rollouts((before, &id), &product, limit).await?;
    let mut views = Vec::with_capacity(rows.len());
    for row in rows {
        let position = format!("{}/{}", row.created_at.as_micros(), row.id);
        views.push((
            position,
            RolloutView::new(app.rollout(row.id).await?, false),
        ));
    }
    let positions: std::collections::BTreeMap<String, String> = views
        .iter()
        .map(|(p, v)| (v.id.clone(), p.clone()))
        .collect();
    let items = views.into_iter().map(|(_, v)| v).collect();
    Ok(respond(
        "/api/v1/rollouts",
        items,
        limit,
        |v: &RolloutView| positions.get(&v.id).cloned().unwrap_or_default(),
    ))
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
        return Err(ServiceError::invalid("Idempotency-Key: 1 to 100 visible characters").into());
    }
    let dry_run = body.dry_run;
    // The key is bound to its bearer and to exactly this request. A failure to serialize is an
    // error: an empty text would make all requests look the same.
    let text = serde_json::to_vec(&body).map_err(ServiceError::invalid)?;
    let fingerprint = tidegate_delta::sha256(&text);
    let key = key.map(|k| format!("{}/{k}", by.name));
    let new = new_rollout(&app, &body)?;
    let key = key
        .as_deref()
        .map(|k| (k, fingerprint))
        .filter(|_| !dry_run);
    let standing = app.create_rollout(&by, new, key, dry_run).await?;
    let status = if dry_run {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, view(RolloutView::new(standing, dry_run))).into_response())
}

/// Refuses unknown fields.
pub(super) fn no_unknown(
    unknown: &std::collections::BTreeMap<String, serde_json::Value>,
) -> Result<(), ApiError> {
    match unknown.keys().next() {
        None => Ok(()),
        Some(name) => {
            let name: String = name.chars().take(60).collect();
            Err(ServiceError::invalid(format!("unknown field {name:?}")).into())
        }
    }
}

/// Builds the rollout that a body asks for; a preset needs the number of devices in each region.
fn new_rollout(app: &App, body: &RolloutBody) -> Result<NewRollout, ApiError> {
    no_unknown(&body.unknown)?;
    let (product, version) = (parse(&body.product)?, parse(&body.release)?);
    let mut policy = body.policy.clone();
    let mut waves = body
        .waves
        .iter()
        .map(new_wave)
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(name) = &body.preset {
        if !waves.is_empty() {
            return Err(ServiceError::invalid("give either waves or a preset, not both").into());
        }
        let preset = preset::find(name)?;
        let regions = body
            .regions
            .iter()
            .map(|r| parse(r))
            .collect::<Result<Vec<Region>, _>>()?;
        let batch = parse(body.batch.as_deref().unwrap_or("5000"))?;
        let devices = app.concerned_by_region(&product, &version);
        waves = preset.waves(&regions, batch, &devices)?;
        policy = policy.or(preset.policy);
    }
    // A device that was merely not due to check in must not count as silent.
    let usual = app.settings.devices.offline_after().max(SILENT_AFTER);
    let after = policy.silent_after_s.get_or_insert(usual.as_secs());
    if Duration::from_secs(*after) < app.settings.devices.offline_after() {
        let text = format!(
            "silent_after_s: at least {}, or devices would count as silent between two check-ins",
            app.settings.devices.offline_after().as_secs()
        );
        return Err(ServiceError::invalid(text).into());
    }
    Ok(NewRollout {
        product,
        version,
        waves,
        policy: policy.policy()?,
        rollback_window_s: body.rollback_window_s.unwrap_or(1_800),
        max_attempts: body.max_attempts.unwrap_or(10),
        timeout_s: body.timeout_s.unwrap_or(86_400),
    })
}

fn new_wave(body: &WaveBody) -> Result<Wave, ApiError> {
    Ok(Wave {
        name: body.name.clone(),
        selector: parse(&body.selector)?,
        size: parse(&body.size)?,
    })
}

/// A rollout with its revision as `ETag`.
pub(super) fn view(view: RolloutView) -> Response {
    (
        [(header::ETAG, format!("\"{}\"", view.revision))],
        Json(view),
    )
        .into_response()
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
    Ok(view(RolloutView::new(
        app.rollout(parse(&id)?).await?,
        false,
    )))
}

/// Checks the reason of an order that needs one.
pub(crate) fn needed_reason(text: &str) -> Result<String, ApiError> {
    let reason: String = text.trim().chars().take(300).collect();
    if reason.is_empty() {
        return Err(ServiceError::invalid("give a reason: others will want to know").into());
    }
    Ok(reason)
}

/// Revision the caller saw, from `If-Match`; `None` if it is absent or `*`.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<i64>, ApiError> {
    match headers
        .get(header::IF_MATCH)
        .map(|v| v.to_str().unwrap_or_default())
    {
        None | Some("*") => Ok(None),
        Some(tag) => Ok(Some(parse(tag.trim_matches('"'))?)),
    }
}

async fn order(
    app: &App,
    by: &Operator,
    id: &str,
    event: RolloutEvent,
    reason: &str,
    revision: Option<i64>,
    dry_run: bool,
) -> ApiResult<Response> {
    let id: RolloutId = parse(id)?;
    let ordered = app
        .order_rollout(by, id, event, reason, revision, dry_run)
        .await?;
    Ok(view(RolloutView::from(ordered)))
}

/// Starts a draft, now or at a given time. `If-Match` is honoured if sent.
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
        let ordered = app.schedule_rollout(&by, id, at, body.dry_run).await?;
        return Ok(view(RolloutView::from(ordered)));
    }
    widen(&app, &by, id, ChangeKind::Start, None, &headers, &body).await
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
    Ok(Json(app.why_rollout(parse(&id)?).await?.into()))
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
    order(
        &app,
        &by,
        &id,
        RolloutEvent::Pause,
        &reason,
        if_match(&headers)?,
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
    widen(
        &app,
        &by,
        parse(&id)?,
        ChangeKind::Resume,
        None,
        &headers,
        &body,
    )
    .await
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
    order(
        &app,
        &by,
        &id,
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
    order(
        &app,
        &by,
        &id,
        RolloutEvent::Cancel,
        &reason,
        if_match(&headers)?,
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
    let (rollout, limit): (RolloutId, i64) = (parse(&id)?, page.limit()?);
    let (after, state) = (page.position()?, page.state.unwrap_or_default());
    let _: Option<DeploymentState> = parse_opt(Some(&state))?;
    let rows = app.deployments(rollout, &after, &state, limit).await?;
    let items: Vec<DeploymentView> = rows.into_iter().map(DeploymentView::from).collect();
    let path = format!("/api/v1/rollouts/{rollout}/deployments");
    Ok(respond(&path, items, limit, |d| d.id.clone()))
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
    let (rollout, limit): (RolloutId, i64) = (parse(&id)?, page.limit()?);
    let rows = app.rollout_events(rollout, page.number()?, limit).await?;
    let items: Vec<EventView> = rows.into_iter().map(EventView::from).collect();
    let path = format!("/api/v1/rollouts/{rollout}/events");
    Ok(respond(&path, items, limit, |e| e.seq.to_string()))
}

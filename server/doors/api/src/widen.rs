//! Requests that widen a rollout: its next wave, new rules, approvals; and the presets.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use tidegate_api::preset;
use tidegate_api::{ApproveBody, EditBody, OrderBody, PresetView, RolloutView};
use tidegate_core::App;
use tidegate_core::memory::access::Operator;
use tidegate_core::rollout::approvals::Wish;
use tidegate_core::rows::ChangeKind;
use tidegate_protocol::RolloutId;
use tidegate_web::{ApiResult, Body, Reader, Releaser, Segments, parse};

use super::revision::{if_match, view};
use crate::views::View;

/// Lists the presets, each with a sentence of intent.
#[utoipa::path(get, path = "/api/v1/presets", tag = "rollouts", security(("token" = ["read"])),
    responses((status = 200, description = "The presets", body = [PresetView])))]
pub(crate) async fn list_presets(_by: Reader) -> ApiResult<Json<Vec<PresetView>>> {
    let list = preset::all().into_iter().map(|(name, preset)| PresetView {
        name: name.into(),
        intent: preset.intent,
        policy: preset.policy,
    });
    Ok(Json(list.collect()))
}

/// Requests a change that widens a rollout: applied at once, or once enough other people have
/// approved.
pub(super) async fn widen(
    app: &App,
    by: &Operator,
    id: RolloutId,
    kind: ChangeKind,
    headers: &HeaderMap,
    body: &OrderBody,
) -> ApiResult<Response> {
    let wish = Wish {
        kind,
        edit: None,
        reason: body.reason.trim().to_owned(),
        revision: if_match(app, id, headers).await?,
        accept_no_way_back: body.accept_no_way_back,
        dry_run: body.dry_run,
    };
    let ordered = app.widen(by, id, wish).await?;
    Ok(view(RolloutView::view(ordered)))
}

/// Releases the next wave of a rollout whose waves wait for a person.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/advance", tag = "rollouts", security(("token" = ["release"])),
    params(("id" = String, Path, description = "The rollout")), request_body = OrderBody,
    responses((status = 200, description = "The rollout after it", body = RolloutView)))]
pub(crate) async fn advance(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments(id): Segments<String>,
    headers: HeaderMap,
    Body(body): Body<OrderBody>,
) -> ApiResult<Response> {
    widen(&app, &by, parse(&id)?, ChangeKind::Advance, &headers, &body).await
}

/// Changes the rules of a rollout; rules left out stay as they are. A widening edit may need
/// approvals, a narrowing one never does. An edit voids earlier approvals.
#[utoipa::path(patch, path = "/api/v1/rollouts/{id}", tag = "rollouts", security(("token" = ["release"])),
    params(("id" = String, Path, description = "The rollout")), request_body = EditBody,
    responses((status = 200, description = "The rollout after it", body = RolloutView)))]
pub(crate) async fn edit(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments(id): Segments<String>,
    headers: HeaderMap,
    Body(body): Body<EditBody>,
) -> ApiResult<Response> {
    let id = parse(&id)?;
    let wish = Wish {
        kind: ChangeKind::Edit,
        reason: body.reason.trim().to_owned(),
        revision: if_match(&app, id, &headers).await?,
        accept_no_way_back: None,
        dry_run: body.dry_run,
        edit: Some(body),
    };
    let ordered = app.widen(&by, id, wish).await?;
    Ok(view(RolloutView::view(ordered)))
}

/// Approves a change that waits for approvals. Nobody may approve their own, whatever their role.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/approve", tag = "rollouts", security(("token" = ["release"])),
    params(("id" = String, Path, description = "The rollout")), request_body = ApproveBody,
    responses((status = 200, description = "The rollout after it", body = RolloutView)))]
pub(crate) async fn approve(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments(id): Segments<String>,
    Body(body): Body<ApproveBody>,
) -> ApiResult<Response> {
    let ordered = app.approve(&by, parse(&id)?, body.plan.trim()).await?;
    Ok(view(RolloutView::view(ordered)))
}

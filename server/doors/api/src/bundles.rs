//! Site bundles.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use tidegate_api::{BundleBody, BundleView, OrderView};
use tidegate_core::App;
use tidegate_domain::selector::Selector;
use tidegate_protocol::{DeviceId, ReportBatch, ReportsAccepted, RolloutId};
use tidegate_web::{ApiResult, Body, Releaser, Segments, parse};

/// Signs the orders for devices of a rollout that have no network, to be carried to them. Waves,
/// pace, holds and approvals apply as for any other device.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/bundle", tag = "rollouts",
    security(("token" = ["release"])), params(("id" = String, Path, description = "The rollout")),
    request_body = BundleBody,
    responses((status = 200, description = "One order per device, or the reason there is none",
        body = BundleView)))]
pub(crate) async fn make(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments(id): Segments<String>,
    Body(body): Body<BundleBody>,
) -> ApiResult<Json<BundleView>> {
    let rollout: RolloutId = parse(&id)?;
    let selector: Selector = parse(&body.selector)?;
    let carried = app.make_bundle(rollout, &selector, body.days, &by).await?;
    let orders = carried
        .into_iter()
        .map(|carried| {
            let (assignment, reason) = match carried.order {
                Ok(assignment) => (Some(assignment), None),
                Err(reason) => (None, Some((&reason).into())),
            };
            OrderView {
                device: carried.device.to_string(),
                name: carried.name,
                assignment,
                reason,
            }
        })
        .collect();
    Ok(Json(BundleView {
        rollout: rollout.to_string(),
        orders,
    }))
}

/// Takes reports signed by a device without a network and carried back by a person.
#[utoipa::path(post, path = "/api/v1/devices/{id}/reports", tag = "devices",
    security(("token" = ["release"])), params(("id" = String, Path, description = "The device")),
    request_body = Object,
    responses((status = 200, description = "The highest number held", body = Object)))]
pub(crate) async fn take(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments(id): Segments<String>,
    Body(batch): Body<ReportBatch>,
) -> ApiResult<Json<ReportsAccepted>> {
    let device: DeviceId = parse(&id)?;
    Ok(Json(app.take_carried(device, batch, &by).await?))
}

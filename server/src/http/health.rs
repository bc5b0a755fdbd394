//! Health and metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

use crate::app::App;
use crate::metrics::RoleLabel;

/// Liveness: whether the process runs; nothing else is checked.
pub(crate) async fn healthz() -> impl IntoResponse {
    Json(json!({ "status": "ok" }))
}

/// Readiness: whether requests can be served (database, blobs, not stopping).
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> impl IntoResponse {
    let database = app.db.is_ready().await;
    let blobs = app.blobs.is_ready().await;
    let serving = !app.stopping.is_cancelled();
    let status = if database && blobs && serving {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({ "database": database, "blobs": blobs, "serving": serving })),
    )
}

/// Metrics, in the format that Prometheus scrapes.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    app.metrics
        .devices
        .set(i64::try_from(app.fleet.len()).unwrap_or(i64::MAX));
    app.metrics
        .statements
        .set(i64::try_from(app.statements_run()).unwrap_or(i64::MAX));
    for (role, at) in app.fleet.plan().trust.expiries() {
        let left = at.as_secs().saturating_sub(app.now().as_secs());
        let label = RoleLabel { role };
        app.metrics
            .metadata_expires_s
            .get_or_create(&label)
            .set(left);
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.render())
}

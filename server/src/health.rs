//! Health and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Json, Router};
use serde_json::json;
use tidegate_core::App;
use tidegate_core::metrics::RoleLabel;

/// Router of the metrics address.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/metrics", axum::routing::get(metrics))
        .with_state(app)
}

/// Liveness: whether the process runs; nothing else is checked.
pub(crate) async fn healthz() -> impl IntoResponse {
    Json(json!({ "status": "ok" }))
}

/// Readiness: whether requests can be served (database, its writes, blobs, not stopping), and what is about
/// to keep them from it.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> impl IntoResponse {
    let ready = app.readiness().await;
    let writes = ready.unwritable.is_none();
    let status = if ready.database && ready.blobs && ready.serving && writes {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let problems: Vec<String> = ready.unwritable.into_iter().chain(ready.problems).collect();
    let body = json!({
        "database": ready.database,
        "blobs": ready.blobs,
        "serving": ready.serving,
        "writes": writes,
        "problems": problems,
    });
    (status, Json(body))
}

/// Metrics, in the format that Prometheus scrapes.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    app.metrics()
        .devices
        .set(i64::try_from(app.devices_known()).unwrap_or(i64::MAX));
    app.metrics()
        .statements
        .set(i64::try_from(app.statements_run()).unwrap_or(i64::MAX));
    let room = app.room();
    let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    app.metrics()
        .writable
        .set(i64::from(room.failing.is_none()));
    app.metrics().ballast_missing.set(gauge(room.missing));
    let free = room.space.map_or(i64::MAX, |space| gauge(space.free));
    app.metrics().database_free.set(free);
    let administered = app.administered_for_s().unwrap_or(i64::MAX);
    app.metrics().administered_for_s.set(administered);
    for (role, at) in app.plan().trust.expiries() {
        let left = at.as_secs().saturating_sub(app.now().as_secs());
        let label = RoleLabel { role };
        app.metrics()
            .metadata_expires_s
            .get_or_create(&label)
            .set(left);
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics().render())
}

#![doc = include_str!("../README.md")]

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use tidegate_core::App;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

mod blobs;
mod calls;
mod metadata;

/// Maximum size of a signed request's body, 16 KiB: it is read before anybody knows who sent it.
const SIGNED_BODY: usize = 16 << 10;

/// Calls of agents, with their descriptions.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    let signed = OpenApiRouter::new()
        .routes(routes!(calls::enroll))
        .routes(routes!(calls::session))
        .routes(routes!(calls::change_key))
        .layer(DefaultBodyLimit::max(SIGNED_BODY));
    signed
        .routes(routes!(calls::check_in))
        .routes(routes!(calls::reports))
}

/// Signed metadata.
pub fn metadata() -> Router<Arc<App>> {
    Router::new().route("/metadata/{file}", get(metadata::file))
}

/// Downloads, which take as long as they need.
pub fn downloads() -> Router<Arc<App>> {
    Router::new()
        .route("/blobs/{sha256}", get(blobs::get))
        .route("/targets/{*path}", get(blobs::target))
}

#![doc = include_str!("../README.md")]

use std::sync::Arc;

use axum::Router;
use axum::routing::put;
use tidegate_core::App;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

mod blobs;
mod bundles;
mod devices;
mod incidents;
mod joining;
mod operators;
mod releases;
mod revision;
mod rollouts;
mod trust;
mod views;
mod widen;

/// Routes of the API, with their descriptions.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(releases::list_products, releases::create_product))
        .routes(routes!(releases::list_releases, releases::create_release))
        .routes(routes!(releases::get_release))
        .routes(routes!(releases::promote))
        .routes(routes!(releases::add_artifact))
        .routes(routes!(releases::list_payloads))
        .routes(routes!(releases::roll_back_release))
        .routes(routes!(releases::announce_eol))
        .routes(routes!(releases::get_settings, releases::put_settings))
        .routes(routes!(releases::approve_settings))
        .routes(routes!(incidents::list))
        .routes(routes!(incidents::get))
        .routes(routes!(incidents::keep_previous))
        .routes(routes!(incidents::list_holds, incidents::create_hold))
        .routes(routes!(incidents::lift_hold))
        .routes(routes!(trust::get_trust, trust::upload_metadata))
        .routes(routes!(trust::drafts, trust::upload_draft))
        .routes(routes!(trust::rotate_online))
        .routes(routes!(rollouts::list, rollouts::create))
        .routes(routes!(rollouts::get, widen::edit))
        .routes(routes!(rollouts::why))
        .routes(routes!(widen::advance))
        .routes(routes!(widen::approve))
        .routes(routes!(widen::list_presets))
        .routes(routes!(rollouts::start))
        .routes(routes!(rollouts::pause))
        .routes(routes!(rollouts::resume))
        .routes(routes!(rollouts::halt))
        .routes(routes!(rollouts::roll_back))
        .routes(routes!(rollouts::cancel))
        .routes(routes!(rollouts::deployments))
        .routes(routes!(bundles::make))
        .routes(routes!(bundles::take))
        .routes(routes!(rollouts::events))
        .routes(routes!(devices::list))
        .routes(routes!(devices::get))
        .routes(routes!(devices::why))
        .routes(routes!(devices::events))
        .routes(routes!(devices::revoke))
        .routes(routes!(devices::readmit))
        .routes(routes!(devices::isolate))
        .routes(routes!(devices::new_key))
        .routes(routes!(devices::lift_quarantine))
        .routes(routes!(joining::create, joining::list))
        .routes(routes!(joining::revoke_all))
        .routes(routes!(joining::revoke))
        .routes(routes!(joining::waiting))
        .routes(routes!(joining::accept))
        .routes(routes!(joining::reject))
        .routes(routes!(operators::whoami))
        .routes(routes!(operators::list, operators::create))
        .routes(routes!(operators::revoke))
        .routes(routes!(operators::confirm))
}

/// Uploads, which take as long as they need and have a limit of their own.
pub fn uploads() -> Router<Arc<App>> {
    Router::new().route("/api/v1/blobs/{sha256}", put(blobs::put))
}

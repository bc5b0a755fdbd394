//! Products and releases.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidegate_api::{
    ApproveBody, ArtifactBody, ArtifactView, EolBody, IncidentView, PayloadView, ProductBody,
    ProductView, PromoteBody, ReleaseBody, ReleaseView, RollbackBody, SettingsBody, SettingsView,
    instant,
};
use tidegate_core::App;
use tidegate_core::incident::ReturnOf;
use tidegate_core::release::settings::SettingsStanding;
use tidegate_web::{Administrator, ApiResult, Body, Reader, Releaser, Responder, Segments, parse};

use crate::views::{View, release_view};

/// Lists all products.
#[utoipa::path(get, path = "/api/v1/products", tag = "releases", security(("token" = ["read"])),
    responses((status = 200, description = "The products", body = [ProductView])))]
pub(crate) async fn list_products(
    State(app): State<Arc<App>>,
    _by: Reader,
) -> ApiResult<Json<Vec<ProductView>>> {
    let list = app.products().await?;
    Ok(Json(
        list.into_iter()
            .map(|name| ProductView {
                name: name.to_string(),
            })
            .collect(),
    ))
}

/// Creates a product. Idempotent.
#[utoipa::path(post, path = "/api/v1/products", tag = "releases", security(("token" = ["release"])),
    request_body = ProductBody,
    responses((status = 201, description = "It is there", body = ProductView),
              (status = 200, description = "It was there already", body = ProductView)))]
pub(crate) async fn create_product(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Body(body): Body<ProductBody>,
) -> ApiResult<Response> {
    let new = app.create_product(&by, &parse(&body.name)?).await?;
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(ProductView { name: body.name })).into_response())
}

/// Lists a product's releases, newest first.
#[utoipa::path(get, path = "/api/v1/products/{product}/releases", tag = "releases",
    security(("token" = ["read"])), params(("product" = String, Path, description = "The product")),
    responses((status = 200, description = "The releases", body = [ReleaseView])))]
pub(crate) async fn list_releases(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments(product): Segments<String>,
) -> ApiResult<Json<Vec<ReleaseView>>> {
    let list = app.releases(&parse(&product)?).await?;
    Ok(Json(
        list.into_iter().map(|r| release_view(r, &[])).collect(),
    ))
}

/// Creates a draft release. Idempotent.
#[utoipa::path(post, path = "/api/v1/products/{product}/releases", tag = "releases",
    security(("token" = ["release"])), params(("product" = String, Path, description = "The product")),
    request_body = ReleaseBody,
    responses((status = 201, description = "It is there", body = ReleaseView),
              (status = 200, description = "It was there already", body = ReleaseView)))]
pub(crate) async fn create_release(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments(product): Segments<String>,
    Body(body): Body<ReleaseBody>,
) -> ApiResult<Response> {
    let notes: String = body.notes.chars().take(10_000).collect();
    let (release, new) = app
        .create_release(&by, &parse(&product)?, &parse(&body.version)?, &notes)
        .await?;
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(release_view(release, &[]))).into_response())
}

/// Returns a release with its artifacts.
#[utoipa::path(get, path = "/api/v1/products/{product}/releases/{version}", tag = "releases",
    security(("token" = ["read"])),
    params(("product" = String, Path, description = "The product"), ("version" = String, Path, description = "The version")),
    responses((status = 200, description = "The release", body = ReleaseView)))]
pub(crate) async fn get_release(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments((product, version)): Segments<(String, String)>,
) -> ApiResult<Response> {
    let (release, artifacts) = app.release(&parse(&product)?, &parse(&version)?).await?;
    let etag = format!("\"{}\"", release.revision);
    Ok((
        [(header::ETAG, etag)],
        Json(release_view(release, &artifacts)),
    )
        .into_response())
}

/// Promotes a release to a stage. Forward only; skipping a stage needs a reason.
#[utoipa::path(post, path = "/api/v1/products/{product}/releases/{version}/promote", tag = "releases",
    security(("token" = ["release"])),
    params(("product" = String, Path, description = "The product"), ("version" = String, Path, description = "The version")),
    request_body = PromoteBody,
    responses((status = 200, description = "The release after it", body = ReleaseView)))]
pub(crate) async fn promote(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments((product, version)): Segments<(String, String)>,
    Body(body): Body<PromoteBody>,
) -> ApiResult<Json<ReleaseView>> {
    let to = parse(&body.to)?;
    let reason = body.reason.as_deref();
    let (product, version) = (parse(&product)?, parse(&version)?);
    let release = app
        .promote(&by, &product, &version, to, reason, body.dry_run)
        .await?;
    Ok(Json(release_view(release, &[])))
}

/// Adds an artifact to a draft release. Its bytes must have been uploaded before.
#[utoipa::path(post, path = "/api/v1/products/{product}/releases/{version}/artifacts", tag = "releases",
    security(("token" = ["release"])),
    params(("product" = String, Path, description = "The product"), ("version" = String, Path, description = "The version")),
    request_body = ArtifactBody,
    responses((status = 200, description = "The artifact", body = ArtifactView)))]
pub(crate) async fn add_artifact(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments((product, version)): Segments<(String, String)>,
    Body(body): Body<ArtifactBody>,
) -> ApiResult<Json<ArtifactView>> {
    let (platform, sha256) = (parse(&body.platform)?, parse(&body.sha256)?);
    let artifact = app
        .add_artifact(&by, &parse(&product)?, &parse(&version)?, &platform, sha256)
        .await?;
    Ok(Json(ArtifactView::view(&artifact)))
}

/// Lists the payloads of a release's artifacts: full ones and deltas, including those being built.
#[utoipa::path(get, path = "/api/v1/products/{product}/releases/{version}/deltas", tag = "releases",
    security(("token" = ["read"])),
    params(("product" = String, Path, description = "The product"), ("version" = String, Path, description = "The version")),
    responses((status = 200, description = "The payloads", body = [PayloadView])))]
pub(crate) async fn list_payloads(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments((product, version)): Segments<(String, String)>,
) -> ApiResult<Json<Vec<PayloadView>>> {
    let list = app
        .payloads_of(&parse(&product)?, &parse(&version)?)
        .await?;
    Ok(Json(list.into_iter().map(PayloadView::view).collect()))
}

/// Rolls back every rollout of a release. Needs one person, no approval and no `If-Match`. Returns
/// the blast-radius sheet.
#[utoipa::path(post, path = "/api/v1/products/{product}/releases/{version}/rollback", tag = "incidents",
    security(("token" = ["respond"])),
    params(("product" = String, Path, description = "The product"), ("version" = String, Path, description = "The version")),
    request_body = RollbackBody,
    responses((status = 200, description = "The incident", body = IncidentView)))]
pub(crate) async fn roll_back_release(
    State(app): State<Arc<App>>,
    Responder(by): Responder,
    Segments((product, version)): Segments<(String, String)>,
    Body(body): Body<RollbackBody>,
) -> ApiResult<Json<IncidentView>> {
    let what = ReturnOf::Release(parse(&product)?, parse(&version)?);
    super::incidents::order_return(&app, &by, what, &body).await
}

/// Announces the end of life of a release. From then on it is no longer offered, and the version
/// gate refuses its clients.
#[utoipa::path(post, path = "/api/v1/products/{product}/releases/{version}/eol", tag = "releases",
    security(("token" = ["release"])),
    params(("product" = String, Path, description = "The product"), ("version" = String, Path, description = "The version")),
    request_body = EolBody,
    responses((status = 200, description = "The release after it", body = ReleaseView)))]
pub(crate) async fn announce_eol(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments((product, version)): Segments<(String, String)>,
    Body(body): Body<EolBody>,
) -> ApiResult<Json<ReleaseView>> {
    let at = instant("at", &body.at)?;
    let notice: String = body.notice.trim().chars().take(500).collect();
    let (product, version) = (parse(&product)?, parse(&version)?);
    let release = app
        .announce_eol(&by, &product, &version, at, &notice, body.dry_run)
        .await?;
    Ok(Json(release_view(release, &[])))
}

/// Returns the settings of a product, and the change of them that waits for approvals.
#[utoipa::path(get, path = "/api/v1/products/{product}/settings", tag = "releases",
    security(("token" = ["read"])), params(("product" = String, Path, description = "The product")),
    responses((status = 200, description = "The settings", body = SettingsView)))]
pub(crate) async fn get_settings(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments(product): Segments<String>,
) -> ApiResult<Json<SettingsView>> {
    let standing = app.product_settings(&parse(&product)?).await?;
    Ok(Json(SettingsView::view(standing)))
}

/// Replaces the settings of a product. Settings that need fewer approvals wait for as many as have
/// been needed so far.
#[utoipa::path(put, path = "/api/v1/products/{product}/settings", tag = "releases",
    security(("token" = ["administer"])), params(("product" = String, Path, description = "The product")),
    request_body = SettingsBody,
    responses((status = 200, description = "The updated settings", body = SettingsView),
              (status = 202, description = "They wait for approvals; those before stay in force", body = SettingsView)))]
pub(crate) async fn put_settings(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Segments(product): Segments<String>,
    Body(body): Body<SettingsBody>,
) -> ApiResult<Response> {
    let standing = app.set_settings(&by, &parse(&product)?, &body).await?;
    Ok(settings_response(standing))
}

/// Approves settings that wait for approvals. Nobody may approve their own, whatever their role.
#[utoipa::path(post, path = "/api/v1/products/{product}/settings/approve", tag = "releases",
    security(("token" = ["release"])), params(("product" = String, Path, description = "The product")),
    request_body = ApproveBody,
    responses((status = 200, description = "The updated settings", body = SettingsView),
              (status = 202, description = "More approvals are needed", body = SettingsView)))]
pub(crate) async fn approve_settings(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Segments(product): Segments<String>,
    Body(body): Body<ApproveBody>,
) -> ApiResult<Response> {
    let standing = app
        .approve_settings(&by, &parse(&product)?, body.plan.trim())
        .await?;
    Ok(settings_response(standing))
}

fn settings_response(standing: SettingsStanding) -> Response {
    let status = match standing.asked {
        Some(_) => StatusCode::ACCEPTED,
        None => StatusCode::OK,
    };
    (status, Json(SettingsView::view(standing))).into_response()
}

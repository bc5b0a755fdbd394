//! Products and releases.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::dto::{
    ArtifactBody, ArtifactView, OrderBody, PayloadView, ProductBody, ProductView, PromoteBody,
    ReleaseBody, ReleaseView, RolloutView,
};
use super::error::ApiResult;
use super::extract::{Body, Reader, Releaser, Responder, Segments, parse};
use crate::app::App;
use crate::service::ServiceError;
use crate::store::products;

/// Every product.
#[utoipa::path(get, path = "/api/v1/products", tag = "releases", security(("token" = ["read"])),
    responses((status = 200, description = "The products", body = [ProductView])))]
pub(crate) async fn list_products(
    State(app): State<Arc<App>>,
    _by: Reader,
) -> ApiResult<Json<Vec<ProductView>>> {
    let list = products::products(&mut app.db.read().await?).await?;
    Ok(Json(
        list.into_iter()
            .map(|(name, _)| ProductView {
                name: name.to_string(),
            })
            .collect(),
    ))
}

/// Makes a product. Making it again changes nothing.
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

/// A product's releases, newest first.
#[utoipa::path(get, path = "/api/v1/products/{product}/releases", tag = "releases",
    security(("token" = ["read"])), params(("product" = String, Path, description = "The product")),
    responses((status = 200, description = "The releases", body = [ReleaseView])))]
pub(crate) async fn list_releases(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments(product): Segments<String>,
) -> ApiResult<Json<Vec<ReleaseView>>> {
    let product = parse(&product)?;
    let mut tx = app.db.read().await?;
    if !products::product_exists(&mut tx, &product).await? {
        return Err(ServiceError::not_found(format!("product {product}")).into());
    }
    let list = products::releases(&mut tx, &product).await?;
    Ok(Json(
        list.into_iter().map(|r| ReleaseView::new(r, &[])).collect(),
    ))
}

/// Makes a draft release. Making it again changes nothing.
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
    Ok((status, Json(ReleaseView::new(release, &[]))).into_response())
}

/// A release with its artifacts.
#[utoipa::path(get, path = "/api/v1/products/{product}/releases/{version}", tag = "releases",
    security(("token" = ["read"])),
    params(("product" = String, Path, description = "The product"), ("version" = String, Path, description = "The version")),
    responses((status = 200, description = "The release", body = ReleaseView)))]
pub(crate) async fn get_release(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments((product, version)): Segments<(String, String)>,
) -> ApiResult<Response> {
    let (product, version) = (parse(&product)?, parse(&version)?);
    let mut tx = app.db.read().await?;
    let release = products::release(&mut tx, &product, &version)
        .await?
        .ok_or_else(|| ServiceError::not_found(format!("release {version} of {product}")))?;
    let artifacts = products::artifacts(&mut tx, &product, &version).await?;
    let etag = format!("\"{}\"", release.revision);
    Ok((
        [(header::ETAG, etag)],
        Json(ReleaseView::new(release, &artifacts)),
    )
        .into_response())
}

/// Gives a release a stage. Forward only; skipping one needs a reason.
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
    Ok(Json(ReleaseView::new(release, &[])))
}

/// Gives a draft release an artifact whose bytes were uploaded before.
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
    Ok(Json(ArtifactView::from(&artifact)))
}

/// The ways to fetch a release's artifacts: full payloads and deltas, those being made included.
#[utoipa::path(get, path = "/api/v1/products/{product}/releases/{version}/deltas", tag = "releases",
    security(("token" = ["read"])),
    params(("product" = String, Path, description = "The product"), ("version" = String, Path, description = "The version")),
    responses((status = 200, description = "The payloads", body = [PayloadView])))]
pub(crate) async fn list_payloads(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments((product, version)): Segments<(String, String)>,
) -> ApiResult<Json<Vec<PayloadView>>> {
    Ok(Json(
        app.payloads_of(&parse(&product)?, &parse(&version)?)
            .await?,
    ))
}

/// Rolls back every rollout of a release. One person, no approval, no `If-Match`.
#[utoipa::path(post, path = "/api/v1/products/{product}/releases/{version}/rollback", tag = "releases",
    security(("token" = ["respond"])),
    params(("product" = String, Path, description = "The product"), ("version" = String, Path, description = "The version")),
    request_body = OrderBody,
    responses((status = 200, description = "The rollouts after it", body = [RolloutView])))]
pub(crate) async fn roll_back_release(
    State(app): State<Arc<App>>,
    Responder(by): Responder,
    Segments((product, version)): Segments<(String, String)>,
    Body(body): Body<OrderBody>,
) -> ApiResult<Json<Vec<RolloutView>>> {
    let reason = super::rollouts::needed_reason(&body)?;
    let (product, version) = (parse(&product)?, parse(&version)?);
    let done = app
        .roll_back_release(&by, &product, &version, &reason, body.dry_run)
        .await?;
    Ok(Json(done.into_iter().map(RolloutView::from).collect()))
}

//! Products and releases.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::dto::{
    ArtifactBody, ArtifactView, EolBody, IncidentView, PayloadView, ProductBody, ProductView,
    PromoteBody, ReleaseBody, ReleaseView, RollbackBody, SettingsBody, instant,
};
use super::error::ApiResult;
use super::extract::{
    Administrator, Body, Reader, Releaser, Responder, Segments, parse, parse_opt,
};
use crate::app::App;
use crate::service::ServiceError;
use crate::service::incidents::ReturnOf;
use crate::store::products::ProductSettings;
use tidegate_delta::Limits;
use tidegate_domain::version_gate::Tls;

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
        list.into_iter().map(|r| ReleaseView::new(r, &[])).collect(),
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
    Ok((status, Json(ReleaseView::new(release, &[]))).into_response())
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
        Json(ReleaseView::new(release, &artifacts)),
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
    Ok(Json(ReleaseView::new(release, &[])))
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
    Ok(Json(ArtifactView::from(&artifact)))
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
    Ok(Json(
        app.payloads_of(&parse(&product)?, &parse(&version)?)
            .await?,
    ))
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
    Ok(Json(ReleaseView::new(release, &[])))
}

/// Returns the settings of a product.
#[utoipa::path(get, path = "/api/v1/products/{product}/settings", tag = "releases",
    security(("token" = ["read"])), params(("product" = String, Path, description = "The product")),
    responses((status = 200, description = "The settings", body = SettingsBody)))]
pub(crate) async fn get_settings(
    State(app): State<Arc<App>>,
    _by: Reader,
    Segments(product): Segments<String>,
) -> ApiResult<Json<SettingsBody>> {
    Ok(Json(app.settings(&parse(&product)?).await?.into()))
}

/// Replaces the settings of a product.
#[utoipa::path(put, path = "/api/v1/products/{product}/settings", tag = "releases",
    security(("token" = ["administer"])), params(("product" = String, Path, description = "The product")),
    request_body = SettingsBody,
    responses((status = 200, description = "The updated settings", body = SettingsBody)))]
pub(crate) async fn put_settings(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Segments(product): Segments<String>,
    Body(body): Body<SettingsBody>,
) -> ApiResult<Json<SettingsBody>> {
    let tls: Option<Tls> = parse_opt(body.min_tls.as_deref())?;
    if body.capabilities.len() > 32 || body.capabilities.iter().any(|c| !is_capability(c)) {
        let text = "capabilities: at most 32 names of 1 to 60 letters, digits, '-', '_' and '.'";
        return Err(ServiceError::invalid(text).into());
    }
    let url = body.upgrade_url.trim();
    let web = ["https://", "http://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    if !url.is_empty() && (!web || url.chars().any(|c| c.is_control() || c.is_whitespace())) {
        let text = "upgrade_url: must start with https:// or http://";
        return Err(ServiceError::invalid(text).into());
    }
    if body.approvals > 10 {
        return Err(ServiceError::invalid("approvals: 0 to 10").into());
    }
    for (name, kib, most) in [
        (
            "delta_chunk_kib",
            body.delta_chunk_kib,
            Limits::DELTA_CHUNK >> 10,
        ),
        (
            "full_chunk_kib",
            body.full_chunk_kib,
            Limits::FULL_CHUNK >> 10,
        ),
    ] {
        if kib.is_some_and(|kib| !(LEAST_CHUNK_KIB..=most).contains(&kib)) {
            let text = format!("{name}: {LEAST_CHUNK_KIB} to {most}");
            return Err(ServiceError::invalid(text).into());
        }
    }
    let settings = ProductSettings {
        min_version: parse_opt(body.min_version.as_deref())?,
        min_tls: tls.map(|t| t.to_string()),
        capabilities: body.capabilities.into_iter().collect(),
        upgrade_url: body.upgrade_url.trim().chars().take(500).collect(),
        approvals: body.approvals,
        delta_chunk_kib: body.delta_chunk_kib,
        full_chunk_kib: body.full_chunk_kib,
    };
    app.set_settings(&by, &parse(&product)?, &settings).await?;
    Ok(Json(settings.into()))
}

/// Minimum chunk size, in KiB: each chunk costs a request and 90 bytes of manifest.
const LEAST_CHUNK_KIB: u32 = 64;

fn is_capability(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=60).contains(&name.len()) && name.bytes().all(plain)
}

//! Signed metadata: uploaded by people, served to devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use tidegate_api::{DraftBody, DraftView, MetadataBody, ReasonBody, TrustView};
use tidegate_core::App;
use tidegate_trust::UploadedFile;
use tidegate_web::{Administrator, ApiResult, Body, Reader, Releaser, needed_reason};

use crate::views::View;

/// Returns the online keys the server signs with, and the metadata it holds.
#[utoipa::path(get, path = "/api/v1/trust", tag = "trust", security(("token" = ["read"])),
    responses((status = 200, description = "Public online keys, versions, root", body = TrustView)))]
pub(crate) async fn get_trust(
    State(app): State<Arc<App>>,
    _by: Reader,
) -> ApiResult<Json<TrustView>> {
    Ok(Json(view(&app)))
}

fn view(app: &App) -> TrustView {
    let plan = app.plan();
    TrustView {
        online_keys: plan
            .trust
            .secrets
            .newest()
            .public()
            .into_iter()
            .map(|(role, key)| (role.to_owned(), key.to_string()))
            .collect(),
        versions: plan.trust.versions.clone(),
        problems: plan.trust.problems.clone(),
        expires: plan
            .trust
            .expiries()
            .into_iter()
            .map(|(role, at)| (role, at.to_string()))
            .collect(),
        root_sha256: plan.trust.root().map(|(_, hash)| hash.to_string()),
    }
}

/// Takes offline-signed files, all or none, and re-signs the repository.
#[utoipa::path(post, path = "/api/v1/trust/metadata", tag = "trust", security(("token" = ["release"])),
    request_body = MetadataBody,
    responses((status = 200, description = "Newest version of each role", body = BTreeMap<String, u64>)))]
pub(crate) async fn upload_metadata(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Body(body): Body<MetadataBody>,
) -> ApiResult<Json<BTreeMap<String, u64>>> {
    let files: Vec<UploadedFile> = body
        .files
        .into_iter()
        .map(|f| UploadedFile {
            role: f.role,
            bytes: f.body.into_bytes(),
        })
        .collect();
    Ok(Json(app.upload_metadata(&by, &files).await?))
}

/// Lists the files that still wait for signatures.
#[utoipa::path(get, path = "/api/v1/trust/drafts", tag = "trust", security(("token" = ["read"])),
    responses((status = 200, description = "Each draft and who has signed it", body = [DraftView])))]
pub(crate) async fn drafts(
    State(app): State<Arc<App>>,
    _by: Reader,
) -> ApiResult<Json<Vec<DraftView>>> {
    let drafts = app.drafts().await?;
    Ok(Json(drafts.into_iter().map(DraftView::view).collect()))
}

/// Takes a file that carries some of its signatures; once it has enough, it is in force.
#[utoipa::path(post, path = "/api/v1/trust/drafts", tag = "trust", security(("token" = ["release"])),
    request_body = DraftBody,
    responses((status = 200, description = "The updated draft", body = DraftView)))]
pub(crate) async fn upload_draft(
    State(app): State<Arc<App>>,
    Releaser(by): Releaser,
    Body(body): Body<DraftBody>,
) -> ApiResult<Json<DraftView>> {
    let file = UploadedFile {
        role: body.role,
        bytes: body.body.into_bytes(),
    };
    Ok(Json(DraftView::view(
        app.upload_draft(&by, &file, &body.purpose).await?,
    )))
}

/// Generates new online keys and a new ticket key, for when the server may have been compromised.
/// The keys sign once root and targets name them; every session has to be opened again.
#[utoipa::path(post, path = "/api/v1/trust/rotate-online", tag = "trust",
    security(("token" = ["administer"])), request_body = ReasonBody,
    responses((status = 200, description = "The new public keys", body = TrustView)))]
pub(crate) async fn rotate_online(
    State(app): State<Arc<App>>,
    Administrator(by): Administrator,
    Body(body): Body<ReasonBody>,
) -> ApiResult<Json<TrustView>> {
    app.rotate_online(&by, &needed_reason(&body.reason)?)
        .await?;
    Ok(Json(view(&app)))
}

//! Device API, spoken by agents. Messages are the types of `tidegate-protocol`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use tidegate_core::public::Named;
use tidegate_core::{App, CoreError};
use tidegate_protocol::{
    CheckIn, CheckInAnswer, Enroll, KeyChange, NONCE_HEADER, ReportBatch, ReportsAccepted,
    SIGNED_FOR_HEADER, SessionRequest,
};
use tidegate_trust::http_signature::{RequestFacts, SignatureHeaders, Signer};
use tidegate_web::connections::{Connection, Who};
use tidegate_web::{ApiError, ApiResult, Body, Session, WaitingSession, address, unread};

/// Verifies a signed request and parses its body. A refusal carries a fresh nonce.
async fn signed<T, F>(
    app: &App,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
    connection: Option<&Connection>,
    then: impl AsyncFnOnce(T, Signer, String) -> Result<F, CoreError>,
) -> Response
where
    T: for<'de> Deserialize<'de>,
    F: serde::Serialize,
{
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    let signature = match (
        text("content-digest"),
        text("signature-input"),
        text("signature"),
    ) {
        (Some(content_digest), Some(signature_input), Some(signature)) => Some(SignatureHeaders {
            content_digest,
            signature_input,
            signature,
        }),
        _ => None,
    };
    let (host, forwarded, claimed) = (
        text(header::HOST.as_str()).unwrap_or_default(),
        text("x-forwarded-host"),
        text(SIGNED_FOR_HEADER),
    );
    let named = Named {
        host: &host,
        // The first is the one that the client asked.
        forwarded: forwarded
            .as_deref()
            .and_then(|t| t.split(',').next())
            .map(str::trim),
        signed: claimed.as_deref(),
    };
    let facts = RequestFacts {
        method: "POST",
        authority: &host,
        path: uri.path(),
        query: uri.query().unwrap_or_default(),
        body,
    };
    let answer = async {
        let signer = app.verify_signed(signature.as_ref(), &facts, &named)?;
        let value: T = serde_json::from_slice(body).map_err(CoreError::invalid)?;
        let answer = then(value, signer, address(connection, headers)).await?;
        // The signature alone shows nothing: anybody can make a key.
        connection.map_or(Ok(()), |c| c.prove(Who::Device))?;
        Ok(answer)
    }
    .await;
    let mut response = match answer {
        Ok(value) => return Json(value).into_response(),
        Err(error) => ApiError(error).into_response(),
    };
    if let Ok(nonce) = HeaderValue::from_str(&app.fresh_nonce()) {
        response.headers_mut().insert(NONCE_HEADER, nonce);
    }
    response
}

/// Enrolls a device. The request is signed (RFC 9421) by the key that it announces, with a nonce
/// from the `tidegate-nonce` header of the 401 that an unsigned request gets.
#[utoipa::path(post, path = "/device/v1/enroll", tag = "device", request_body = Object,
    responses((status = 200, description = "Id, region, channel and the pinned root", body = Object),
              (status = 401, description = "Sign with the nonce of this answer")))]
pub(crate) async fn enroll(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    connection: Option<Extension<Arc<Connection>>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(error) => return unread(&error).into_response(),
    };
    signed(
        &app,
        &uri,
        &headers,
        &body,
        connection.as_deref().map(AsRef::as_ref),
        async |request: Enroll, signer, _| app.enroll(&request, &signer).await,
    )
    .await
}

/// Opens a session. The request is signed like an enrollment.
#[utoipa::path(post, path = "/device/v1/session", tag = "device", request_body = Object,
    responses((status = 200, description = "A ticket", body = Object),
              (status = 401, description = "Sign with the nonce of this answer")))]
pub(crate) async fn session(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    connection: Option<Extension<Arc<Connection>>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(error) => return unread(&error).into_response(),
    };
    signed(
        &app,
        &uri,
        &headers,
        &body,
        connection.as_deref().map(AsRef::as_ref),
        async |request: SessionRequest, signer, from| {
            app.grant_session(&request, &signer, &from).await
        },
    )
    .await
}

/// Changes the key of a device. The request is signed by the current key like an enrollment; the
/// new key signs the change.
#[utoipa::path(post, path = "/device/v1/key", tag = "device", request_body = Object,
    responses((status = 200, description = "The new key", body = Object),
              (status = 401, description = "Sign with the nonce of this answer")))]
pub(crate) async fn change_key(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    connection: Option<Extension<Arc<Connection>>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(error) => return unread(&error).into_response(),
    };
    signed(
        &app,
        &uri,
        &headers,
        &body,
        connection.as_deref().map(AsRef::as_ref),
        async |request: KeyChange, signer, from| {
            app.change_device_key(&request, &signer, &from).await
        },
    )
    .await
}

// The bodies of this door may have fields that this server does not know, unlike those of the people's API:
// agents are updated before their servers as well as after them, and one that is refused could never be
// given the update that mends it.

/// Takes the device's facts and returns its orders; held for up to `wait` seconds while there is
/// nothing new.
#[utoipa::path(post, path = "/device/v1/checkin", tag = "device", request_body = Object,
    responses((status = 200, description = "What to do", body = Object)))]
pub(crate) async fn check_in(
    State(app): State<Arc<App>>,
    WaitingSession(device, session, from): WaitingSession,
    Body(request): Body<CheckIn>,
) -> ApiResult<Json<CheckInAnswer>> {
    Ok(Json(
        app.check_in((device, session), &from, &request).await?,
    ))
}

/// Takes reports of what happened on the device; acknowledged after their commit.
#[utoipa::path(post, path = "/device/v1/reports", tag = "device", request_body = Object,
    responses((status = 200, description = "The highest number held", body = Object)))]
pub(crate) async fn reports(
    State(app): State<Arc<App>>,
    Session(device): Session,
    Body(batch): Body<ReportBatch>,
) -> ApiResult<Json<ReportsAccepted>> {
    Ok(Json(app.take_reports(device, batch).await?))
}

//! Immutable blobs: uploaded in constant memory, served with ranges.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use futures::TryStreamExt as _;
use tidegate_api::BlobView;
use tidegate_core::{App, CoreError};
use tidegate_protocol::{ProblemCode, Sha256};
use tidegate_web::{ApiResult, Releaser, Segments, parse};

/// Stores an uploaded blob. Not in the OpenAPI list of JSON routes, but documented in
/// `docs/reference/api.md`.
pub(crate) async fn put(
    State(app): State<Arc<App>>,
    _by: Releaser,
    Segments(sha256): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<BlobView>> {
    let sha256: Sha256 = parse(&sha256)?;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|length| length > app.settings().max_upload) {
        let text = format!(
            "an artifact may be at most {} bytes",
            app.settings().max_upload
        );
        return Err(CoreError::refuse(ProblemCode::TooLarge, text).into());
    }
    let stream = body.into_data_stream().map_err(std::io::Error::other);
    let image = app.upload_blob(sha256, stream).await?;
    Ok(Json(BlobView {
        sha256: image.sha256.to_string(),
        length: image.length,
    }))
}

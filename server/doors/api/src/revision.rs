//! Revisions of a rollout: sent as `ETag`, expected as `If-Match`.

use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use tidegate_api::RolloutView;
use tidegate_web::{ApiError, parse};

/// A rollout with its revision as `ETag`.
pub(super) fn view(view: RolloutView) -> Response {
    (
        [(header::ETAG, format!("\"{}\"", view.revision))],
        Json(view),
    )
        .into_response()
}

/// Revision the caller saw, from `If-Match`; `None` if it is absent or `*`.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<i64>, ApiError> {
    match headers
        .get(header::IF_MATCH)
        .map(|v| v.to_str().unwrap_or_default())
    {
        None | Some("*") => Ok(None),
        Some(tag) => Ok(Some(parse(tag.trim_matches('"'))?)),
    }
}

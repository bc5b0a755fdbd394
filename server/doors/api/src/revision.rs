//! Revisions of a rollout: sent as `ETag`, expected as `If-Match`.

use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use tidegate_api::RolloutView;
use tidegate_core::App;
use tidegate_protocol::RolloutId;
use tidegate_web::{ApiError, Tags, parse};

/// A rollout with its revision as `ETag`.
pub(super) fn view(view: RolloutView) -> Response {
    (
        [(header::ETAG, format!("\"{}\"", view.revision))],
        Json(view),
    )
        .into_response()
}

/// Revision that no rollout has: they begin with 1.
const NO_REVISION: i64 = 0;

/// Revision the caller saw, from `If-Match`; `None` if it is absent or `*`. Of several, the one that the
/// rollout has: it is compared again within the change. A tag that is none of ours matches nothing.
pub(super) async fn if_match(
    app: &App,
    id: RolloutId,
    headers: &HeaderMap,
) -> Result<Option<i64>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let seen = match Tags::of(headers, &header::IF_MATCH) {
        Some(Tags::Any) => return Ok(None),
        Some(Tags::These(tags)) => tags,
        // A number without quotes is no tag, and all the same clear.
        None => return Ok(Some(parse(value.to_str().unwrap_or_default())?)),
    };
    let strong = seen.iter().filter(|(_, weak)| !weak);
    let revisions: Vec<i64> = strong.filter_map(|(tag, _)| tag.parse().ok()).collect();
    if let [_, _, ..] = revisions[..] {
        let now = app.rollout(id).await?.rollout.revision;
        let found = revisions.contains(&now).then_some(now);
        return Ok(Some(found.unwrap_or(NO_REVISION)));
    }
    Ok(Some(revisions.first().copied().unwrap_or(NO_REVISION)))
}

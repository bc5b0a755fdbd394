//! Signed metadata files, under the names that TUF clients ask for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use tidegate_core::App;
use tidegate_web::{ApiResult, Fetcher, Segments};

/// Serves a signed file by its name. Versioned names never change; `timestamp.json` does.
pub(crate) async fn file(
    State(app): State<Arc<App>>,
    fetcher: Fetcher,
    Segments(name): Segments<String>,
) -> ApiResult<Response> {
    let body = app.metadata_file(&name).await?;
    let cache = if name == "timestamp.json" {
        "no-cache".to_owned()
    } else {
        format!("{}, max-age=31536000, immutable", fetcher.cache)
    };
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CACHE_CONTROL, cache),
    ];
    Ok((headers, body.as_ref().clone()).into_response())
}

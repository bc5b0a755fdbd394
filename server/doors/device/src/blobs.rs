//! Immutable blobs, served with ranges.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidegate_core::{App, CoreError};
use tidegate_protocol::{ProblemCode, Sha256};
use tidegate_web::{ApiError, ApiResult, Fetcher, Segments, parse};

/// Serves an image under the names that other TUF clients ask for: the hash before the last
/// segment of the path (python-tuf, the specification), or before the first one (tough).
pub(crate) async fn target(
    state: State<Arc<App>>,
    fetcher: Fetcher,
    Segments(path): Segments<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let last = path.rsplit('/').next().unwrap_or_default();
    let hash = [last, path.as_str()]
        .into_iter()
        .filter_map(|name| name.split_once('.'))
        .map(|(hash, _)| hash)
        .find(|hash| hash.parse::<Sha256>().is_ok())
        .ok_or_else(|| {
            CoreError::not_found("image at this path; request <path>/<sha256>.<name>".to_owned())
        })?;
    get(state, fetcher, Segments(hash.to_owned()), headers).await
}

/// Serves a blob or a range of it. It is content-addressed: any cache may keep it for ever.
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    fetcher: Fetcher,
    Segments(sha256): Segments<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let sha256: Sha256 = parse(&sha256)?;
    let length = app
        .blob_length(sha256)
        .await?
        .ok_or_else(|| CoreError::not_found(format!("blob {sha256}")))?;
    let etag = format!("\"{sha256}\"");
    let text = |name| {
        headers
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
    };
    let mut answer = HeaderMap::new();
    answer.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let cache = format!("{}, max-age=31536000, immutable", fetcher.cache);
    put_header(&mut answer, header::CACHE_CONTROL, &cache);
    answer.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    put_header(&mut answer, header::ETAG, &etag);
    if text(header::IF_NONE_MATCH) == Some(etag.as_str()) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    // With `If-Range`, a range is served only if the client's copy is of this blob; otherwise it
    // gets all of it.
    let same = text(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let range = match text(header::RANGE)
        .filter(|_| same)
        .map(|r| parse_range(r, length))
    {
        None | Some(Wanted::Everything) => None,
        Some(Wanted::Part(range)) => Some(range),
        Some(Wanted::Nothing) => {
            // Not cached like the blob: another range of it can be served.
            let text = format!("the blob has {length} bytes, and the range begins behind them");
            let refusal = CoreError::refuse(ProblemCode::RangeNotSatisfiable, text);
            let mut refusal = ApiError(refusal).into_response();
            let range = format!("bytes */{length}");
            put_header(refusal.headers_mut(), header::CONTENT_RANGE, &range);
            return Ok(refusal);
        }
    };
    let status = if range.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    if let Some(range) = &range {
        let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        put_header(&mut answer, header::CONTENT_RANGE, &text);
    }
    let range = range.unwrap_or(0..length);
    put_header(
        &mut answer,
        header::CONTENT_LENGTH,
        &(range.end - range.start).to_string(),
    );
    let stream = app.read_blob(sha256, range).await?;
    Ok((status, answer, Body::from_stream(stream)).into_response())
}

fn put_header(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Everything,
    Part(Range<u64>),
    Nothing,
}

/// Parses one byte range (RFC 9110 section 14); several ranges, or an unreadable one, count as
/// none.
fn parse_range(text: &str, length: u64) -> Wanted {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return Wanted::Everything;
    };
    let range = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) if from <= to => from..to.saturating_add(1).min(length),
        (Ok(from), Err(_)) if to.is_empty() => from..length,
        (Err(_), Ok(last)) if from.is_empty() => length.saturating_sub(last)..length,
        _ => return Wanted::Everything,
    };
    if range.is_empty() {
        Wanted::Nothing
    } else {
        Wanted::Part(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_has_them() {
        let cases = [
            ("bytes=0-", Wanted::Part(0..10)),
            ("bytes=3-5", Wanted::Part(3..6)),
            ("bytes=3-99", Wanted::Part(3..10)),
            ("bytes=-4", Wanted::Part(6..10)),
            ("bytes=-99", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-3", Wanted::Everything),
            ("bytes=0-1,3-4", Wanted::Everything),
            ("items=0-1", Wanted::Everything),
            ("bytes=a-b", Wanted::Everything),
            ("bytes=18446744073709551615-", Wanted::Nothing),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse_range(text, 10), wanted, "{text}");
        }
    }
}

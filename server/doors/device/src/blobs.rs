//! Immutable blobs, served with ranges.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidegate_core::{App, CoreError};
use tidegate_protocol::{ProblemCode, Sha256};
use tidegate_web::{ApiError, ApiResult, Fetcher, Segments, Tags, parse};

/// Serves an image under the names that other TUF clients ask for: the hash before the last
/// segment of the path (python-tuf, the specification), or before the first one (tough).
pub(crate) async fn target(
    state: State<Arc<App>>,
    fetcher: Fetcher,
    Segments(path): Segments<String>,
    method: Method,
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
    get(state, fetcher, Segments(hash.to_owned()), method, headers).await
}

/// Serves a blob or a range of it. It is content-addressed: any cache may keep it for ever.
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    fetcher: Fetcher,
    Segments(sha256): Segments<String>,
    method: Method,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let sha256: Sha256 = parse(&sha256)?;
    let length = app
        .blob_length(sha256)
        .await?
        .ok_or_else(|| CoreError::not_found(format!("blob {sha256}")))?;
    let tag = sha256.to_string();
    let etag = format!("\"{tag}\"");
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
    if Tags::of(&headers, &header::IF_MATCH).is_some_and(|tags| !tags.have(&tag, false)) {
        let text = "this blob has another tag than those of If-Match: its SHA-256";
        return Err(CoreError::refuse(ProblemCode::PreconditionFailed, text).into());
    }
    if Tags::of(&headers, &header::IF_NONE_MATCH).is_some_and(|tags| tags.have(&tag, true)) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    // With `If-Range`, a range is served only if the client's copy is of this blob; otherwise it
    // gets all of it.
    let same = text(header::IF_RANGE).is_none_or(|tag| tag == etag);
    // Ranges are for GET alone (RFC 9110 section 14.2).
    let range = match text(header::RANGE)
        .filter(|_| same && method == Method::GET)
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
/// none. The name of the unit is case-insensitive.
fn parse_range(text: &str, length: u64) -> Wanted {
    let Some((unit, set)) = text.split_once('=') else {
        return Wanted::Everything;
    };
    let mut ranges = set.split(',').map(str::trim).filter(|r| !r.is_empty());
    let (range, more) = (ranges.next(), ranges.next());
    let Some((from, to)) = range.and_then(|r| r.split_once('-')) else {
        return Wanted::Everything;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") || more.is_some() {
        return Wanted::Everything;
    }
    let range = match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => from..to.saturating_add(1).min(length),
        (Some(from), None) if to.is_empty() => from..length,
        (None, Some(last)) if from.is_empty() => length.saturating_sub(last)..length,
        _ => return Wanted::Everything,
    };
    if range.is_empty() {
        Wanted::Nothing
    } else {
        Wanted::Part(range)
    }
}

/// Parses digits and nothing else, not even a sign; more than fits is as good as the greatest number.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
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
            ("BYTES=3-5", Wanted::Part(3..6)),
            ("bytes= 3-5 ,", Wanted::Part(3..6)),
            ("bytes=3-99999999999999999999999", Wanted::Part(3..10)),
            ("bytes=-99999999999999999999999", Wanted::Part(0..10)),
            ("bytes=+3-5", Wanted::Everything),
            ("bytes=3-+5", Wanted::Everything),
            ("bytes3-5", Wanted::Everything),
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

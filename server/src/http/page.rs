//! Pagination of lists: opaque cursors, `Link`, never a total count.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::ApiError;
use crate::service::ServiceError;

/// Maximum number of items in a page.
const MAX: u32 = 200;

/// Query parameters that select a page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// Number of items, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    pub(crate) limit: Option<u32>,
    /// End of the previous page: its `next_cursor`.
    pub(crate) cursor: Option<String>,
    /// Only items of this product.
    pub(crate) product: Option<String>,
    /// Only devices in this region.
    pub(crate) region: Option<String>,
    /// Only deployments in this state.
    pub(crate) state: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Cursor of the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

impl PageParams {
    pub(crate) fn limit(&self) -> Result<i64, ApiError> {
        match self.limit {
            None => Ok(50),
            Some(n @ 1..=MAX) => Ok(i64::from(n)),
            Some(_) => Err(ServiceError::invalid(format!("limit: 1 to {MAX}")).into()),
        }
    }

    /// Number held by the cursor; 0 for the first page.
    pub(crate) fn number(&self) -> Result<i64, ApiError> {
        let position = self.position()?;
        if position.is_empty() {
            return Ok(0);
        }
        position.parse().map_err(|_| {
            ServiceError::invalid("cursor: not valid for this list; start without a cursor").into()
        })
    }

    /// Position held by the cursor; empty for the first page.
    pub(crate) fn position(&self) -> Result<String, ApiError> {
        let Some(cursor) = &self.cursor else {
            return Ok(String::new());
        };
        URL_SAFE_NO_PAD
            .decode(cursor)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| {
                ServiceError::invalid("cursor: not valid; start without a cursor").into()
            })
    }
}

/// Encodes a position as an opaque cursor.
pub fn cursor(position: &str) -> String {
    URL_SAFE_NO_PAD.encode(position)
}

/// Builds the response for a page. A full page may be followed by another one.
pub(crate) fn respond<T: Serialize>(
    path: &str,
    items: Vec<T>,
    limit: i64,
    position: impl Fn(&T) -> String,
) -> Response {
    let full = i64::try_from(items.len()).is_ok_and(|count| count >= limit);
    let next_cursor = items.last().filter(|_| full).map(|i| cursor(&position(i)));
    let mut headers = HeaderMap::new();
    if let Some(cursor) = &next_cursor
        && let Ok(link) = HeaderValue::from_str(&format!(
            "<{path}?cursor={cursor}&limit={limit}>; rel=\"next\""
        ))
    {
        headers.insert(header::LINK, link);
    }
    (headers, Json(Page { items, next_cursor })).into_response()
}

//! Pagination of lists: opaque cursors, `Link`, never a total count.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tidegate_api::{Page, cursor};
use tidegate_core::CoreError;
use utoipa::IntoParams;

use crate::ApiError;

/// Maximum number of items in a page.
const MAX: u32 = 200;

/// Query parameters that select a page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Number of items, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
    /// End of the previous page: its `next_cursor`.
    pub cursor: Option<String>,
    /// Only items of this product.
    pub product: Option<String>,
    /// Only devices in this region.
    pub region: Option<String>,
    /// Only deployments in this state.
    pub state: Option<String>,
}

impl PageParams {
    /// Number of items asked for.
    pub fn limit(&self) -> Result<i64, ApiError> {
        match self.limit {
            None => Ok(50),
            Some(n @ 1..=MAX) => Ok(i64::from(n)),
            Some(_) => Err(CoreError::invalid(format!("limit: 1 to {MAX}")).into()),
        }
    }

    /// Number held by the cursor; 0 for the first page.
    pub fn number(&self) -> Result<i64, ApiError> {
        let position = self.position()?;
        if position.is_empty() {
            return Ok(0);
        }
        position.parse().map_err(|_| {
            CoreError::invalid("cursor: not valid for this list; start without a cursor").into()
        })
    }

    /// Position held by the cursor; empty for the first page.
    pub fn position(&self) -> Result<String, ApiError> {
        let Some(cursor) = &self.cursor else {
            return Ok(String::new());
        };
        tidegate_api::position(cursor)
            .ok_or_else(|| CoreError::invalid("cursor: not valid; start without a cursor").into())
    }
}

/// Builds the response for a page. A full page may be followed by another one.
pub fn respond<T: Serialize>(
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

//! Pagination of lists: opaque cursors, `Link`, never a total count.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tidegate_api::{Page, cursor};
use tidegate_core::CoreError;
use tidegate_protocol::{DeploymentState, ProductName, Region, Timestamp};
use utoipa::IntoParams;

use crate::extract::parse;
use crate::{ApiError, ApiResult};

/// Maximum number of items in a page.
const MAX: u32 = 200;

/// Query parameters that select a page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
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
    /// Refuses filters that a list does not have, and values that are no words of theirs.
    pub fn filters(&self, has: &[&str]) -> Result<(), ApiError> {
        for (name, value) in [
            ("product", self.product()?),
            ("region", self.region()?),
            ("state", self.state()?),
        ] {
            if !value.is_empty() && !has.contains(&name) {
                let text = format!("this list cannot be filtered by {name}");
                return Err(CoreError::invalid(text).into());
            }
        }
        Ok(())
    }

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

    /// Position of the cursor in a list by time, newest first: items before this time, or at it
    /// with a smaller id.
    pub fn before(&self) -> Result<(Timestamp, String), ApiError> {
        match self.position()?.split_once('/') {
            Some((at, id)) => Ok((Timestamp::from_micros(parse(at)?), id.to_owned())),
            None => Ok((Timestamp::from_micros(i64::MAX), String::new())),
        }
    }

    /// Product of the items; empty for all.
    pub fn product(&self) -> Result<&str, ApiError> {
        word::<ProductName>(self.product.as_deref())
    }

    /// Region of the items; empty for all.
    pub fn region(&self) -> Result<&str, ApiError> {
        word::<Region>(self.region.as_deref())
    }

    /// State of the items; empty for all.
    pub fn state(&self) -> Result<&str, ApiError> {
        word::<DeploymentState>(self.state.as_deref())
    }

    /// Builds the response for a page, from its items with their positions. A full page may be
    /// followed by another one, of the same filters.
    pub fn respond<T: Serialize>(
        &self,
        path: &str,
        items: Vec<(String, T)>,
    ) -> ApiResult<Response> {
        let limit = self.limit()?;
        let full = i64::try_from(items.len()).is_ok_and(|count| count >= limit);
        let last = items.last().filter(|_| full);
        let next_cursor = last.map(|(position, _)| cursor(position));
        let mut headers = HeaderMap::new();
        if let Some(cursor) = &next_cursor {
            let mut next = format!("{path}?cursor={cursor}&limit={limit}");
            // Words of closed alphabets, as their parsers have checked: nothing to escape.
            for (name, value) in [
                ("product", self.product()?),
                ("region", self.region()?),
                ("state", self.state()?),
            ] {
                if !value.is_empty() {
                    next.push_str(&format!("&{name}={value}"));
                }
            }
            if let Ok(link) = HeaderValue::from_str(&format!("<{next}>; rel=\"next\"")) {
                headers.insert(header::LINK, link);
            }
        }
        let items = items.into_iter().map(|(_, item)| item).collect();
        Ok((headers, Json(Page { items, next_cursor })).into_response())
    }
}

/// Checks a word that may be absent or empty.
fn word<T>(text: Option<&str>) -> Result<&str, ApiError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = text.unwrap_or_default();
    if !text.is_empty() {
        parse::<T>(text)?;
    }
    Ok(text)
}

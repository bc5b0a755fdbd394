//! Pagination of lists: opaque cursors, `Link`, never a total count.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tidegate_api::{Page, Position, cursor, position};
use tidegate_core::CoreError;
use tidegate_protocol::{DeploymentState, ProductName, Region, Timestamp};
use utoipa::IntoParams;

use crate::ApiError;
use crate::extract::parse;

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
    /// Reads the parameters for a list: its filters, and a cursor that is of this list and these
    /// filters. Everything else is refused.
    pub fn of(&self, path: impl Into<String>, has: &[&str]) -> Result<List<'_>, ApiError> {
        let path = path.into();
        let product = word::<ProductName>(self.product.as_deref())?;
        let region = word::<Region>(self.region.as_deref())?;
        let state = word::<DeploymentState>(self.state.as_deref())?;
        let mut filters = String::new();
        for (name, value) in [("product", product), ("region", region), ("state", state)] {
            if value.is_empty() {
                continue;
            }
            if !has.contains(&name) {
                let text = format!("this list cannot be filtered by {name}");
                return Err(CoreError::invalid(text).into());
            }
            // Words of closed alphabets, as their parsers have checked: nothing to escape.
            let sign = if filters.is_empty() { '?' } else { '&' };
            filters.push_str(&format!("{sign}{name}={value}"));
        }
        let limit = match self.limit {
            None => 50,
            Some(n @ 1..=MAX) => i64::from(n),
            Some(_) => return Err(CoreError::invalid(format!("limit: 1 to {MAX}")).into()),
        };
        let name = path + &filters;
        let at = self.cursor.as_deref().map(|cursor| position(&name, cursor));
        let at = match at {
            None => None,
            Some(Some(Position::Elsewhere)) => {
                let text =
                    "cursor: it is of another list, or of other filters; start without a cursor";
                return Err(CoreError::invalid(text).into());
            }
            Some(Some(at)) => Some(at),
            Some(None) => return Err(no_cursor()),
        };
        Ok(List {
            name,
            product,
            region,
            state,
            limit,
            at,
        })
    }
}

fn no_cursor() -> ApiError {
    CoreError::invalid("cursor: not valid for this list; start without a cursor").into()
}

/// Page of a list that is asked for.
#[derive(Debug)]
pub struct List<'a> {
    /// Path and filters: what a cursor is of.
    name: String,
    /// Product of the items; empty for all.
    pub product: &'a str,
    /// Region of the items; empty for all.
    pub region: &'a str,
    /// State of the items; empty for all.
    pub state: &'a str,
    /// Number of items asked for.
    pub limit: i64,
    at: Option<Position>,
}

impl List<'_> {
    /// Position held by the cursor; empty for the first page.
    pub fn position(&self) -> Result<&str, ApiError> {
        match &self.at {
            None => Ok(""),
            Some(Position::Here(position)) => Ok(position),
            Some(Position::Bare(_) | Position::Elsewhere) => Err(no_cursor()),
        }
    }

    /// Number held by the cursor of a list of events; 0 for the first page. A command line of before
    /// writes such cursors itself, without the list: its watch must go on with a newer server.
    pub fn number(&self) -> Result<i64, ApiError> {
        let text = match &self.at {
            None => return Ok(0),
            Some(Position::Here(text) | Position::Bare(text)) => text,
            Some(Position::Elsewhere) => return Err(no_cursor()),
        };
        text.parse().map_err(|_| no_cursor())
    }

    /// Position of the cursor in a list by time, newest first: items before this time, or at it
    /// with a smaller id.
    pub fn before(&self) -> Result<(Timestamp, String), ApiError> {
        let position = self.position()?;
        if position.is_empty() {
            return Ok((Timestamp::from_micros(i64::MAX), String::new()));
        }
        let (at, id) = position.split_once('/').ok_or_else(no_cursor)?;
        let at = at.parse().map_err(|_| no_cursor())?;
        Ok((Timestamp::from_micros(at), id.to_owned()))
    }

    /// Builds the response for a page, from its items with their positions. A full page may be
    /// followed by another one, of the same filters.
    pub fn respond<T: Serialize>(&self, items: Vec<(String, T)>) -> Response {
        let Self { name, limit, .. } = self;
        let full = i64::try_from(items.len()).is_ok_and(|count| count >= *limit);
        let last = items.last().filter(|_| full);
        let next_cursor = last.map(|(position, _)| cursor(name, position));
        let mut headers = HeaderMap::new();
        if let Some(cursor) = &next_cursor {
            let sign = if name.contains('?') { '&' } else { '?' };
            let next = format!("<{name}{sign}cursor={cursor}&limit={limit}>; rel=\"next\"");
            if let Ok(link) = HeaderValue::from_str(&next) {
                headers.insert(header::LINK, link);
            }
        }
        let items = items.into_iter().map(|(_, item)| item).collect();
        (headers, Json(Page { items, next_cursor })).into_response()
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

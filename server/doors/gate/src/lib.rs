#![doc = include_str!("../README.md")]

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use tidegate_api::{TurnedAwayView, time};
use tidegate_core::{App, CoreError};
use tidegate_domain::version_gate::{Client, TurnedAway, Welcome};
use tidegate_protocol::{ProductName, Timestamp, Version};
use tidegate_web::{ApiResult, Params, Segments, parse};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Time an answer may be cached, in seconds. A new minimum is in force everywhere after it.
const MAX_AGE: u32 = 30;

const TLS: HeaderName = HeaderName::from_static("tidegate-client-tls");
const CAPABILITIES: HeaderName = HeaderName::from_static("tidegate-client-capabilities");

/// Route of the gate, with its description.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(ask))
}

/// Route for a client that names no version.
pub fn unnamed() -> Router<Arc<App>> {
    Router::new().route("/v1/gate/{product}/", get(ask))
}

/// Options for how the gate refuses.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GateParams {
    /// The status of a refusal: 426 by default; 403 for nginx's `auth_request`, which understands
    /// no other.
    #[param(example = 403)]
    deny: Option<u16>,
}

/// Tells whether a client of a version may still connect: 204 if so; otherwise 426 with the reason,
/// the version to upgrade to, the one to install first and where to get it. Needs no token. The
/// headers `Tidegate-Client-Tls` (`TLSv1.2`, as nginx writes `$ssl_protocol`) and
/// `Tidegate-Client-Capabilities` (names separated by commas) are checked if sent.
#[utoipa::path(get, path = "/v1/gate/{product}/{version}", tag = "gate",
    params(("product" = String, Path, description = "The product"),
           ("version" = String, Path, description = "Version the client runs"),
           ("Tidegate-Client-Tls" = Option<String>, Header, description = "TLS version of the client's connection"),
           ("Tidegate-Client-Capabilities" = Option<String>, Header, description = "Capabilities of the client"),
           GateParams),
    responses((status = 204, description = "The client may connect; `Sunset` gives the announced end of life, if any"),
              (status = 426, description = "The client may not connect", body = TurnedAwayView)))]
pub(crate) async fn ask(
    State(app): State<Arc<App>>,
    Segments(segments): Segments<Vec<String>>,
    Params(params): Params<GateParams>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let mut segments = segments.into_iter();
    let product: ProductName = parse(&segments.next().unwrap_or_default())?;
    // Empty if the client names no version: `/v1/gate/{product}/`.
    let version = segments.next().unwrap_or_default();
    let named = version.trim().trim_start_matches('v');
    let version: Option<Version> = named.parse().ok();
    let text = |name: &HeaderName| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::trim)
            .filter(|v| !v.is_empty())
    };
    let client = Client {
        version: version.as_ref(),
        named,
        tls: match text(&TLS) {
            Some(text) => Some(parse(text)?),
            None => None,
        },
        capabilities: capabilities(&headers),
    };
    let deny = match params.deny {
        None | Some(426) => StatusCode::UPGRADE_REQUIRED,
        Some(403) => StatusCode::FORBIDDEN,
        Some(_) => return Err(CoreError::invalid("deny: must be 426 or 403").into()),
    };
    let answer = app.ask_gate(&product, &client)?;
    let mut response = match answer.verdict {
        Ok(welcome) => welcomed(&welcome),
        Err(away) => turned_away(&away, &answer.upgrade_url, deny),
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={MAX_AGE}")) {
        headers.insert(header::CACHE_CONTROL, value);
    }
    // The answer depends on these headers, so caches must keep one per value.
    headers.insert(
        header::VARY,
        HeaderValue::from_static("Tidegate-Client-Tls, Tidegate-Client-Capabilities"),
    );
    Ok(response)
}

/// Capabilities that a client lists, on one line of the header or several; `None` if it lists none.
fn capabilities(headers: &HeaderMap) -> Option<BTreeSet<&str>> {
    let lines = headers.get_all(&CAPABILITIES).iter();
    let lines = lines.filter_map(|v| v.to_str().ok()).map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty()).peekable();
    lines.peek()?;
    let names = lines.flat_map(|line| line.split(',')).map(str::trim);
    Some(names.filter(|name| !name.is_empty()).collect())
}

fn welcomed(welcome: &Welcome) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some((at, notice)) = &welcome.eol {
        // RFC 8594.
        insert(&mut response, "sunset", &http_date(*at));
        insert(&mut response, "tidegate-notice", notice);
    }
    response
}

fn turned_away(away: &TurnedAway, url: &str, deny: StatusCode) -> Response {
    let view = TurnedAwayView {
        status: deny.as_u16(),
        title: "this client must be upgraded".into(),
        code: away.reason.code.to_string(),
        detail: away.reason.to_string(),
        go_to: away.go_to.as_ref().map(ToString::to_string),
        first: away.first.as_ref().map(ToString::to_string),
        upgrade_url: Some(url.to_owned()).filter(|u| !u.is_empty()),
    };
    let mut response = (deny, Json(&view)).into_response();
    insert(&mut response, "content-type", "application/problem+json");
    // RFC 9110 15.5.22: a 426 names the protocol to change to.
    insert(&mut response, "upgrade", "tidegate/1");
    insert(&mut response, "tidegate-reason", &view.code);
    insert(&mut response, "tidegate-detail", &view.detail);
    for (name, value) in [
        ("tidegate-go-to", &view.go_to),
        ("tidegate-first", &view.first),
        ("tidegate-upgrade-url", &view.upgrade_url),
    ] {
        if let Some(value) = value {
            insert(&mut response, name, value);
        }
    }
    response
}

/// Inserts a header if its value is valid: a notice may contain characters that no header can.
fn insert(response: &mut Response, name: &'static str, value: &str) {
    let visible: String = value.chars().filter(|c| !c.is_control()).collect();
    if let Ok(value) = HeaderValue::from_str(&visible) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), value);
    }
}

/// Formats a time as an HTTP date (RFC 9110 5.6.7).
fn http_date(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.as_secs()).map_or_else(
        |_| time(at),
        |t| t.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
    )
}

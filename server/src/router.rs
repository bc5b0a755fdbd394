//! Routes of all doors on one address, and what surrounds every request: limits, log lines, counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tidegate_core::{App, CoreError, random_bytes};
use tidegate_door_api as people;
use tidegate_door_device as device;
use tidegate_door_gate as gate;
use tidegate_protocol::{ProblemCode, paths};
use tidegate_web::ApiError;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use tracing::Instrument as _;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use crate::health;
use crate::query;
use crate::strangers::{self, Strangers};

/// Maximum size of a JSON body; artifacts have a route of their own.
const MAX_BODY: usize = 2 << 20;
/// Timeout of a request: longer than the longest held check-in.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Number of requests above the limit that are left to people.
const RESERVE: usize = 1_000;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidegate",
        description = "Moves a fleet from one release to the next, and back. Errors are RFC 9457 \
                       problem documents with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "releases", description = "Products, releases, artifacts"),
        (name = "trust", description = "Signed metadata"),
        (name = "rollouts", description = "Rollouts"),
        (name = "devices", description = "Devices, for operators"),
        (name = "incidents", description = "Rollbacks and holds"),
        (name = "gate", description = "Version gate, for business servers"),
        (name = "operators", description = "Tokens"),
        (name = "device", description = "Device API, for agents"),
    )
)]
struct ApiDoc;

/// Routes and the document that describes them, both from one list.
fn api() -> OpenApiRouter<Arc<App>> {
    let mut doc = ApiDoc::openapi();
    let components = doc.components.get_or_insert_default();
    components.add_security_scheme(
        "token",
        SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
    );
    OpenApiRouter::with_openapi(doc)
        .merge(people::routes())
        .merge(device::routes())
        .merge(gate::routes())
}

/// The OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    api().into_openapi()
}

/// Router of the main address.
pub(crate) fn router(app: Arc<App>, max_requests: usize) -> Result<Router, serde_json::Error> {
    let (api, doc) = api().split_for_parts();
    let known = query::known(&doc);
    let doc: Arc<str> = doc.to_json()?.into();
    let limited = api
        .route_layer(from_fn_with_state(known, query::refuse_unknown))
        .route_layer(from_fn(to_the_end))
        .merge(gate::unnamed())
        .merge(device::metadata())
        .route("/healthz", axum::routing::get(health::healthz))
        .route("/readyz", axum::routing::get(health::readyz))
        .route(
            "/api/v1/openapi.json",
            axum::routing::get(|| async move {
                (
                    [(header::CONTENT_TYPE, "application/json")],
                    doc.to_string(),
                )
            }),
        )
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(
            axum::http::StatusCode::REQUEST_TIMEOUT,
            TIMEOUT,
        ));
    // No timeout here: uploads and downloads take as long as they need.
    let unlimited = device::downloads().merge(people::uploads());
    Ok(limited
        .merge(unlimited)
        .fallback(|uri: Uri| async move {
            let text = match uri.path() {
                path if path.ends_with('/') => {
                    "no such path: none here ends with a slash, leave it out"
                }
                _ => "no such path",
            };
            ApiError(CoreError::refuse(ProblemCode::NotFound, text))
        })
        .method_not_allowed_fallback(|| async {
            let text = "this path does not support this method";
            ApiError(CoreError::refuse(ProblemCode::MethodNotAllowed, text))
        })
        .layer(CatchPanicLayer::custom(
            |_: Box<dyn std::any::Any + Send>| {
                let text = "internal server error; see the server's log";
                ApiError(CoreError::refuse(ProblemCode::Internal, text)).into_response()
            },
        ))
        .layer(from_fn_with_state(
            Arc::new(Strangers::of(app.clone())),
            strangers::wait_for_a_turn,
        ))
        .layer(from_fn_with_state((app.clone(), max_requests), observe))
        .with_state(app))
}

/// Counts a request while it is in progress, even if its client hangs up.
struct UnderWay<'a> {
    app: &'a App,
    count: usize,
}

impl<'a> UnderWay<'a> {
    fn begin(app: &'a App) -> Self {
        Self {
            app,
            count: app.requests().fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.app.requests().fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs a request that changes something to its end, even if its client hangs up: what is committed
/// must reach memory and be visible to the next request. A check-in is held, and its offer is
/// written by another task; it ends with its client.
async fn to_the_end(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if request.method().is_safe() || path == paths::CHECK_IN {
        return next.run(request).await;
    }
    match tokio::spawn(next.run(request).in_current_span()).await {
        Ok(response) => response,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled only when the runtime shuts down.
            Err(_) => ApiError(CoreError::refuse(
                ProblemCode::Overloaded,
                "the server is shutting down; try again later",
            ))
            .into_response(),
        },
    }
}

/// Writes one log line per request and assigns it an id; never logs a token, a query or a body.
async fn observe(
    State((app, max_requests)): State<(Arc<App>, usize)>,
    request: Request,
    next: Next,
) -> Response {
    let id = hex::encode(random_bytes::<8>());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |p| p.as_str().to_owned());
    let span = tracing::info_span!("request", id);
    let began = Instant::now();
    let under_way = UnderWay::begin(&app);
    // A halt must get through a fleet that fills the server.
    let most = if strangers::is_for_people(request.uri().path()) {
        max_requests.saturating_add(RESERVE)
    } else {
        max_requests
    };
    let mut response = if under_way.count > most {
        let text = "too many requests in progress; try again later";
        ApiError(CoreError::refuse(ProblemCode::Overloaded, text)).into_response()
    } else {
        next.run(request).instrument(span).await
    };
    drop(under_way);
    let status = response.status();
    app.metrics().requests.inc();
    if status.is_server_error() {
        app.metrics().failures.inc();
    }
    tracing::debug!(
        id,
        %method,
        route,
        status = status.as_u16(),
        ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "request"
    );
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

#[cfg(test)]
mod tests {
    /// The document is committed, so that a change of the API shows in review.
    #[test]
    fn the_committed_openapi_document_is_current() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/reference/openapi.json"
        );
        let now = super::openapi().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == now,
            "docs/reference/openapi.json is stale: run TIDEGATE_BLESS=1 cargo test --workspace --lib openapi"
        );
    }
}

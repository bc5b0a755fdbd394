//! Query parameters of the people's API: those that the document lists for an operation, and no
//! others. A misspelt filter would list everything, and `?dry_run=true` on an order that takes its
//! settings from the body would carry it out.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tidegate_core::CoreError;
use tidegate_web::ApiError;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

/// Prefix of the people's API. Devices and business servers, which may be newer than this server,
/// may send what it does not know.
const PEOPLE: &str = "/api/v1/";

/// Names of the parameters by route and method.
pub(crate) type Known = Arc<HashMap<(String, Method), BTreeSet<String>>>;

/// Reads the parameters of every operation from the document.
pub(crate) fn known(doc: &OpenApi) -> Known {
    let mut known = HashMap::new();
    for (path, item) in &doc.paths.paths {
        for (method, operation) in [
            (Method::GET, &item.get),
            (Method::POST, &item.post),
            (Method::PUT, &item.put),
            (Method::PATCH, &item.patch),
            (Method::DELETE, &item.delete),
        ] {
            if let Some(operation) = operation {
                known.insert((path.clone(), method), names(operation));
            }
        }
    }
    Arc::new(known)
}

fn names(operation: &Operation) -> BTreeSet<String> {
    let parameters = operation.parameters.iter().flatten();
    let names = parameters.filter_map(|parameter| match parameter {
        RefOr::T(p) if p.parameter_in == ParameterIn::Query => Some(p.name.clone()),
        _ => None,
    });
    names.collect()
}

/// Refuses a request with a parameter that its operation does not have.
pub(crate) async fn refuse_unknown(
    State(known): State<Known>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(refused) = unknown(&known, &request) {
        return ApiError(refused).into_response();
    }
    next.run(request).await
}

fn unknown(known: &Known, request: &Request) -> Option<CoreError> {
    request.uri().query()?;
    let route = request.extensions().get::<MatchedPath>()?.as_str();
    if !route.starts_with(PEOPLE) {
        return None;
    }
    // A HEAD is answered like the GET that it stands for.
    let method = match request.method() {
        &Method::HEAD => Method::GET,
        method => method.clone(),
    };
    let has = known.get(&(route.to_owned(), method))?;
    let sent = match Query::<Vec<(String, String)>>::try_from_uri(request.uri()) {
        Ok(Query(sent)) => sent,
        Err(error) => return Some(CoreError::invalid(error.body_text())),
    };
    let (name, _) = sent.into_iter().find(|(name, _)| !has.contains(name))?;
    let name: String = name.chars().take(60).collect();
    let text = if has.is_empty() {
        format!("unknown parameter `{name}`: this request takes none in its address")
    } else {
        let all: Vec<&str> = has.iter().map(String::as_str).collect();
        format!("unknown parameter `{name}`: expected {}", all.join(", "))
    };
    Some(CoreError::invalid(text))
}

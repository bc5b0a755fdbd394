//! Conversion of errors to HTTP responses, in one place.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidegate_core::CoreError;
use tidegate_protocol::{ProblemCode, error_chain};

/// Refusal or failure of a use case, to be sent as a response.
#[derive(Debug)]
pub struct ApiError(pub CoreError);

impl<E: Into<CoreError>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.0.is_internal() {
            // Logged once, here; the caller is told that it happened, but not the details.
            tracing::error!(error = error_chain(&self.0), "a request failed");
        }
        let problem = self.0.problem();
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_else(|error| {
            tracing::error!(%error, "a problem document could not be written");
            br#"{"title":"internal server error","code":"internal"}"#.to_vec()
        });
        let mut response = (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response();
        if matches!(
            problem.code,
            ProblemCode::Overloaded | ProblemCode::Unavailable
        ) {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

/// Result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;

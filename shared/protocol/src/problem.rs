//! Errors over HTTP: RFC 9457 problem documents with stable codes.

use serde::{Deserialize, Serialize};

/// Stable code of a problem; it determines the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
#[expect(
    missing_docs,
    reason = "`title` says what each means, to people as well"
)]
pub enum ProblemCode {
    InvalidRequest,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    IllegalTransition,
    PreconditionFailed,
    IdempotencyMismatch,
    TooLarge,
    DigestMismatch,
    RangeNotSatisfiable,
    MetadataRefused,
    NonceRequired,
    TokenRefused,
    DeviceRevoked,
    FormatUnsupported,
    Overloaded,
    Unavailable,
    Internal,
}

crate::words!(ProblemCode("problem code") {
    InvalidRequest = "invalid_request",
    Unauthenticated = "unauthenticated",
    Forbidden = "forbidden",
    NotFound = "not_found",
    MethodNotAllowed = "method_not_allowed",
    Conflict = "conflict",
    IllegalTransition = "illegal_transition",
    PreconditionFailed = "precondition_failed",
    IdempotencyMismatch = "idempotency_mismatch",
    TooLarge = "too_large",
    DigestMismatch = "digest_mismatch",
    RangeNotSatisfiable = "range_not_satisfiable",
    MetadataRefused = "metadata_refused",
    NonceRequired = "nonce_required",
    TokenRefused = "token_refused",
    DeviceRevoked = "device_revoked",
    FormatUnsupported = "format_unsupported",
    Overloaded = "overloaded",
    Unavailable = "unavailable",
    Internal = "internal",
});

crate::words_in_json!(ProblemCode);

impl ProblemCode {
    /// The HTTP status that goes with the code.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::DigestMismatch => 400,
            Self::Unauthenticated | Self::NonceRequired | Self::TokenRefused => 401,
            Self::Forbidden | Self::DeviceRevoked => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict | Self::IllegalTransition => 409,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::RangeNotSatisfiable => 416,
            Self::IdempotencyMismatch | Self::MetadataRefused | Self::FormatUnsupported => 422,
            Self::Overloaded => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    /// A short title, the same for every occurrence.
    pub fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is not valid",
            Self::Unauthenticated => "Authentication is missing or not valid",
            Self::Forbidden => "This token's role does not allow this",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "This path does not support this method",
            Self::Conflict => "The request conflicts with the current state",
            Self::IllegalTransition => "Not allowed in the current state",
            Self::PreconditionFailed => "The resource has changed since you read it",
            Self::IdempotencyMismatch => "The idempotency key was used for another request",
            Self::TooLarge => "The request is too large",
            Self::DigestMismatch => "The content does not match its digest",
            Self::RangeNotSatisfiable => "The requested range is outside the content",
            Self::MetadataRefused => "The signed metadata was refused",
            Self::NonceRequired => "Sign the request with the nonce in this response",
            Self::TokenRefused => "The join token was refused",
            Self::DeviceRevoked => "The device is revoked",
            Self::FormatUnsupported => "The agent and the server use different formats",
            Self::Overloaded => "Too many requests at once",
            Self::Unavailable => "Not available right now",
            Self::Internal => "Internal server error",
        }
    }
}

/// An RFC 9457 problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:tidegate:problem:<code>`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The code's title.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: ProblemCode,
    /// Particulars of this occurrence, and what to do about it.
    pub detail: String,
    /// Id of the request in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// Creates a problem with its particulars.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            type_: format!("urn:tidegate:problem:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            request_id: None,
        }
    }
}

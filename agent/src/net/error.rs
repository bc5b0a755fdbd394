//! Errors of requests, as people read them.

use hyper::StatusCode;

/// Reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address is not usable.
    #[error("invalid server address: {0} (expected http://host[:port][/folder] or https://...)")]
    Address(String),
    /// Secrets would go out in the clear.
    #[error(
        "{0} is plain http, which shows tickets and join tokens to everybody on the way: use https://, or \
         say that it may be so with --allow-plain-http (`allow-plain-http = yes` in agent.conf)"
    )]
    Plain(String),
    /// A certificate file cannot be used.
    #[error("certificate authority {0}: {1}")]
    Authority(String, String),
    /// The connection could not be made.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// No answer came in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer exceeds its limit, in bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The server answered with an unexpected status.
    #[error("the server answered {status}: {text}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// Problem code and detail, or the body truncated to 200 characters.
        text: String,
    },
    /// The answer cannot be understood.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
}

/// Returns the error for an answer with an unexpected status.
pub(super) fn refused(status: StatusCode, body: &[u8]) -> TransportError {
    // A problem document explains itself; any other body is shown as is, truncated.
    let text = serde_json::from_slice::<tidegate_protocol::Problem>(body).map_or_else(
        |_| String::from_utf8_lossy(body).chars().take(200).collect(),
        |problem| format!("{}: {}", problem.code, problem.detail),
    );
    TransportError::Status {
        status: status.as_u16(),
        text,
    }
}

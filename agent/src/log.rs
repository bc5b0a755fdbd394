//! The agent's log: plain lines on standard error, for the service manager to keep.

use std::io::Write as _;

/// Writes a line. A log that cannot be written is no reason to stop.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "tidegate-agent: {text}");
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

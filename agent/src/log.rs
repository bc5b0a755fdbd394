//! The agent's log: plain lines on standard error, for the service manager to keep.

use std::io::Write as _;

/// Writes a line. A log that cannot be written is no reason to stop.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "tidegate-agent: {text}");
}

pub(crate) use tidegate_protocol::error_chain as chain;

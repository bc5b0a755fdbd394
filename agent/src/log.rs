//! The agent's log: plain lines on standard error, for the service manager to keep.

use std::io::Write as _;

/// Writes a line; a failure to write is ignored. The text may quote servers and checks, so it is
/// escaped: no line of theirs passes for one of ours.
pub(crate) fn line(text: &str) {
    let text = tidegate_protocol::plain(text);
    let _ = writeln!(std::io::stderr().lock(), "tidegate-agent: {text}");
}

pub(crate) use tidegate_protocol::error_chain as chain;

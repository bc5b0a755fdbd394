//! The agent's log: plain lines on standard error, for the service manager to keep.

use std::io::Write as _;

/// Writes a line. A log that cannot be written is no reason to stop. What servers and checks have said
/// may be in it: no line of theirs passes for one of ours.
pub(crate) fn line(text: &str) {
    let text = tidegate_protocol::plain(text);
    let _ = writeln!(std::io::stderr().lock(), "tidegate-agent: {text}");
}

pub(crate) use tidegate_protocol::error_chain as chain;

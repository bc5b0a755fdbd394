//! The agent's program and its client, from the outside.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod binary;
mod hostile_transport;

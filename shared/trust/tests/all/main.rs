//! Tests of the trust crate through its public API.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod chain;
mod clocks;
mod common;
mod hostile_assignment;
mod hostile_metadata;
mod properties;

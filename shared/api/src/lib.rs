#![doc = include_str!("../README.md")]

use std::fmt::{self, Display};

use tidegate_protocol::Timestamp;

mod policy;
pub mod preset;
mod wave;

pub use policy::{PolicyBody, instant};
pub use wave::WaveBody;

/// Value of a request that is not valid, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid(String);

impl Invalid {
    /// Takes the reason as people read it.
    pub fn new(why: impl Display) -> Self {
        Self(why.to_string())
    }
}

impl Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Formats a time as RFC 3339 in UTC, with microseconds.
pub fn time(at: Timestamp) -> String {
    let whole = at.to_string();
    let micros = at.as_micros().rem_euclid(1_000_000);
    format!("{}.{micros:06}Z", whole.trim_end_matches('Z'))
}

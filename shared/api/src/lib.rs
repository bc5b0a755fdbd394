#![doc = include_str!("../README.md")]

use std::fmt::{self, Display};

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tidegate_protocol::Timestamp;

mod bundle;
mod device;
mod event;
mod gate;
mod incident;
mod join;
mod operator;
mod page;
mod policy;
pub mod preset;
mod preview;
mod reason;
mod release;
mod rollout;
mod trust;
mod wave;

pub use bundle::*;
pub use device::*;
pub use event::*;
pub use gate::*;
pub use incident::*;
pub use join::*;
pub use operator::*;
pub use page::*;
pub use policy::{PolicyBody, instant};
pub use preview::*;
pub use reason::*;
pub use release::*;
pub use rollout::*;
pub use trust::*;
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

/// Rest of a body that has flattened parts: refuses every field that no part has taken, as
/// `deny_unknown_fields` does for the other bodies, where serde does not allow both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NothingElse;

impl<'de> Deserialize<'de> for NothingElse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for NothingElse {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no further fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        match map.next_key::<String>()? {
            None => Ok(self),
            Some(name) => {
                let name: String = name.chars().take(60).collect();
                Err(A::Error::custom(format_args!("unknown field `{name}`")))
            }
        }
    }
}

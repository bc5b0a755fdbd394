//! Types of the API's requests and responses. The CLI deserializes these very types.

mod devices;
mod incidents;
mod operators;
mod policy;
mod previews;
mod releases;
mod rollouts;
mod trust;

pub use super::page::Page;
pub use crate::service::releases::PayloadView;
pub use devices::*;
pub use incidents::*;
pub use operators::*;
pub use policy::*;
pub use previews::*;
pub use releases::*;
pub use rollouts::*;
pub use trust::*;

use serde::{Deserialize, Serialize};
use tidegate_protocol::{Explained, Timestamp};
use utoipa::ToSchema;

/// Formats a time as RFC 3339 in UTC, with microseconds.
pub(crate) fn time(at: Timestamp) -> String {
    let whole = at.to_string();
    let micros = at.as_micros().rem_euclid(1_000_000);
    format!("{}.{micros:06}Z", whole.trim_end_matches('Z'))
}

/// A reason: its code, a sentence, and a knowledge article.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReasonView {
    /// Stable code.
    pub code: String,
    /// Sentence for people.
    pub text: String,
    /// Key of the knowledge article that explains it.
    pub knowledge_key: String,
}

impl From<&Explained> for ReasonView {
    fn from(reason: &Explained) -> Self {
        Self {
            code: reason.code.to_string(),
            text: reason.to_string(),
            knowledge_key: reason.code.knowledge_key(),
        }
    }
}

//! Types of the API's requests and responses. The CLI deserializes these very types.

mod devices;
mod incidents;
mod operators;
mod previews;
mod releases;
mod rollouts;
mod trust;

pub use super::page::Page;
pub use crate::service::releases::PayloadView;
pub use devices::*;
pub use incidents::*;
pub use operators::*;
pub use previews::*;
pub use releases::*;
pub use rollouts::*;
pub use tidegate_api::{PolicyBody, WaveBody};
pub use trust::*;

pub(crate) use tidegate_api::{instant, time};

use serde::{Deserialize, Serialize};
use tidegate_protocol::Explained;
use utoipa::ToSchema;

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

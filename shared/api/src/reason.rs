//! Reasons, as people read them.

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

//! Events.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Recorded event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Number, without gaps, in commit order.
    pub seq: i64,
    /// Time of the commit.
    pub at: String,
    /// Part of the system: `rollout`, `deployment`, `device`, ...
    pub topic: String,
    /// Word for what happened: `rollout_moved`, `gate_decided`, ...
    pub kind: String,
    /// Version of the schema of the fields.
    pub version: u32,
    /// Name of the actor, for people.
    pub actor: String,
    /// Kind of actor: `operator`, `device`, `planner`, `builder`, `check_in`, `system`.
    pub actor_kind: String,
    /// The operator's token or the device.
    pub actor_id: Option<String>,
    /// Product it belongs to.
    pub product: Option<String>,
    /// Rollout it belongs to.
    pub rollout: Option<String>,
    /// Device it belongs to.
    pub device: Option<String>,
    /// Ids, numbers and enumerated words; the fields depend on `kind`.
    #[schema(value_type = Object)]
    pub body: serde_json::Map<String, serde_json::Value>,
    /// Free text, and names of people and devices; the fields depend on `kind`.
    #[schema(value_type = Object)]
    pub said: serde_json::Map<String, serde_json::Value>,
    /// Sentence for people. Programs should read the fields.
    pub text: String,
}

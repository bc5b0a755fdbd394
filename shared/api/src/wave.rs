//! Waves, as sent in a request.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Wave of a new rollout.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WaveBody {
    /// Name for people.
    #[schema(min_length = 1, max_length = 60)]
    pub name: String,
    /// Selector: conditions like `region=EU,canary=true`; empty for all devices.
    #[serde(default)]
    pub selector: String,
    /// Number of devices beyond those of earlier waves: `all`, `20%` or `5000`.
    #[serde(default = "all")]
    pub size: String,
}

fn all() -> String {
    "all".into()
}

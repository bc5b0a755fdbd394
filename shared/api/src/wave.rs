//! Waves, as sent in a request.

use serde::{Deserialize, Serialize};
use tidegate_domain::rollout::Wave;
use utoipa::ToSchema;

use crate::Invalid;

/// Wave of a new rollout.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
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

impl WaveBody {
    /// Reads the wave.
    pub fn wave(&self) -> Result<Wave, Invalid> {
        Ok(Wave {
            name: self.name.clone(),
            selector: self.selector.parse().map_err(Invalid::new)?,
            size: self.size.parse().map_err(Invalid::new)?,
        })
    }
}

fn all() -> String {
    "all".into()
}

//! Site bundles.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ReasonView;

/// Request to make a site bundle.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleBody {
    /// Selector of the rollout's devices, like `region=plant-7`.
    #[serde(default)]
    pub selector: String,
    /// Validity in days, 1 to 60.
    pub days: u16,
}

/// Orders to be carried to devices without a network.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BundleView {
    /// The rollout it belongs to.
    pub rollout: String,
    /// One order per selected device.
    pub orders: Vec<OrderView>,
}

/// Order to one device, or the reason there is none.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderView {
    /// Its id.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Signed assignment, as JSON text.
    pub assignment: Option<String>,
    /// Reason there is no assignment.
    pub reason: Option<ReasonView>,
}

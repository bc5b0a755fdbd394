//! The version gate, asked from memory.

use tidegate_domain::version_gate::{Client, TurnedAway, Welcome, admit};
use tidegate_protocol::ProductName;

use crate::CoreError;
use crate::app::App;

/// Answer of the version gate.
#[derive(Debug)]
pub struct GateAnswer {
    /// Whether the client may connect.
    pub verdict: Result<Welcome, TurnedAway>,
    /// Address with upgrade instructions; empty if there is none.
    pub upgrade_url: String,
}

impl App {
    /// Decides whether a client of a product may still connect.
    pub fn ask_gate(
        &self,
        product: &ProductName,
        client: &Client<'_>,
    ) -> Result<GateAnswer, CoreError> {
        let plan = self.fleet.plan();
        let settings = plan
            .settings
            .get(product)
            .ok_or_else(|| CoreError::not_found(format!("product {product}")))?;
        let product = plan.product(product);
        Ok(GateAnswer {
            verdict: admit(product, &product.gate, client, self.now()),
            upgrade_url: settings.upgrade_url.clone(),
        })
    }
}

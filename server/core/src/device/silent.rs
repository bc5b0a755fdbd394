//! Deployments whose device has not been heard from for too long.

use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::event::Actor;
use tidegate_protocol::{Explained, Reason};
use tidegate_store::deployments;

use crate::CoreError;
use crate::app::App;
use crate::queue::Write;

/// Maximum number of silent deployments handled in one round.
const ROUND: i64 = 500;

impl App {
    /// Times out deployments whose device is silent.
    pub async fn time_out_silent(&self) -> Result<(), CoreError> {
        let now = self.now();
        let silent = deployments::silent(&mut self.db.read().await?, now, ROUND).await?;
        for deployment in silent {
            let reason = Explained::from(Reason::TimedOut);
            let order = Write::Order(deployment.facts.id, DeploymentEvent::TimedOut, reason);
            self.writer
                .write(Actor::Planner, deployment.device, order)
                .await?;
        }
        Ok(())
    }
}

//! Reading of events.

use tidegate_protocol::{DeviceId, RolloutId};
use tidegate_store::events::{self, StoredEvent};

use crate::CoreError;
use crate::app::App;

impl App {
    /// Returns events of a rollout after a number, oldest first.
    pub async fn rollout_events(
        &self,
        rollout: RolloutId,
        after: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, CoreError> {
        let mut tx = self.db.read().await?;
        Ok(events::of_rollout(&mut tx, rollout, after, limit).await?)
    }

    /// Returns events of a device after a number, oldest first.
    pub async fn device_events(
        &self,
        device: DeviceId,
        after: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, CoreError> {
        let mut tx = self.db.read().await?;
        Ok(events::of_device(&mut tx, device, after, limit).await?)
    }
}

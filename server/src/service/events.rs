//! Reading of events.

use tidegate_protocol::{DeviceId, RolloutId};

use super::ServiceError;
use crate::app::App;
use crate::store::events::{self, StoredEvent};

impl App {
    /// Returns events of a rollout after a number, oldest first.
    pub async fn rollout_events(
        &self,
        rollout: RolloutId,
        after: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, ServiceError> {
        let mut tx = self.db.read().await?;
        Ok(events::of_rollout(&mut tx, rollout, after, limit).await?)
    }

    /// Returns events of a device after a number, oldest first.
    pub async fn device_events(
        &self,
        device: DeviceId,
        after: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, ServiceError> {
        let mut tx = self.db.read().await?;
        Ok(events::of_device(&mut tx, device, after, limit).await?)
    }
}

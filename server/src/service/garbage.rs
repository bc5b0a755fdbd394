//! Deltas that nobody can use any more.

use std::collections::HashSet;

use tidegate_delta::{Limits, Manifest};
use tidegate_domain::transport::is_of_use;
use tidegate_protocol::{Sha256, Stage};

use super::event;
use crate::app::App;
use crate::blob::{BlobError, read_verified};
use crate::service::ServiceError;
use crate::store::events::{self, EventKind};
use crate::store::products::{self, Payload};

/// Deltas that are deleted in one round.
const ROUND: usize = 100;

impl App {
    /// Deletes deltas that are of no use any more.
    pub(crate) async fn collect_deltas(&self) -> Result<(), ServiceError> {
        let running: HashSet<Sha256> = self.running_images().into_keys().collect();
        let mut tx = self.db.read().await?;
        let ended: HashSet<_> = products::all_releases(&mut tx)
            .await?
            .into_iter()
            .filter(|r| matches!(r.stage, Stage::Eol | Stage::Withdrawn))
            .map(|r| (r.product, r.version))
            .collect();
        let living: HashSet<Sha256> = products::all_artifacts(&mut tx)
            .await?
            .into_iter()
            .filter(|a| !ended.contains(&(a.product.clone(), a.version.clone())))
            .map(|a| a.image.sha256)
            .collect();
        let payloads = products::all_payloads(&mut tx).await?;
        drop(tx);
        let garbage = payloads
            .iter()
            .filter(|p| {
                p.from.is_some_and(|from| {
                    !is_of_use(
                        from,
                        p.to,
                        |i| running.contains(&i),
                        |i| living.contains(&i),
                    )
                })
            })
            .take(ROUND);
        let mut deleted = 0u64;
        let mut bytes = 0;
        for payload in garbage {
            self.delete_delta(payload).await?;
            (deleted, bytes) = (deleted + 1, bytes + payload.bytes);
        }
        if deleted == 0 {
            return Ok(());
        }
        let text = format!(
            "{deleted} deltas of {bytes} bytes deleted: what they make is not offered any more, or \
             nothing runs what they start from"
        );
        let mut tx = self.db.write().await?;
        let event = event(EventKind::Release, "builder", text);
        events::append(&mut tx, &self.origin, self.now(), &event).await?;
        tx.commit().await?;
        Ok(self.fleet.reload_plan(&self.db).await?)
    }

    /// Deletes one delta: first from the books, so that it is offered to nobody, then its bytes.
    async fn delete_delta(&self, payload: &Payload) -> Result<(), ServiceError> {
        let Some(from) = payload.from else {
            return Ok(());
        };
        let manifest = self.manifest(payload).await?;
        let mut tx = self.db.write().await?;
        products::delete_payload(&mut tx, payload.to, from, payload.encoding).await?;
        tx.commit().await?;
        if let Some(manifest) = manifest {
            self.blobs.delete(manifest.payload.sha256).await?;
        }
        self.blobs.delete(payload.manifest.sha256).await?;
        Ok(())
    }

    /// A delta's manifest; `None` if it is gone or damaged.
    async fn manifest(&self, payload: &Payload) -> Result<Option<Manifest>, ServiceError> {
        if self.blobs.length(payload.manifest.sha256).await?.is_none() {
            return Ok(None);
        }
        let file = tempfile::tempfile().map_err(BlobError::Read)?;
        let copy = file.try_clone().map_err(BlobError::Read)?;
        self.blobs.fetch(payload.manifest, copy).await?;
        let bytes = read_verified(file, payload.manifest)?;
        Ok(Manifest::from_bytes(&bytes, payload.manifest.sha256, &Limits::default()).ok())
    }
}

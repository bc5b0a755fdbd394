//! Garbage collection of deltas that nobody can use any more.

use std::collections::HashSet;

use tidegate_delta::{Limits, Manifest};
use tidegate_domain::event::{Actor, Event};
use tidegate_domain::transport::is_of_use;
use tidegate_protocol::{Sha256, Stage};
use tidegate_store::artifacts::{self, Payload};
use tidegate_store::products;

use crate::CoreError;
use crate::app::App;
use crate::blob::{BlobError, read_verified};

/// Maximum number of deltas deleted in one round.
const ROUND: usize = 100;

impl App {
    /// Deletes deltas that are no longer useful.
    pub async fn collect_deltas(&self) -> Result<(), CoreError> {
        let running: HashSet<Sha256> = self.running_images().into_keys().collect();
        let mut tx = self.db.read().await?;
        let ended: HashSet<_> = products::all_releases(&mut tx)
            .await?
            .into_iter()
            .filter(|r| matches!(r.stage, Stage::Eol | Stage::Withdrawn))
            .map(|r| (r.product, r.version))
            .collect();
        let living: HashSet<Sha256> = artifacts::all_artifacts(&mut tx)
            .await?
            .into_iter()
            .filter(|a| !ended.contains(&(a.product.clone(), a.version.clone())))
            .map(|a| a.image.sha256)
            .collect();
        let payloads = artifacts::all_payloads(&mut tx).await?;
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
        let garbage: Vec<&Payload> = garbage.collect();
        if garbage.is_empty() {
            return Ok(());
        }
        let bytes = garbage.iter().map(|payload| payload.bytes).sum();
        // Read the manifests before they are deleted.
        let mut blobs = Vec::new();
        for payload in &garbage {
            if let Some(manifest) = self.manifest(payload).await? {
                blobs.push(manifest.payload.sha256);
            }
            blobs.push(payload.manifest.sha256);
        }
        // Delete the rows first, so that no replica offers the deltas any more, then the blobs.
        self.change(&Actor::Builder, async |tx| {
            for payload in &garbage {
                if let Some(from) = payload.from {
                    artifacts::delete_payload(tx, payload.to, from, payload.encoding).await?;
                }
            }
            let count = garbage.len() as u64;
            Ok(((), vec![Event::DeltasDeleted { count, bytes }]))
        })
        .await?;
        for blob in blobs {
            self.blobs.delete(blob).await?;
        }
        Ok(())
    }

    /// Returns a delta's manifest; `None` if it is gone or damaged.
    async fn manifest(&self, payload: &Payload) -> Result<Option<Manifest>, CoreError> {
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

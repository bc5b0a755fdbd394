//! Payloads from a site bundle, without a network.

use std::path::Path;

use tidegate_delta::Limits;
use tidegate_protocol::{Explained, Reason, Sha256};
use tidegate_trust::assignment::Payload;

use super::store::storage;
use super::{DAMAGED, Download, SYNC_BYTES};
use crate::fs::Open;

impl Download {
    /// Copies a payload from the blobs of a folder, verifying each byte as if it came over a
    /// network.
    pub(crate) fn copy_from(
        &self,
        folder: &Path,
        payload: &Payload,
        needed: u64,
    ) -> Result<(), Explained> {
        let blob = |sha256: Sha256| folder.join("blobs").join(sha256.to_string());
        // Missing or unreadable counts as damaged: another payload of the bundle may be whole.
        let failed = |path: &Path, e: &dyn std::fmt::Display| {
            Explained::new(Reason::ChunkCorrupt, format!("{}: {e}", path.display()))
        };
        let manifest = if let Some(kept) = self.kept_manifest(payload) {
            kept
        } else {
            let path = blob(payload.manifest);
            let limit = Limits::default().max_manifest as u64;
            let bytes = self.fs.read(&path, limit).map_err(|e| failed(&path, &e))?;
            let bytes = bytes.ok_or_else(|| failed(&path, &"is not in the bundle"))?;
            self.keep_manifest(payload, &bytes)?
        };
        let mut store = self.store(&manifest).map_err(|e| storage(&e))?;
        self.check_room(&manifest, store.bytes(&manifest), needed)?;
        let path = blob(manifest.payload.sha256);
        let file = self
            .fs
            .open(&path, Open::Read)
            .map_err(|e| failed(&path, &e))?;
        let mut buffer = vec![0; 256 << 10];
        for (index, chunk) in manifest.chunks.iter().enumerate() {
            let mut damaged = 0;
            store
                .begin(index, "a bundle", false)
                .map_err(|e| storage(&e))?;
            while !store.has(index) {
                let from = store.begun(index);
                let left = u64::from(chunk.length).saturating_sub(from);
                let take = usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                let at = manifest.offset(index).saturating_add(from);
                file.read_exact_at(&mut buffer[..take], at)
                    .map_err(|e| failed(&path, &e))?;
                let good = store
                    .append(&manifest, index, &buffer[..take])
                    .map_err(|e| storage(&e))?;
                damaged += u32::from(!good);
                if damaged >= DAMAGED {
                    let text = format!("chunk {index} of {}", path.display());
                    return Err(Explained::new(Reason::ChunkCorrupt, text));
                }
            }
            if store.unsynced() >= SYNC_BYTES {
                store.sync().map_err(|e| storage(&e))?;
            }
        }
        store.sync().map_err(|e| storage(&e))
    }
}

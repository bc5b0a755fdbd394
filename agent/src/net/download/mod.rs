//! Resumable downloads: several chunks in parallel, each resumed midway and verified before it
//! counts, from the mirrors that the server names and from the server itself.

mod carried;
mod chunks;
mod fetch;
mod progress;
mod sources;
mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tidegate_delta::{Limits, Manifest, ManifestError};
use tidegate_protocol::{Explained, Reason};
use tidegate_trust::assignment::Payload;

use crate::fs::{Fs, Mode};
use crate::host::platform;
use crate::log;
pub(crate) use chunks::Chunks;
pub(crate) use fetch::{Fetched, Ways};
use sources::{Blame, Fault};
pub(crate) use sources::{FILE as UNUSED, Unused};
pub(crate) use store::Store;
use store::storage;

/// The download folder of one device.
#[derive(Clone)]
pub struct Download {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Boot id of the machine; empty if unknown.
    pub(crate) start: String,
    blame: Arc<Mutex<Blame>>,
    /// File with the mirrors that are not used.
    unused: PathBuf,
    /// Limits of what is fetched and opened.
    pub(crate) limits: Limits,
}

/// Times that one chunk may arrive damaged from the server.
const DAMAGED: u32 = 3;
/// Length from which received data is synced.
const SYNC_BYTES: u64 = 4 << 20;

impl Download {
    /// Returns the download of a state directory.
    pub fn new(fs: Arc<dyn Fs>, state: &Path) -> Self {
        Self {
            fs,
            dir: state.join("download"),
            start: platform::boot_id(),
            blame: Arc::default(),
            unused: state.join(sources::FILE),
            limits: Limits::default(),
        }
    }

    fn blame(&self) -> MutexGuard<'_, Blame> {
        self.blame.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a mirror aside, and says so.
    fn put_aside(&self, mirror: &str, fault: &Fault) {
        let at = (Instant::now(), platform::now());
        let aside = self.blame().put_aside(mirror, fault, at);
        if let Some(aside) = aside {
            let (why, seconds) = (&fault.why, aside.as_secs());
            log::line(&format!(
                "mirror {mirror} is put aside for {seconds} s: {why}"
            ));
            self.tell_unused();
        }
    }

    /// Takes a mirror back that was put aside.
    fn note_good(&self, mirror: &str) {
        let back = self.blame().note_good(mirror, Instant::now());
        if back {
            log::line(&format!("mirror {mirror} serves again"));
            self.tell_unused();
        }
    }

    /// Notes the mirrors that are not to be used at all.
    pub(crate) fn note_ignored(&self, ignored: Vec<Unused>) {
        self.blame().ignored = ignored;
        self.tell_unused();
    }

    /// Mirrors that are not used.
    pub(crate) fn aside(&self) -> Vec<Unused> {
        self.blame().unused()
    }

    fn tell_unused(&self) {
        let aside = self.aside();
        // For people and their programs alone; nothing hangs on it.
        let _ = if aside.is_empty() {
            self.fs.remove_if_there(&self.unused)
        } else {
            let text = serde_json::to_vec_pretty(&aside).unwrap_or_default();
            self.fs.replace(&self.unused, &text, Mode::Plain)
        };
    }

    /// Counts from zero what is fetched from now on: what is there was fetched for another deployment.
    pub(crate) fn count_anew(&self) {
        if let Err(error) = store::count_anew(&*self.fs, &self.dir) {
            log::line(&format!("{}: {error}", self.dir.display()));
        }
    }

    /// Discards everything fetched.
    pub fn drop_all(&self) -> io::Result<()> {
        // The note goes first, so that it never lists chunks that are gone.
        self.fs.remove_if_there(&self.dir.join("have"))?;
        self.fs.remove_tree(&self.dir)
    }

    /// Opens the fetched payload and its manifest, once it is complete.
    pub(crate) fn open(&self, payload: &Payload) -> Result<(Manifest, Chunks), Explained> {
        let manifest = self.kept_manifest(payload).ok_or_else(|| {
            Explained::new(
                Reason::ChunkCorrupt,
                "the stored manifest is not the assigned one",
            )
        })?;
        let chunks = Chunks {
            fs: self.fs.clone(),
            dir: self.dir.clone(),
        };
        Ok((manifest, chunks))
    }

    pub(crate) fn kept_manifest(&self, payload: &Payload) -> Option<Manifest> {
        let limit = self.limits.max_manifest as u64;
        let bytes = self
            .fs
            .read(&self.dir.join("manifest.json"), limit)
            .ok()??;
        Manifest::from_bytes(&bytes, payload.manifest, &self.limits).ok()
    }

    /// Stores a manifest; whatever belongs to another one is discarded.
    pub(crate) fn keep_manifest(
        &self,
        payload: &Payload,
        bytes: &[u8],
    ) -> Result<Manifest, Explained> {
        let manifest =
            Manifest::from_bytes(bytes, payload.manifest, &self.limits).map_err(|error| {
                // Each of both has the next payload tried.
                let reason = match error {
                    ManifestError::Encoded(_) => Reason::DeltaFailed,
                    _ => Reason::ChunkCorrupt,
                };
                Explained::new(reason, error.to_string())
            })?;
        self.drop_all()
            .and_then(|()| self.fs.create_dirs(&self.dir))
            .and_then(|()| {
                let path = self.dir.join("manifest.json");
                self.fs.replace(&path, bytes, Mode::Private)
            })
            .map_err(|e| storage(&e))?;
        Ok(manifest)
    }

    /// Opens the chunks fetched so far.
    pub(crate) fn store(&self, manifest: &Manifest) -> io::Result<Store> {
        Store::open(self.fs.clone(), &self.dir, manifest, &self.start)
    }

    /// Checks before the first byte that everything will fit on the disk.
    fn check_room(&self, manifest: &Manifest, have: u64, needed: u64) -> Result<(), Explained> {
        let Some(free) = platform::free_space(&self.dir) else {
            return Ok(());
        };
        let lacks = |wanted: u64| {
            let (free, wanted) = (free >> 10, (wanted >> 10) + 1);
            format!(
                "{}: {free} KiB free, {wanted} KiB needed",
                self.dir.display()
            )
        };
        let wanted = manifest
            .payload
            .length
            .saturating_sub(have)
            .saturating_add(needed);
        if free < wanted {
            return Err(Explained::new(Reason::DiskFull, lacks(wanted)));
        }
        // Reported as a failed delta, since another payload may not need scratch space.
        let unpacking = wanted.saturating_add(manifest.scratch);
        if free < unpacking {
            return Err(Explained::new(Reason::DeltaFailed, lacks(unpacking)));
        }
        Ok(())
    }
}

//! Progress of one download, across its workers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use tidegate_delta::Manifest;

use super::SYNC_BYTES;
use super::sources::Blame;
use super::store::Store;
use crate::net::rate::Pacer;

/// Age from which received data is synced, however little it is.
const SYNC_AGE: Duration = Duration::from_secs(5);

/// State shared by the workers of one download. No borrow of it is held across an await.
pub(super) struct Shared<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) store: Store,
    pub(super) claimed: BTreeSet<usize>,
    pub(super) now: u64,
    pub(super) tries: u32,
    pub(super) damaged: BTreeMap<usize, u32>,
    /// Names of the sources; the last is the server.
    pub(super) names: Vec<String>,
    pub(super) synced: Instant,
    pub(super) pacer: Pacer,
    pub(super) begun: Instant,
}

/// Reason why an answer is not read any further.
pub(super) enum Stop {
    Io(io::Error),
    Damaged,
    Full,
    /// The rate limit of this hour is 0.
    Closed,
}

impl Shared<'_> {
    /// Claims a chunk that no worker fetches yet; partly fetched ones come first.
    pub(super) fn claim(&mut self) -> Option<usize> {
        let open = |index: &usize| !self.store.has(*index) && !self.claimed.contains(index);
        let all = 0..self.manifest.chunks.len();
        let begun = all.clone().filter(open).find(|i| self.store.begun(*i) > 0);
        let index = begun.or_else(|| all.clone().find(open))?;
        self.claimed.insert(index);
        Some(index)
    }

    /// Takes bytes at offset `at` of the payload.
    pub(super) fn take(&mut self, index: usize, at: u64, bytes: &[u8]) -> Result<(), Stop> {
        self.now += bytes.len() as u64;
        self.store.count(bytes.len() as u64);
        let wanted = self.manifest.offset(index) + self.store.begun(index);
        let skip = usize::try_from(wanted.saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = bytes.get(skip.min(bytes.len())..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        // Only new bytes are progress; those that were there already are skipped.
        self.tries = 0;
        let good = self
            .store
            .append(self.manifest, index, bytes)
            .map_err(Stop::Io)?;
        if !good {
            return Err(Stop::Damaged);
        }
        if self.store.unsynced() >= SYNC_BYTES || self.synced.elapsed() >= SYNC_AGE {
            self.synced = Instant::now();
            self.store.sync().map_err(Stop::Io)?;
        }
        if self.store.has(index) {
            Err(Stop::Full)
        } else {
            Ok(())
        }
    }

    /// Picks the source of a chunk and prepares the chunk for it.
    pub(super) fn pick(&mut self, blame: &mut Blame, index: usize) -> io::Result<usize> {
        let source = blame.pick(&self.names, self.store.source(index), Instant::now());
        let sole = self.names.len() == 1;
        self.store.begin(index, &self.names[source], sole)?;
        Ok(source)
    }
}

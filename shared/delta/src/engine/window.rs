//! A piece of the old image in memory, with the bytes around it that are needed to find references.

use std::io;

use super::refs::{AFTER, BEFORE};
use crate::ReadAt;

/// Number of bytes of a copy that are read at once.
pub(crate) const BLOCK: usize = 4096;

/// The old image could not be read: not the payload's fault.
#[derive(Debug, thiserror::Error)]
#[error("the old image cannot be read")]
pub(crate) struct OldUnreadable(pub(crate) io::Error);

/// A block of the old image.
#[derive(Debug)]
pub(crate) struct Window {
    bytes: Vec<u8>,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BEFORE + BLOCK + AFTER],
        }
    }

    /// Loads a block so that index [`BEFORE`] is the byte at `offset`; bytes outside the image are
    /// 0.
    pub(crate) fn load(&mut self, old: &dyn ReadAt, length: u64, offset: u32) -> io::Result<()> {
        let offset = u64::from(offset);
        let begin = offset.saturating_sub(BEFORE as u64);
        let skip = BEFORE - (offset - begin) as usize;
        let end = (offset + (BLOCK + AFTER) as u64).min(length);
        let count = end.saturating_sub(begin) as usize;
        self.bytes[..skip].fill(0);
        old.read_exact_at(&mut self.bytes[skip..skip + count], begin)
            .map_err(|e| io::Error::other(OldUnreadable(e)))?;
        self.bytes[skip + count..].fill(0);
        Ok(())
    }

    /// Returns the block and the bytes around it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

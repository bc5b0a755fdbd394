//! A payload that is whole on the medium.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::fs::{Fs, Open};

/// A complete payload on the medium, read chunk by chunk.
pub(crate) struct Chunks {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
}

impl crate::install::Payload for Chunks {
    fn chunk(&self, index: usize, buf: &mut [u8]) -> io::Result<()> {
        let path = self.dir.join(format!("chunk.{index}"));
        self.fs.open(&path, Open::Kept)?.read_exact_at(buf, 0)
    }
}

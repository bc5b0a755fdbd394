//! Writer of a new image.

use std::io::Write;

use crate::Hasher;
use crate::error::ApplyError;
use crate::sink::Sink;
use crate::source::ReadAt;

/// Beginning of the new image, as written by an earlier apply.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// The bytes.
    pub bytes: &'a dyn ReadAt,
    /// Number of bytes.
    pub length: u64,
}

/// Writer of the new image: hashes what passes and stops at the promised length.
pub(crate) struct Output<'a, W> {
    pub(crate) inner: W,
    pub(crate) hasher: Hasher,
    pub(crate) length: u64,
    /// Bytes that exist already, which are not written again.
    pub(crate) kept: Option<Kept<'a>>,
}

impl<W: Write> Output<'_, W> {
    fn room(&self) -> u64 {
        self.length - self.hasher.length()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        if bytes.len() as u64 > self.room() {
            return Err(ApplyError::TooLong);
        }
        let there = self
            .kept
            .map_or(0, |k| k.length.saturating_sub(self.hasher.length()));
        let there = usize::try_from(there).map_or(bytes.len(), |there| there.min(bytes.len()));
        self.compare(&bytes[..there])?;
        self.inner
            .write_all(&bytes[there..])
            .map_err(ApplyError::Write)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Checks that bytes made again equal the kept ones, which are not overwritten.
    fn compare(&self, bytes: &[u8]) -> Result<(), ApplyError> {
        let Some(kept) = self.kept else {
            return Ok(());
        };
        let mut at = self.hasher.length();
        let mut buffer = [0; 4096];
        for piece in bytes.chunks(buffer.len()) {
            let there = &mut buffer[..piece.len()];
            kept.bytes
                .read_exact_at(there, at)
                .map_err(ApplyError::ReadKept)?;
            if there != piece {
                return Err(ApplyError::WrongImage);
            }
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Takes the next bytes from the kept ones; returns `false` if they do not hold them all.
    fn take_kept(&mut self, length: u64) -> Result<bool, ApplyError> {
        let Some(kept) = self.kept else {
            return Ok(false);
        };
        let mut at = self.hasher.length();
        let end = at.saturating_add(length);
        if end > kept.length || length > self.room() {
            return Ok(false);
        }
        let mut buffer = vec![0; 32 << 10];
        while at < end {
            let count = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let piece = &mut buffer[..count];
            kept.bytes
                .read_exact_at(piece, at)
                .map_err(ApplyError::ReadKept)?;
            self.hasher.update(piece);
            at += count as u64;
        }
        Ok(true)
    }
}

impl<W: Write> Sink for Output<'_, W> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        self.write(bytes)
    }

    fn kept(&mut self, length: u64) -> Result<bool, ApplyError> {
        self.take_kept(length)
    }

    fn frame_done(&mut self) -> Result<(), ApplyError> {
        self.inner.flush().map_err(ApplyError::Write)
    }
}

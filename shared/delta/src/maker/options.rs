//! Options for making a delta.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Encoding, Limits, MakeError};

/// See [`DeltaOptions::frame`].
const FRAME: u64 = 48 << 20;

/// Options for making a delta.
#[derive(Clone, Copy)]
pub struct DeltaOptions<'a> {
    /// [`Encoding::Quick`] or [`Encoding::Dense`].
    pub encoding: Encoding,
    /// Maximum memory for applying, in bytes: from 130 MiB on, `dense` uses large tables.
    pub memory: u64,
    /// Length of a chunk in bytes, at most [`Limits::DELTA_CHUNK`]. A device verifies a chunk
    /// before decoding it, and fetches it again if it was interrupted.
    pub chunk: u32,
    /// Maximum cost of decoding a frame, in bits coded, which is the most that an interrupted apply
    /// loses. The default is some seconds of a slow core; small frames make large payloads.
    pub frame: u64,
    /// Maximum size in bytes of either image with its packed streams unpacked; larger ones are
    /// compared as they are. The memory to make a delta grows with it.
    pub unpacked: u64,
    /// Number of threads that code frames, at least 1.
    pub threads: usize,
    /// Flag that is set from elsewhere to cancel.
    pub cancel: Option<&'a AtomicBool>,
    /// Callback for progress: the number of bytes of the new image that are done.
    pub progress: Option<&'a (dyn Fn(u64) + Sync)>,
}

impl DeltaOptions<'_> {
    /// Creates options for a controller: 16 MiB.
    pub fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            memory: Limits::MEMORY,
            chunk: Limits::DELTA_CHUNK,
            frame: FRAME,
            unpacked: i32::MAX as u64,
            threads: 1,
            cancel: None,
            progress: None,
        }
    }

    pub(super) fn stop(&self) -> Result<(), MakeError> {
        if self.cancel.is_some_and(|c| c.load(Ordering::Relaxed)) {
            return Err(MakeError::Cancelled);
        }
        Ok(())
    }
}

//! Applies a payload as a stream.

use std::fs::File;
use std::io::Write;

use crate::decode::{Decoder, Task};
use crate::error::ApplyError;
use crate::output::{Kept, Output};
use crate::remote::Remote;
use crate::source::ReadAt;
use crate::{Hasher, Image, Limits, Manifest, sha256};

enum Work<'a, W: Write> {
    Here(Box<Decoder<'a, Output<'a, W>>>),
    Apart(Box<dyn Remote + 'a>, Output<'a, W>),
}

/// Applies one payload: pass it the chunks in order, then call [`Applier::finish`].
pub struct Applier<'a, W: Write> {
    manifest: &'a Manifest,
    work: Work<'a, W>,
    next: usize,
}

impl<'a, W: Write> Applier<'a, W> {
    /// Prepares to write `manifest.to` into `out`. The manifest is checked against the limits
    /// before anything is allocated.
    pub fn new(
        manifest: &'a Manifest,
        old: Option<&'a dyn ReadAt>,
        out: W,
        limits: &Limits,
    ) -> Result<Self, ApplyError> {
        Self::resuming(manifest, old, None, out, limits)
    }

    /// Resumes an apply that was interrupted: `kept` is what it has written, and `out` takes what
    /// follows. The payload is given from its beginning; with `quick` and `dense`, the frames that
    /// made the kept bytes are not decoded again. The kept bytes are trusted only at the end, when
    /// the whole image is the promised one: on [`ApplyError::WrongImage`] start again without them.
    pub fn resuming(
        manifest: &'a Manifest,
        old: Option<&'a dyn ReadAt>,
        kept: Option<Kept<'a>>,
        out: W,
        limits: &Limits,
    ) -> Result<Self, ApplyError> {
        let task = Task::new(manifest, limits)?;
        let output = output(manifest, kept, out);
        let decoder = Decoder::new(&task, old, output)?;
        Ok(Self {
            manifest,
            work: Work::Here(Box::new(decoder)),
            next: 0,
        })
    }

    /// Resumes like [`Applier::resuming`], with a decoder in another process: nothing of what it
    /// says is believed, its bytes are hashed here.
    pub fn apart(
        manifest: &'a Manifest,
        kept: Option<Kept<'a>>,
        out: W,
        decoder: Box<dyn Remote + 'a>,
    ) -> Self {
        Self {
            manifest,
            work: Work::Apart(decoder, output(manifest, kept, out)),
            next: 0,
        }
    }

    /// Sets a file for [`Manifest::scratch`] bytes, which is overwritten. It can be deleted once
    /// the payload is applied; resuming an interrupted apply needs nothing of it.
    #[must_use]
    pub fn with_scratch(mut self, file: &'a File) -> Self {
        if let Work::Here(decoder) = &mut self.work {
            decoder.set_scratch(file);
        }
        self
    }

    /// Verifies the next chunk, then decodes it.
    pub fn push_chunk(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        let index = self.next;
        let chunk = self
            .manifest
            .chunks
            .get(index)
            .ok_or(ApplyError::ExtraChunk)?;
        if bytes.len() as u64 != u64::from(chunk.length) {
            return Err(ApplyError::ChunkCorrupt {
                index,
                what: "length",
            });
        }
        if sha256(bytes) != chunk.sha256 {
            return Err(ApplyError::ChunkCorrupt {
                index,
                what: "SHA-256",
            });
        }
        self.next += 1;
        match &mut self.work {
            Work::Here(decoder) => decoder.push(bytes),
            Work::Apart(remote, output) => remote.push(bytes, output),
        }
    }

    /// Checks that all chunks were given and that the result is the promised image; returns the
    /// writer, unflushed.
    pub fn finish(self) -> Result<W, ApplyError> {
        if self.next != self.manifest.chunks.len() {
            return Err(ApplyError::MissingChunks {
                got: self.next,
                wanted: self.manifest.chunks.len(),
            });
        }
        let output = match self.work {
            Work::Here(mut decoder) => {
                decoder.finish()?;
                decoder.into_sink()
            }
            Work::Apart(mut remote, mut output) => {
                remote.finish(&mut output)?;
                output
            }
        };
        let made: Image = output.hasher.finish();
        if made != self.manifest.to {
            return Err(ApplyError::WrongImage);
        }
        Ok(output.inner)
    }
}

fn output<'a, W>(manifest: &Manifest, kept: Option<Kept<'a>>, out: W) -> Output<'a, W> {
    Output {
        inner: out,
        hasher: Hasher::new(),
        length: manifest.to.length,
        kept,
    }
}

//! Applies a payload as a stream.

use std::fs::File;
use std::io::{self, Write};

use crate::bspatch::BsPatch;
use crate::engine::opened::{Engine, Ground};
use crate::error::ApplyError;
use crate::output::{Kept, Output};
use crate::source::ReadAt;
use crate::{Encoding, Hasher, Image, Limits, Manifest, sha256};

enum Sink<'a, W> {
    Plain(Output<'a, W>),
    Patch(Box<BsPatch<'a, W>>),
    Engine(Box<Engine<'a>>, Output<'a, W>),
}

impl<W: Write> Sink<'_, W> {
    fn push(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        match self {
            Sink::Plain(output) => output.write(bytes),
            Sink::Patch(patch) => patch.push(bytes),
            Sink::Engine(engine, output) => engine.push(bytes, output),
        }
    }
}

/// Lets zstd write into a sink; keeps the sink's own error, which `io::Error` cannot carry.
struct Guard<'a, W> {
    sink: Sink<'a, W>,
    error: Option<ApplyError>,
}

impl<W: Write> Write for Guard<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.sink.push(buf) {
            Ok(()) => Ok(buf.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoder<'a, W: Write> {
    Plain(Guard<'a, W>),
    Zstd(zstd::stream::write::Decoder<'a, Guard<'a, W>>),
}

/// Applies one payload: pass it the chunks in order, then call [`Applier::finish`].
pub struct Applier<'a, W: Write> {
    manifest: &'a Manifest,
    decoder: Decoder<'a, W>,
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
        manifest.check(limits)?;
        let output = Output {
            inner: out,
            hasher: Hasher::new(),
            length: manifest.to.length,
            kept,
        };
        let decoder = match manifest.encoding {
            Encoding::Raw => Decoder::Plain(Guard {
                sink: Sink::Plain(output),
                error: None,
            }),
            Encoding::Full => zstd_decoder(Sink::Plain(output), limits)?,
            Encoding::Bsdiff => {
                let (Some(old), Some(from)) = (old, manifest.from) else {
                    return Err(ApplyError::NoOldImage);
                };
                let patch = BsPatch::new(old, from.length, output);
                zstd_decoder(Sink::Patch(Box::new(patch)), limits)?
            }
            Encoding::Quick | Encoding::Dense => {
                let (Some(old), Some(from)) = (old, manifest.from) else {
                    return Err(ApplyError::NoOldImage);
                };
                let engine = Engine::new(Ground {
                    old,
                    old_length: from.length,
                    new_length: manifest.to.length,
                    memory: limits.max_memory,
                    scratch: manifest.scratch,
                })?;
                Decoder::Plain(Guard {
                    sink: Sink::Engine(Box::new(engine), output),
                    error: None,
                })
            }
        };
        Ok(Self {
            manifest,
            decoder,
            next: 0,
        })
    }

    /// Sets a file for [`Manifest::scratch`] bytes, which is overwritten. It can be deleted once
    /// the payload is applied; resuming an interrupted apply needs nothing of it.
    #[must_use]
    pub fn with_scratch(mut self, file: &'a File) -> Self {
        if let Decoder::Plain(Guard {
            sink: Sink::Engine(engine, _),
            ..
        }) = &mut self.decoder
        {
            engine.set_file(file);
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
        match &mut self.decoder {
            Decoder::Plain(guard) => guard.sink.push(bytes),
            Decoder::Zstd(decoder) => decoder.write_all(bytes).map_err(|e| {
                decoder
                    .get_mut()
                    .error
                    .take()
                    .unwrap_or(ApplyError::Decompress(e))
            }),
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
        let guard = match self.decoder {
            Decoder::Plain(guard) => guard,
            Decoder::Zstd(mut decoder) => {
                if let Err(e) = decoder.flush() {
                    return Err(decoder
                        .get_mut()
                        .error
                        .take()
                        .unwrap_or(ApplyError::Decompress(e)));
                }
                decoder.into_inner()
            }
        };
        let output = match guard.sink {
            Sink::Plain(output) => output,
            Sink::Patch(patch) => patch.finish()?,
            Sink::Engine(engine, output) => {
                engine.finish()?;
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

fn zstd_decoder<'a, W: Write>(
    sink: Sink<'a, W>,
    limits: &Limits,
) -> Result<Decoder<'a, W>, ApplyError> {
    let guard = Guard { sink, error: None };
    let mut decoder = zstd::stream::write::Decoder::new(guard).map_err(ApplyError::Decompress)?;
    decoder
        .window_log_max(limits.max_window_log)
        .map_err(ApplyError::Decompress)?;
    Ok(Decoder::Zstd(decoder))
}

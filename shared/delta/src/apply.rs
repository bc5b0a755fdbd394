//! Applying a payload as a stream.

use std::fs::File;
use std::io::{self, Write};

use crate::bspatch::BsPatch;
use crate::{Encoding, Hasher, Image, Limits, Manifest, ManifestError, sha256};

/// Random access to the old image.
pub trait ReadAt {
    /// Fills `buf` from `offset`, or fails.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = from
            .checked_add(buf.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for File {
    #[cfg(unix)]
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buf, offset)
    }

    #[cfg(windows)]
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            let read = std::os::windows::fs::FileExt::seek_read(self, buf, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf = &mut buf[read..];
            offset += read as u64;
        }
        Ok(())
    }
}

/// Why a payload could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The manifest is not acceptable.
    #[error("the manifest is refused")]
    Manifest(#[from] ManifestError),
    /// A delta needs the old image and none was given.
    #[error("the payload is a delta and there is no old image")]
    NoOldImage,
    /// A chunk is not what the manifest says. Nothing of it was decoded.
    #[error("chunk {index} is not what the manifest promises: {what}")]
    ChunkCorrupt {
        /// Which chunk, from 0.
        index: usize,
        /// Length or digest.
        what: &'static str,
    },
    /// More chunks than the manifest lists.
    #[error("there are more chunks than the manifest lists")]
    ExtraChunk,
    /// The payload ended early.
    #[error("only {got} of {wanted} chunks were given")]
    MissingChunks {
        /// Chunks given.
        got: usize,
        /// Chunks listed.
        wanted: usize,
    },
    /// The payload makes more than the promised length.
    #[error("the payload makes more bytes than the image has")]
    TooLong,
    /// The payload cannot be decoded.
    #[error("the payload cannot be decoded: {0}")]
    Decode(&'static str),
    /// The compressed stream is damaged or needs more memory than allowed.
    #[error("the payload cannot be decompressed")]
    Decompress(#[source] io::Error),
    /// The result is not the promised image.
    #[error("the result is not the promised image")]
    WrongImage,
    /// The old image cannot be read.
    #[error("the old image cannot be read")]
    ReadOld(#[source] io::Error),
    /// The new image cannot be written.
    #[error("the new image cannot be written")]
    Write(#[source] io::Error),
}

/// Where the new image goes: hashes what passes and stops at the promised length.
pub(crate) struct Output<W> {
    inner: W,
    hasher: Hasher,
    length: u64,
}

impl<W: Write> Output<W> {
    pub(crate) fn room(&self) -> u64 {
        self.length - self.hasher.length()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        if bytes.len() as u64 > self.room() {
            return Err(ApplyError::TooLong);
        }
        self.inner.write_all(bytes).map_err(ApplyError::Write)?;
        self.hasher.update(bytes);
        Ok(())
    }
}

enum Sink<'a, W> {
    Plain(Output<W>),
    Patch(Box<BsPatch<'a, W>>),
}

impl<W: Write> Sink<'_, W> {
    fn push(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        match self {
            Sink::Plain(output) => output.write(bytes),
            Sink::Patch(patch) => patch.push(bytes),
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

/// Applies one payload: give it the chunks in order, then [`Applier::finish`].
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
        manifest.check(limits)?;
        let output = Output {
            inner: out,
            hasher: Hasher::new(),
            length: manifest.to.length,
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
        };
        Ok(Self {
            manifest,
            decoder,
            next: 0,
        })
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

    /// Checks that all chunks were given and that the result is the promised image; gives the
    /// writer back, unflushed.
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

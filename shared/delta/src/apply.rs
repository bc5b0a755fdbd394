//! Applies a payload as a stream.

use std::fs::File;
use std::io::{self, Write};

use crate::bspatch::BsPatch;
use crate::engine::opened::{Engine, Ground};
use crate::engine::payload::Sink as FrameSink;
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

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
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

/// Reason a payload could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The manifest is refused.
    #[error("the manifest is refused")]
    Manifest(#[from] ManifestError),
    /// A delta needs the old image and none was given.
    #[error("the payload is a delta, but no old image was given")]
    NoOldImage,
    /// A chunk does not match the manifest. Nothing of it was decoded.
    #[error("chunk {index} does not match the manifest: wrong {what}")]
    ChunkCorrupt {
        /// Index of the chunk, from 0.
        index: usize,
        /// Property that differs: length or digest.
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
    #[error("the payload produces more bytes than the image has")]
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
    /// The payload unpacks the old image, and no file was given for that.
    #[error("the payload needs a scratch file to unpack the old image into, and none was given")]
    NoScratch,
    /// The file into which the old image is unpacked cannot be written.
    #[error("the old image cannot be unpacked into the scratch file")]
    Scratch(#[source] io::Error),
    /// The old image cannot be read.
    #[error("the old image cannot be read")]
    ReadOld(#[source] io::Error),
    /// The part written by an earlier apply cannot be read.
    #[error("the part of the new image written so far cannot be read")]
    ReadKept(#[source] io::Error),
    /// The new image cannot be written.
    #[error("the new image cannot be written")]
    Write(#[source] io::Error),
}

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
    inner: W,
    hasher: Hasher,
    length: u64,
    /// Bytes that exist already, which are not written again.
    kept: Option<Kept<'a>>,
}

impl<W: Write> Output<'_, W> {
    pub(crate) fn room(&self) -> u64 {
        self.length - self.hasher.length()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
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

impl<W: Write> FrameSink for Output<'_, W> {
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

//! Making payloads.

use std::io::{self, Read, Write};

use crate::{Chunk, Encoding, FORMAT, Hasher, Image, Limits, Manifest, sha256};

/// Reason a payload could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// Reading the image or writing the payload failed.
    #[error("making a payload failed")]
    Io(#[from] io::Error),
    /// `quick` and `dense` are limited to images below 2 GiB.
    #[error("deltas are limited to images below 2 GiB; publish the full image")]
    TooLarge,
    /// The caller cancelled it.
    #[error("making the payload was cancelled")]
    Cancelled,
}

/// zstd level of the makers: on executables, 12 is within 3 % of 19, the highest below `--ultra`,
/// in a tenth of the time.
const LEVEL: i32 = 12;

/// A writer that cuts what passes through it into chunks and hashes each.
pub struct ChunkWriter<W> {
    inner: W,
    chunk_size: u32,
    current: Hasher,
    whole: Hasher,
    chunks: Vec<Chunk>,
}

impl<W: Write> ChunkWriter<W> {
    /// Cuts into chunks of `chunk_size` bytes (at least 1); the last one may be shorter.
    pub fn new(inner: W, chunk_size: u32) -> Self {
        Self {
            inner,
            chunk_size: chunk_size.max(1),
            current: Hasher::new(),
            whole: Hasher::new(),
            chunks: Vec::new(),
        }
    }

    fn close_chunk(&mut self) {
        let done = std::mem::take(&mut self.current).finish();
        // A chunk never exceeds `chunk_size`, which is a u32.
        let length = u32::try_from(done.length).unwrap_or(u32::MAX);
        self.chunks.push(Chunk {
            length,
            sha256: done.sha256,
        });
    }

    /// Returns the inner writer, the whole and its chunks.
    pub fn finish(mut self) -> (W, Image, Vec<Chunk>) {
        if self.current.length() > 0 {
            self.close_chunk();
        }
        (self.inner, self.whole.finish(), self.chunks)
    }
}

impl<W: Write> Write for ChunkWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = u64::from(self.chunk_size) - self.current.length();
        let take = buf.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let taken = self.inner.write(&buf[..take])?;
        self.current.update(&buf[..taken]);
        self.whole.update(&buf[..taken]);
        if self.current.length() == u64::from(self.chunk_size) {
            self.close_chunk();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Describes an image as its own payload, in constant memory.
pub fn make_raw(image: &mut impl Read) -> Result<Manifest, MakeError> {
    let mut writer = ChunkWriter::new(io::sink(), Limits::FULL_CHUNK);
    io::copy(image, &mut writer)?;
    let (_, whole, chunks) = writer.finish();
    Ok(Manifest {
        format: FORMAT,
        encoding: Encoding::Raw,
        from: None,
        to: whole,
        payload: whole,
        window_log: 0,
        memory: 0,
        work: 0,
        scratch: 0,
        chunks,
    })
}

/// Compresses an image into `out`, in constant memory, in chunks of `chunk` bytes: at most
/// [`Limits::FULL_CHUNK`], which devices hold in memory one at a time.
pub fn make_full(
    image: &mut impl Read,
    out: impl Write,
    chunk: u32,
) -> Result<Manifest, MakeError> {
    let mut encoder = encoder(ChunkWriter::new(out, chunk.clamp(1, Limits::FULL_CHUNK)))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = image.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        encoder.write_all(&buffer[..read])?;
    }
    let (mut out, payload, chunks) = encoder.finish()?.finish();
    out.flush()?;
    Ok(Manifest {
        format: FORMAT,
        encoding: Encoding::Full,
        from: None,
        to: hasher.finish(),
        payload,
        window_log: Limits::WINDOW_LOG,
        memory: Limits::STREAM_MEMORY,
        work: 0,
        scratch: 0,
        chunks,
    })
}

/// Makes a delta from `old` to `new` and writes it to `out`. Holds both images and an index of 16
/// bytes per byte of `old` in memory; the caller decides whether that fits.
pub fn make_bsdiff(old: &[u8], new: &[u8], out: impl Write) -> Result<Manifest, MakeError> {
    let mut encoder = encoder(ChunkWriter::new(out, Limits::DELTA_CHUNK))?;
    bsdiff::diff(old, new, &mut encoder)?;
    let (mut out, payload, chunks) = encoder.finish()?.finish();
    out.flush()?;
    Ok(Manifest {
        format: FORMAT,
        encoding: Encoding::Bsdiff,
        from: Some(Image {
            sha256: sha256(old),
            length: old.len() as u64,
        }),
        to: Image {
            sha256: sha256(new),
            length: new.len() as u64,
        },
        payload,
        window_log: Limits::WINDOW_LOG,
        memory: Limits::STREAM_MEMORY,
        work: 0,
        scratch: 0,
        chunks,
    })
}

fn encoder<W: Write>(out: W) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(out, LEVEL)?;
    encoder.window_log(Limits::WINDOW_LOG)?;
    encoder.include_checksum(false)?;
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_cut_where_they_should_be_whatever_the_writes() {
        let mut writer = ChunkWriter::new(Vec::new(), 4);
        for piece in [&b"abcdef"[..], b"g", b"hij"] {
            writer.write_all(piece).unwrap();
        }
        let (bytes, whole, chunks) = writer.finish();
        assert_eq!(bytes, b"abcdefghij");
        assert_eq!(
            whole,
            Image {
                sha256: sha256(b"abcdefghij"),
                length: 10
            }
        );
        let lengths: Vec<u32> = chunks.iter().map(|c| c.length).collect();
        assert_eq!(lengths, [4, 4, 2]);
        assert_eq!(chunks[1].sha256, sha256(b"efgh"));
    }

    #[test]
    fn an_empty_image_has_no_chunks() {
        let manifest = make_raw(&mut &b""[..]).unwrap();
        assert!(manifest.chunks.is_empty());
        assert!(manifest.check(&Limits::default()).is_ok());
    }
}

//! Opened images: compressed streams in both images are unpacked before they are compared, and
//! repacked, to the same bytes, on the way out.
//!
//! ```text
//! payload  "TGo1", coded length (u32), length of the recipe (u32), the recipe (zstd),
//!          then the payload of `quick` or `dense` between the two opened images
//! recipe   most tokens of a part
//!          streams of the old image:  count, then for each: gap, packed, unpacked
//!          parts of the new image:    count, then for each: gap, continues, packed, unpacked,
//!                                     length of its corrections
//!          corrections, one after the other
//! ```
//!
//! Numbers are LEB128. A gap is the bytes between the stream before and this one, which are left as
//! they are in both images. The old image is unpacked into a file beforehand. Each frame of the new
//! one is placed after it, and repacked from there when the models that made it are gone, so that
//! the memory for the one and for the other is never taken together.

mod closer;
pub(crate) mod recipe;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek as _, Write};

use flate2::bufread::DeflateDecoder;

use super::head::MAX_CODED;
use super::payload::Assembler;
use super::window::OldUnreadable;
use crate::error::ApplyError;
use crate::sink::Sink;
use crate::source::ReadAt;
use closer::{Closer, Closing};
use recipe::{MAX_RECIPE, Recipe, Stream};

/// First bytes of a payload between opened images.
pub(crate) const MAGIC: &[u8; 4] = b"TGo1";
/// Number of bytes before the recipe.
const HEAD: usize = 12;

fn malformed(what: &'static str) -> ApplyError {
    ApplyError::Decode(what.into())
}

/// Input of an apply, and its bounds.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) old: &'a dyn ReadAt,
    pub(crate) old_length: u64,
    pub(crate) new_length: u64,
    pub(crate) memory: u64,
    /// Size of the file that it needs in bytes, from the manifest; 0 if images are used as they
    /// are.
    pub(crate) scratch: u64,
}

/// Applies a payload of `quick` or `dense`, between images as they are or between opened ones.
pub(crate) struct Engine<'a> {
    ground: Ground<'a>,
    file: Option<&'a File>,
    pending: Vec<u8>,
    running: Option<(Assembler<'a>, Option<Closer<'a>>)>,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(ground: Ground<'a>) -> Result<Self, ApplyError> {
        let mut running = None;
        if ground.scratch == 0 {
            let (old, new) = (ground.old_length, ground.new_length);
            running = Some((Assembler::new(ground.old, old, new, ground.memory)?, None));
        }
        Ok(Self {
            ground,
            file: None,
            pending: Vec::new(),
            running,
        })
    }

    /// Sets the file into which the old image is unpacked.
    pub(crate) fn set_file(&mut self, file: &'a File) {
        self.file = Some(file);
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8], sink: &mut dyn Sink) -> Result<(), ApplyError> {
        while self.running.is_none() && !bytes.is_empty() {
            let wanted = self.wanted()?;
            let take = (wanted - self.pending.len()).min(bytes.len());
            self.pending.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.pending.len() == self.wanted()? {
                self.running = Some(self.begin()?);
            }
        }
        match &mut self.running {
            Some((assembler, None)) => assembler.push(bytes, sink),
            Some((assembler, Some(closer))) => assembler.push(bytes, &mut Closing { closer, sink }),
            None => Ok(()),
        }
    }

    pub(crate) fn finish(&self) -> Result<(), ApplyError> {
        match &self.running {
            Some((assembler, closer)) => {
                assembler.finish()?;
                let done = closer.as_ref().is_none_or(Closer::is_done);
                done.then_some(()).ok_or(malformed("it ends early"))
            }
            None => Err(malformed("it ends early")),
        }
    }

    fn number(&self, at: usize) -> Option<u32> {
        let bytes: &[u8; 4] = self.pending.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(*bytes))
    }

    /// Number of bytes up to the end of the recipe, as far as it is known.
    fn wanted(&self) -> Result<usize, ApplyError> {
        let Some(_) = self.number(HEAD - 4) else {
            return Ok(HEAD);
        };
        let coded = self.number(4).filter(|coded| *coded <= MAX_CODED);
        let coded = coded.ok_or(malformed("its recipe is too large"))?;
        Ok(HEAD + coded as usize)
    }

    fn begin(&mut self) -> Result<(Assembler<'a>, Option<Closer<'a>>), ApplyError> {
        let pending = std::mem::take(&mut self.pending);
        let ground = self.ground;
        let made = pending
            .get(8..HEAD)
            .and_then(|b| b.try_into().ok())
            .map_or(u32::MAX, u32::from_le_bytes);
        if !pending.starts_with(MAGIC) || made > MAX_RECIPE {
            return Err(malformed("its head"));
        }
        let recipe = zstd::bulk::decompress(&pending[HEAD..], made as usize)
            .ok()
            .filter(|bytes| bytes.len() == made as usize)
            .and_then(|bytes| Recipe::from_bytes(&bytes));
        drop(pending);
        let recipe = recipe.ok_or(malformed("its recipe"))?;
        let opened_old = recipe.old_opened(ground.old_length);
        let opened_new = recipe.new_opened(ground.new_length);
        let (Some(opened_old), Some(opened_new)) = (opened_old, opened_new) else {
            return Err(malformed("its recipe"));
        };
        if recipe.scratch(ground.old_length, ground.new_length) != Some(ground.scratch) {
            return Err(malformed("it unpacks more than its manifest states"));
        }
        let memory = ground.memory.checked_sub(recipe.resident(made as usize));
        let memory = memory.filter(|memory| recipe.packing() <= *memory);
        let memory = memory.ok_or(malformed("it needs more memory than allowed"))?;
        let file = self.file.ok_or(ApplyError::NoScratch)?;
        unpack(ground, &recipe.old, file)?;
        let assembler = Assembler::new(file, opened_old, opened_new, memory)?;
        Ok((
            assembler,
            Some(Closer::new(recipe, opened_new, (file, opened_old))),
        ))
    }
}

/// Unpacks the old image into a file.
fn unpack(ground: Ground<'_>, streams: &[Stream], file: &File) -> Result<(), ApplyError> {
    let mut out = BufWriter::with_capacity(64 << 10, file);
    let begun = file.set_len(0).and_then(|()| out.rewind());
    begun.map_err(ApplyError::Scratch)?;
    let mut at = 0;
    for stream in streams {
        copy(&mut range(ground, at, u64::from(stream.gap)), &mut out)?;
        at += u64::from(stream.gap);
        let packed = range(ground, at, u64::from(stream.packed));
        at += u64::from(stream.packed);
        // Reading one byte more than expected detects a stream that is too long.
        let unpacked = u64::from(stream.unpacked);
        let mut decoder = DeflateDecoder::new(packed).take(unpacked + 1);
        if copy(&mut decoder, &mut out)? != unpacked {
            return Err(malformed("the old image is not packed as it says"));
        }
    }
    copy(&mut range(ground, at, ground.old_length - at), &mut out)?;
    out.flush().map_err(ApplyError::Scratch)
}

fn range(ground: Ground<'_>, at: u64, length: u64) -> impl BufRead + '_ {
    let whole = Sequential {
        old: ground.old,
        at,
        end: at + length,
    };
    BufReader::with_capacity(32 << 10, whole)
}

/// Copies to the end; the error tells which side failed.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<u64, ApplyError> {
    let mut buffer = [0; 16 << 10];
    let mut sum = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(sum),
            Ok(read) => read,
            Err(e) => {
                return Err(match e.downcast::<OldUnreadable>() {
                    Ok(OldUnreadable(cause)) => ApplyError::ReadOld(cause),
                    Err(_) => malformed("the old image is not packed as it says"),
                });
            }
        };
        to.write_all(&buffer[..read]).map_err(ApplyError::Scratch)?;
        sum += read as u64;
    }
}

/// Reads a range of the old image from beginning to end.
struct Sequential<'a> {
    old: &'a dyn ReadAt,
    at: u64,
    end: u64,
}

impl Read for Sequential<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let count = left.min(buf.len());
        self.old
            .read_exact_at(&mut buf[..count], self.at)
            .map_err(|e| io::Error::other(OldUnreadable(e)))?;
        self.at += count as u64;
        Ok(count)
    }
}

//! The payload of `quick` and `dense`: a head, then elements that each state their length.
//!
//! ```text
//! head     "TGd2", encoding, log_buckets, log_history, layout, covers (u32), frames (u32)
//! element  coded length (u32), length of what it makes (u32), coded bytes
//! ```
//!
//! The first element is the layout, the second the covers, the others are frames. Numbers are
//! little-endian. Models are reset for each frame, so that an interrupted apply resumes at the last
//! one.

use std::io;

use super::coder::Decoder;
use super::control;
use super::covers::{Cover, CoverMap};
use super::dense::{Dense, Output};
use super::head::{Coding, HEAD, Head, LAYOUT_UNIT, MAX_CODED, MAX_FRAME, MAX_LAYOUT};
use super::layout::Layout;
use super::layout_wire;
use super::numbers::{Modelled, Reader};
use super::quick::{Feed, Quick, STREAMS};
use super::window::OldUnreadable;
use crate::error::ApplyError;
use crate::sink::Sink;
use crate::source::ReadAt;

/// Consumes a payload as it arrives and makes the image.
pub(crate) struct Assembler<'a> {
    old: &'a dyn ReadAt,
    old_length: u64,
    new_length: u64,
    max_memory: u64,
    /// Bytes received and not yet used.
    pending: Vec<u8>,
    state: State,
    /// Number of bytes of the new image made so far.
    made: u64,
    /// Number of frames still to come.
    frames: u32,
}

enum State {
    Head,
    Layout(Head),
    Covers(Head, Layout),
    Frames(Head, Layout, Vec<Cover>, CoverMap),
}

fn malformed(what: &'static str) -> ApplyError {
    ApplyError::Decode(what.into())
}

impl<'a> Assembler<'a> {
    pub(crate) fn new(
        old: &'a dyn ReadAt,
        old_length: u64,
        new_length: u64,
        max_memory: u64,
    ) -> Result<Self, ApplyError> {
        // The maker makes none: its suffix array counts in signed 32-bit numbers.
        const TOO_LONG: u64 = 1 << 31;
        if old_length >= TOO_LONG || new_length >= TOO_LONG {
            return Err(malformed(
                "images of 2 GiB and more are not supported by this encoding",
            ));
        }
        Ok(Self {
            old,
            old_length,
            new_length,
            max_memory,
            pending: Vec::new(),
            state: State::Head,
            made: 0,
            frames: 0,
        })
    }

    /// Consumes the next bytes of the payload.
    pub(crate) fn push(&mut self, mut bytes: &[u8], sink: &mut dyn Sink) -> Result<(), ApplyError> {
        while !bytes.is_empty() {
            let wanted = self.wanted()?;
            let take = (wanted - self.pending.len()).min(bytes.len());
            self.pending.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.pending.len() == self.wanted()? {
                self.element(sink)?;
            }
        }
        Ok(())
    }

    /// Checks that the payload is complete.
    pub(crate) fn finish(&self) -> Result<(), ApplyError> {
        let whole = matches!(self.state, State::Frames(..))
            && self.frames == 0
            && self.pending.is_empty()
            && self.made == self.new_length;
        if whole {
            Ok(())
        } else {
            Err(malformed("it ends early"))
        }
    }

    /// Number of bytes of the element being collected, as far as it is known.
    fn wanted(&self) -> Result<usize, ApplyError> {
        if matches!(self.state, State::Head) {
            return Ok(HEAD);
        }
        if matches!(self.state, State::Frames(..)) && self.frames == 0 {
            return Err(malformed("it has more data than its head states"));
        }
        let Some((coded, _)) = self.lengths() else {
            return Ok(8);
        };
        if coded > MAX_CODED {
            return Err(malformed("an element is too large"));
        }
        Ok(8 + coded as usize)
    }

    /// Coded length of the element being collected, and length of what it makes.
    fn lengths(&self) -> Option<(u32, u32)> {
        let bytes: &[u8; 8] = self.pending.get(..8)?.try_into().ok()?;
        let both = u64::from_le_bytes(*bytes);
        Some((both as u32, (both >> 32) as u32))
    }

    fn element(&mut self, sink: &mut dyn Sink) -> Result<(), ApplyError> {
        let mut pending = std::mem::take(&mut self.pending);
        let state = std::mem::replace(&mut self.state, State::Head);
        self.state = match state {
            State::Head => {
                let head = Head::from_bytes(&pending).ok_or(malformed("its head"))?;
                if head.memory() > self.max_memory {
                    return Err(malformed("it needs more memory than allowed"));
                }
                self.frames = head.frames;
                State::Layout(head)
            }
            other => {
                let (body, made) = match (pending.get(8..), pending.get(4..8)) {
                    (Some(body), Some(&[a, b, c, d])) => (body, u32::from_le_bytes([a, b, c, d])),
                    _ => return Err(malformed("an element is truncated")),
                };
                self.body(other, body, made, sink)?
            }
        };
        pending.clear();
        self.pending = pending;
        Ok(())
    }

    fn body(
        &mut self,
        state: State,
        body: &[u8],
        made: u32,
        sink: &mut dyn Sink,
    ) -> Result<State, ApplyError> {
        Ok(match state {
            State::Head => return Err(malformed("its head")),
            State::Layout(head) => {
                let bytes = unpack(body, made)?;
                let layout = layout_wire::read(&bytes, u64::from(head.layout) * LAYOUT_UNIT)
                    .ok_or(malformed("its layout"))?;
                let inside = layout
                    .regions
                    .last()
                    .is_none_or(|r| u64::from(r.end) <= self.old_length);
                if !inside || layout.memory() > u64::from(head.layout) * LAYOUT_UNIT {
                    return Err(malformed("its layout"));
                }
                State::Covers(head, layout)
            }
            State::Covers(head, layout) => {
                let covers = self.covers(head, body, made)?;
                let map = CoverMap::new(&covers, &layout.beyond);
                State::Frames(head, layout, covers, map)
            }
            State::Frames(head, layout, covers, map) => {
                let end = self.made + u64::from(made);
                if made > MAX_FRAME || end > self.new_length {
                    return Err(malformed("a frame is too long"));
                }
                if !sink.kept(u64::from(made))? {
                    let (from, to) = (self.made as u32, end as u32);
                    let mut out = Pieces::new(sink);
                    let done = frame(
                        head.coding,
                        self,
                        &layout,
                        &covers,
                        &map,
                        body,
                        from,
                        to,
                        &mut out,
                    );
                    out.finish(done)?;
                }
                sink.frame_done()?;
                self.made = end;
                self.frames -= 1;
                State::Frames(head, layout, covers, map)
            }
        })
    }

    fn covers(&self, head: Head, body: &[u8], made: u32) -> Result<Vec<Cover>, ApplyError> {
        let count = head.covers as usize;
        let covers = match head.coding {
            Coding::Dense(_) => {
                let mut bits = Decoder::new(body);
                let mut numbers = Modelled::new(&mut bits);
                control::covers(&mut numbers, &[], count, self.old_length, self.new_length)
            }
            Coding::Quick => {
                let bytes = unpack(body, made)?;
                let mut numbers = Reader::new(&bytes);
                control::covers(&mut numbers, &[], count, self.old_length, self.new_length)
            }
        };
        covers.ok_or(malformed("its covers"))
    }
}

/// Decompresses a small element of known length.
fn unpack(body: &[u8], made: u32) -> Result<Vec<u8>, ApplyError> {
    if made > MAX_LAYOUT.max(MAX_CODED * 4) {
        return Err(malformed("an element is too large"));
    }
    zstd::bulk::decompress(body, made as usize)
        .ok()
        .filter(|bytes| bytes.len() == made as usize)
        .ok_or(malformed("an element cannot be decompressed"))
}

#[expect(clippy::too_many_arguments, reason = "all that a frame rests on")]
fn frame<O: Output>(
    coding: Coding,
    assembler: &Assembler<'_>,
    layout: &Layout,
    covers: &[Cover],
    map: &CoverMap,
    body: &[u8],
    from: u32,
    to: u32,
    out: &mut O,
) -> io::Result<()> {
    let old_length = assembler.old_length;
    match coding {
        Coding::Dense(size) => {
            let mut bits = Decoder::new(body);
            let mut dense = Dense::new(layout, covers, map, old_length, size);
            dense.range(&mut bits, assembler.old, from, to, out)?;
            if bits.overrun() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(())
        }
        Coding::Quick => {
            let mut feed = Feed::new(split(body)?)?;
            let mut quick = Quick::new(layout, covers, map, old_length);
            quick.range(&mut feed, assembler.old, from, to, out)
        }
    }
}

/// Splits a quick frame into its streams: three lengths, then the four streams.
fn split(body: &[u8]) -> io::Result<[&[u8]; STREAMS]> {
    let cut = || io::Error::from(io::ErrorKind::InvalidData);
    let mut rest = body.get(4 * (STREAMS - 1)..).ok_or_else(cut)?;
    let mut parts: [&[u8]; STREAMS] = [&[]; STREAMS];
    for (index, part) in parts.iter_mut().enumerate().take(STREAMS - 1) {
        let at = 4 * index;
        let length: [u8; 4] = body
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .ok_or_else(cut)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > rest.len() {
            return Err(cut());
        }
        (*part, rest) = rest.split_at(length);
    }
    parts[STREAMS - 1] = rest;
    Ok(parts)
}

/// Passes bytes on in pieces; keeps the sink's own error, which `io::Error` cannot carry.
struct Pieces<'s> {
    sink: &'s mut dyn Sink,
    buffer: Vec<u8>,
    error: Option<ApplyError>,
}

impl<'s> Pieces<'s> {
    fn new(sink: &'s mut dyn Sink) -> Self {
        Self {
            sink,
            buffer: Vec::with_capacity(32 << 10),
            error: None,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Err(error) = self.sink.bytes(&self.buffer) {
            self.error = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, done: io::Result<()>) -> Result<(), ApplyError> {
        let done = done.and_then(|()| self.flush());
        match (done, self.error) {
            (_, Some(error)) => Err(error),
            (Err(error), None) => Err(match error.downcast::<OldUnreadable>() {
                Ok(OldUnreadable(cause)) => ApplyError::ReadOld(cause),
                Err(_) => malformed("a frame"),
            }),
            (Ok(()), None) => Ok(()),
        }
    }
}

impl Output for Pieces<'_> {
    #[inline]
    fn known(&self, _: u32) -> u8 {
        0
    }

    #[inline]
    fn put(&mut self, byte: u8) -> io::Result<()> {
        self.buffer.push(byte);
        if self.buffer.len() == 32 << 10 {
            self.flush()?;
        }
        Ok(())
    }

    fn put_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let take = bytes.len().min((32 << 10) - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.buffer.len() == 32 << 10 {
                self.flush()?;
            }
        }
        Ok(())
    }
}

/// Appends an element.
#[cfg(feature = "make")]
pub(crate) fn put_element(out: &mut impl io::Write, coded: &[u8], made: u32) -> io::Result<()> {
    let length = u32::try_from(coded.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&made.to_le_bytes())?;
    out.write_all(coded)
}

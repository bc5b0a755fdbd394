//! Repacks the streams of the new image, frame by frame.

use std::fs::File;
use std::io::{Cursor, Seek as _, SeekFrom, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use preflate_rs::RecreateStreamProcessor;

use super::malformed;
use super::recipe::{Part, Recipe};
use crate::error::ApplyError;
use crate::sink::Sink;
use crate::source::ReadAt as _;

/// Number of pass-through bytes that are read at once.
const PIECE: usize = 32 << 10;

/// Position in the opened image, and the bytes held for repacking.
pub(super) struct Closer<'a> {
    file: &'a File,
    /// Offset in the file of the bytes held of a frame, and their number.
    base: u64,
    held: u64,
    parts: Vec<Part>,
    corrections: Vec<u8>,
    /// Index of the next or current part, and offset of its corrections.
    next: usize,
    correction: usize,
    /// Number of pass-through bytes before the next part, or after the last.
    gap: u64,
    /// Number of bytes after the last part.
    tail: u64,
    packer: Option<RecreateStreamProcessor>,
}

impl<'a> Closer<'a> {
    /// Creates a closer for a recipe whose new image is `opened` bytes long when opened, with a
    /// file and the offset in it from which on a frame may be held.
    pub(super) fn new(recipe: Recipe, opened: u64, (file, base): (&'a File, u64)) -> Self {
        let sizes = recipe.new.iter().map(|part| part.place);
        let inside: u64 = sizes
            .map(|place| u64::from(place.gap) + u64::from(place.unpacked))
            .sum();
        let mut closer = Self {
            file,
            base,
            held: 0,
            parts: recipe.new,
            corrections: recipe.corrections,
            next: 0,
            correction: 0,
            gap: 0,
            tail: opened.saturating_sub(inside),
            packer: None,
        };
        closer.gap = closer.gap_before(0);
        closer
    }

    pub(super) fn is_done(&self) -> bool {
        self.next == self.parts.len() && self.gap == 0 && self.held == 0
    }

    fn gap_before(&self, part: usize) -> u64 {
        let part = self.parts.get(part);
        part.map_or(self.tail, |part| u64::from(part.place.gap))
    }

    /// Returns whether the part continues the stream of the one before it.
    fn continues(&self, part: usize) -> bool {
        self.parts.get(part).is_some_and(|part| part.continues)
    }

    /// Moves on to the next part.
    fn advance(&mut self) {
        if let Some(part) = self.parts.get(self.next) {
            self.correction += part.corrections as usize;
        }
        self.next += 1;
        self.gap = self.gap_before(self.next);
        if !self.continues(self.next) {
            self.packer = None;
        }
    }

    fn read(&self, at: u64, length: u64) -> Result<Vec<u8>, ApplyError> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let read = self.file.read_exact_at(&mut bytes, self.base + at);
        read.map_err(ApplyError::Scratch)?;
        Ok(bytes)
    }

    /// Appends bytes to those that are held. Seeks each time: on some systems, reading the old
    /// image moves the file's position.
    fn hold(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        let mut file = self.file;
        let sought = file.seek(SeekFrom::Start(self.base + self.held));
        let written = sought.and_then(|_| file.write_all(bytes));
        written.map_err(ApplyError::Scratch)?;
        self.held += bytes.len() as u64;
        Ok(())
    }

    /// Passes on the held bytes, except the beginning of a part whose end is in the next frame.
    fn release(&mut self, sink: &mut dyn Sink) -> Result<(), ApplyError> {
        let mut at = 0;
        while at < self.held {
            let left = self.held - at;
            if self.gap > 0 {
                let pass = self.gap.min(left).min(PIECE as u64);
                sink.bytes(&self.read(at, pass)?)?;
                self.gap -= pass;
                at += pass;
                continue;
            }
            let part = self.parts.get(self.next).ok_or(ApplyError::TooLong)?;
            let unpacked = u64::from(part.place.unpacked);
            if unpacked > left {
                let begun = self.read(at, left)?;
                self.held = 0;
                return self.hold(&begun);
            }
            let packed = self.pack(&self.read(at, unpacked)?)?;
            sink.bytes(&packed)?;
            self.advance();
            at += unpacked;
        }
        self.held = 0;
        Ok(())
    }

    /// Repacks a part.
    fn pack(&mut self, plain: &[u8]) -> Result<Vec<u8>, ApplyError> {
        let part = self.parts.get(self.next).ok_or(malformed("its recipe"))?;
        let end = self.correction + part.corrections as usize;
        let corrections = self.corrections.get(self.correction..end);
        let corrections = corrections.ok_or(malformed("its recipe"))?;
        let mut packing = match self.packer.take() {
            Some(packing) if part.continues => packing,
            None if part.continues => return Err(malformed("its recipe")),
            _ => RecreateStreamProcessor::new(),
        };
        // The library was written for its own output: on damaged corrections it may panic. Nothing
        // of it is used afterwards.
        let done = catch_unwind(AssertUnwindSafe(|| {
            let made = packing.recompress(&mut Cursor::new(plain), corrections);
            made.map(|(bytes, _)| (bytes, packing))
        }));
        match done {
            Ok(Ok((bytes, packing))) if bytes.len() == part.place.packed as usize => {
                self.packer = Some(packing);
                Ok(bytes)
            }
            _ => Err(malformed("a stream cannot be repacked")),
        }
    }

    /// Finds how far `length` bytes of the opened image reach, if both ends lie between streams:
    /// returns the next part, the gap left before it, and the number of bytes of the image itself.
    fn reach(&self, mut length: u64) -> Option<(usize, u64, u64)> {
        if self.held > 0 || (self.gap == 0 && self.continues(self.next)) {
            return None;
        }
        let (mut next, mut gap, mut packed) = (self.next, self.gap, 0);
        loop {
            if length <= gap {
                let within = length < gap || !self.continues(next);
                return within.then_some((next, gap - length, packed + length));
            }
            packed += gap;
            length -= gap;
            let place = self.parts.get(next)?.place;
            length = length.checked_sub(u64::from(place.unpacked))?;
            packed += u64::from(place.packed);
            next += 1;
            gap = self.gap_before(next);
        }
    }
}

/// A closer and the sink that it writes to.
pub(super) struct Closing<'c, 'a> {
    pub(super) closer: &'c mut Closer<'a>,
    pub(super) sink: &'c mut dyn Sink,
}

impl Sink for Closing<'_, '_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        self.closer.hold(bytes)
    }

    fn kept(&mut self, length: u64) -> Result<bool, ApplyError> {
        let Some((next, gap, packed)) = self.closer.reach(length) else {
            return Ok(false);
        };
        if !self.sink.kept(packed)? {
            return Ok(false);
        }
        while self.closer.next < next {
            self.closer.advance();
        }
        self.closer.gap = gap;
        Ok(true)
    }

    fn frame_done(&mut self) -> Result<(), ApplyError> {
        self.closer.release(self.sink)?;
        self.sink.frame_done()
    }
}

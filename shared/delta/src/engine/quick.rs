//! The quick coder: the same copies and references as `dense`, with whatever they do not predict in
//! four streams compressed with zstd.
//!
//! - *runs*: number of bytes that are as predicted before the next that is not (LEB128)
//! - *changes*: difference to add to each byte that is not
//! - *literals*: the bytes of gaps
//! - *references*: difference to add to each mispredicted reference, four or eight bytes

use std::io::{self, Read};

use super::covers::{self, Cover, CoverMap, Step};
use super::dense::Output;
use super::layout::Layout;
#[cfg(feature = "make")]
use super::numbers::put;
use super::predict::{Found, Predictor};
use super::refs::{self, BEFORE};
use super::window::{BLOCK, Window};
use crate::ReadAt;

/// Number of streams in a frame.
pub(crate) const STREAMS: usize = 4;
/// zstd window of each stream, as a power of two.
pub(crate) const WINDOW_LOG: u32 = 19;
const RUNS: usize = 0;
const CHANGES: usize = 1;
const LITERALS: usize = 2;
const REFERENCES: usize = 3;

/// Writes or reads what is not predicted. References count as one byte in a run.
pub(crate) trait Streams {
    /// Codes whether the next byte is as predicted; `same` is known to the writer only.
    fn same(&mut self, same: bool) -> io::Result<bool>;
    /// Codes one byte of a stream.
    fn byte(&mut self, stream: usize, byte: u8) -> io::Result<u8>;
    /// Reads how many of the next `most` bytes are as predicted, or at least how many are known to
    /// be without reading on. The writer does not know and returns 0.
    fn ahead(&mut self, most: u32) -> io::Result<u32>;
}

/// Collects the streams of a frame.
#[cfg(feature = "make")]
#[derive(Debug, Default)]
pub(crate) struct Collect {
    pub(crate) streams: [Vec<u8>; STREAMS],
    run: u64,
}

#[cfg(feature = "make")]
impl Collect {
    /// Ends the last run.
    pub(crate) fn finish(&mut self) {
        put(&mut self.streams[RUNS], self.run);
        self.run = 0;
    }
}

#[cfg(feature = "make")]
impl Streams for Collect {
    fn same(&mut self, same: bool) -> io::Result<bool> {
        if same {
            self.run += 1;
        } else {
            self.finish();
        }
        Ok(same)
    }

    fn byte(&mut self, stream: usize, byte: u8) -> io::Result<u8> {
        self.streams[stream].push(byte);
        Ok(byte)
    }

    fn ahead(&mut self, _: u32) -> io::Result<u32> {
        Ok(0)
    }
}

/// Reads the streams of a frame.
pub(crate) struct Feed<'a> {
    streams: [Source<'a>; STREAMS],
    /// Number of bytes that are as predicted before the next that is not; `None` before it is read.
    run: Option<u64>,
}

type Source<'a> = io::BufReader<zstd::stream::read::Decoder<'a, &'a [u8]>>;

impl<'a> Feed<'a> {
    /// Opens the zstd frames of the four streams.
    pub(crate) fn new(parts: [&'a [u8]; STREAMS]) -> io::Result<Self> {
        let open = |part: &'a [u8]| -> io::Result<Source<'a>> {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(part)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Ok(io::BufReader::with_capacity(32 << 10, decoder))
        };
        let [a, b, c, d] = parts;
        Ok(Self {
            streams: [open(a)?, open(b)?, open(c)?, open(d)?],
            run: None,
        })
    }

    #[inline]
    fn next(source: &mut Source<'a>) -> io::Result<u8> {
        // The common case, without a call.
        if let Some(&byte) = source.buffer().first() {
            io::BufRead::consume(source, 1);
            return Ok(byte);
        }
        let mut byte = [0];
        source.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = Self::next(&mut self.streams[RUNS])?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

impl Streams for Feed<'_> {
    #[inline]
    fn same(&mut self, _: bool) -> io::Result<bool> {
        if self.ahead(1)? == 1 {
            return Ok(true);
        }
        self.run = None;
        Ok(false)
    }

    #[inline]
    fn byte(&mut self, stream: usize, _: u8) -> io::Result<u8> {
        Self::next(&mut self.streams[stream])
    }

    #[inline]
    fn ahead(&mut self, most: u32) -> io::Result<u32> {
        let run = match self.run {
            Some(run) => run,
            None => self.number()?,
        };
        let taken = run.min(u64::from(most));
        self.run = Some(run - taken);
        Ok(taken as u32)
    }
}

/// Codes the bytes of one frame.
#[derive(Debug)]
pub(crate) struct Quick<'a> {
    covers: &'a [Cover],
    old_length: u64,
    predictor: Predictor<'a>,
}

impl<'a> Quick<'a> {
    pub(crate) fn new(
        layout: &'a Layout,
        covers: &'a [Cover],
        map: &'a CoverMap,
        old_length: u64,
    ) -> Self {
        Self {
            covers,
            old_length,
            predictor: Predictor::new(layout, map),
        }
    }

    /// Codes the bytes from `from` to `to` of the new image.
    pub(crate) fn range<S: Streams, O: Output>(
        &mut self,
        streams: &mut S,
        old: &dyn ReadAt,
        from: u32,
        to: u32,
        out: &mut O,
    ) -> io::Result<()> {
        let mut window = Window::new();
        for step in covers::walk(self.covers, from, to) {
            match step {
                Step::Copy(part) => self.copy(streams, old, part, &mut window, out)?,
                Step::Gap { from, to, .. } => {
                    for position in from..to {
                        let byte = streams.byte(LITERALS, out.known(position))?;
                        out.put(byte)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn copy<S: Streams, O: Output>(
        &mut self,
        streams: &mut S,
        old: &dyn ReadAt,
        cover: Cover,
        window: &mut Window,
        out: &mut O,
    ) -> io::Result<()> {
        let mut done = 0u32;
        let mut region = self.predictor.region_at(cover.old);
        while done < cover.length {
            window.load(old, self.old_length, cover.old + done)?;
            let count = (cover.length - done).min(BLOCK as u32);
            let (mut i, mut quiet) = (0u32, 0u32);
            while i < count {
                let offset = cover.old + done + i;
                if offset >= region.end {
                    region = self.predictor.region_at(offset);
                }
                let here = BEFORE + i as usize;
                let position = cover.new + done + i;
                let left = cover.length - done - i;
                let bytes = window.bytes();
                if i >= quiet {
                    let most = (count - i).min(region.end - offset);
                    let inside = offset.wrapping_sub(region.start);
                    quiet = i + refs::quiet(bytes, here, inside, region.kind, most);
                }
                if i < quiet {
                    let run = streams.ahead(quiet - i)?;
                    if run > 0 {
                        out.put_all(&bytes[here..here + run as usize])?;
                        i += run;
                        continue;
                    }
                } else if let Some(found) = self
                    .predictor
                    .find(bytes, here, offset, &region, position, left)
                {
                    self.reference(streams, &found, position, out)?;
                    i += found.reference.form.width() as u32;
                    continue;
                }
                let expected = bytes[here];
                let real = out.known(position);
                let byte = if streams.same(real == expected)? {
                    expected
                } else {
                    let change = streams.byte(CHANGES, real.wrapping_sub(expected))?;
                    expected.wrapping_add(change)
                };
                out.put(byte)?;
                i += 1;
            }
            done += i;
        }
        Ok(())
    }

    fn reference<S: Streams, O: Output>(
        &mut self,
        streams: &mut S,
        found: &Found,
        position: u32,
        out: &mut O,
    ) -> io::Result<()> {
        let width = found.reference.form.width();
        let mut real = [0u8; 8];
        for (index, byte) in real.iter_mut().enumerate().take(width) {
            *byte = out.known(position + index as u32);
        }
        let first = found.first.bytes;
        let mut bytes = first;
        if !streams.same(real[..width] == first[..width])? {
            // The difference as one number: a small one has small bytes.
            let (real, guess) = (u64::from_le_bytes(real), u64::from_le_bytes(first));
            let mask = if width == 8 {
                u64::MAX
            } else {
                u64::from(u32::MAX)
            };
            let difference = (real & mask).wrapping_sub(guess & mask).to_le_bytes();
            let mut told = [0u8; 8];
            for (told, byte) in told.iter_mut().zip(difference).take(width) {
                *told = streams.byte(REFERENCES, byte)?;
            }
            let value = (guess & mask).wrapping_add(u64::from_le_bytes(told)) & mask;
            bytes = value.to_le_bytes();
        }
        self.predictor.learn(found, bytes, position);
        for &byte in &bytes[..width] {
            out.put(byte)?;
        }
        Ok(())
    }
}

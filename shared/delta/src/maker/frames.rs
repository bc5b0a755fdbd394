//! Codes the layout, the covers and the frames; the frames on all cores.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::options::DeltaOptions;
use crate::MakeError;
use crate::engine::coder::Encoder;
use crate::engine::control;
use crate::engine::covers::{Cover, CoverMap};
use crate::engine::dense::{Dense, Output};
use crate::engine::head::{Coding, MAX_CODED, MAX_FRAME};
use crate::engine::layout::Layout;
use crate::engine::layout_wire;
use crate::engine::numbers::{Modelled, Writer};
use crate::engine::payload::put_element;
use crate::engine::quick::{Collect, Quick, WINDOW_LOG};

/// Approximate cost of a byte in a gap, relative to a byte in a copy.
const GAP_COST: u64 = 10;

/// One frame, coded.
pub(super) struct Frame {
    pub(super) coded: Vec<u8>,
    pub(super) made: u32,
}

/// Result of coding a part of the image; `None` until there is one.
type Coded = Option<Result<Vec<Frame>, MakeError>>;

/// A payload that is being coded.
pub(super) struct Job<'a> {
    pub(super) layout: &'a Layout,
    pub(super) covers: &'a [Cover],
    pub(super) map: &'a CoverMap,
    pub(super) old: &'a [u8],
    pub(super) new: &'a [u8],
    pub(super) coding: Coding,
}

struct Known<'a>(&'a [u8]);

impl Output for Known<'_> {
    #[inline]
    fn known(&self, position: u32) -> u8 {
        self.0.get(position as usize).copied().unwrap_or(0)
    }

    #[inline]
    fn put(&mut self, _: u8) -> io::Result<()> {
        Ok(())
    }
}

impl Job<'_> {
    /// Chooses where frames begin and end, so that each costs about as much and none is too large
    /// when coded.
    fn bounds(&self, frame: u64) -> Vec<(u32, u32)> {
        let length = self.new.len() as u32;
        // Limits of a frame on its work, its bytes of copies and its bytes of gaps.
        let (most_work, most_copied, most_gaps) = match self.coding {
            Coding::Quick => (frame, frame / 4, u64::from(MAX_CODED / 2)),
            Coding::Dense(_) => (frame, u64::from(MAX_FRAME / 2), u64::from(MAX_CODED)),
        };
        let mut bounds = Vec::new();
        let (mut from, mut at, mut copied, mut gaps) = (0u32, 0u32, 0u64, 0u64);
        let mut covers = self.covers.iter().peekable();
        while at < length {
            // To the next edge of a cover, or a piece of the way.
            let (end, copy) = match covers.peek() {
                Some(c) if c.new <= at => (c.new + c.length, true),
                Some(c) => (c.new, false),
                None => (length, false),
            };
            let step = (end - at).min(16 << 10);
            at += step;
            *(if copy { &mut copied } else { &mut gaps }) += u64::from(step);
            while covers.next_if(|c| c.new + c.length <= at).is_some() {}
            let work = copied + gaps * GAP_COST;
            if work >= most_work || copied >= most_copied || gaps >= most_gaps || at == length {
                bounds.push((from, at));
                (from, copied, gaps) = (at, 0, 0);
            }
        }
        bounds
    }

    /// Codes all frames on several threads; also returns the work of decoding them.
    pub(super) fn frames(
        &self,
        options: &DeltaOptions<'_>,
    ) -> Result<(Vec<Frame>, u64), MakeError> {
        let bounds = self.bounds(options.frame.max(1 << 16));
        let next = AtomicUsize::new(0);
        let (done, work) = (AtomicU64::new(0), AtomicU64::new(0));
        let made: Mutex<Vec<Coded>> = Mutex::new(bounds.iter().map(|_| None).collect());
        std::thread::scope(|scope| {
            for _ in 0..options.threads.clamp(1, bounds.len().max(1)) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(&(from, to)) = bounds.get(index) else {
                            return;
                        };
                        let frame = options.stop().and_then(|()| self.fitting(from, to, &work));
                        if let Ok(mut made) = made.lock() {
                            made[index] = Some(frame);
                        }
                        let total = done.fetch_add(u64::from(to - from), Ordering::Relaxed);
                        if let Some(progress) = options.progress {
                            progress(total + u64::from(to - from));
                        }
                    }
                });
            }
        });
        let made = made.into_inner().map_err(|_| MakeError::Cancelled)?;
        let mut frames = Vec::new();
        for frame in made {
            frames.extend(frame.ok_or(MakeError::Cancelled)??);
        }
        Ok((frames, work.into_inner()))
    }

    /// Codes a part of the image as one frame, or as several if one would be too large.
    fn fitting(&self, from: u32, to: u32, work: &AtomicU64) -> Result<Vec<Frame>, MakeError> {
        let (coded, bits) = self.frame(from, to)?;
        if coded.len() <= MAX_CODED as usize {
            work.fetch_add(bits, Ordering::Relaxed);
            return Ok(vec![Frame {
                coded,
                made: to - from,
            }]);
        }
        let middle = from + (to - from) / 2;
        let mut frames = self.fitting(from, middle, work)?;
        frames.extend(self.fitting(middle, to, work)?);
        Ok(frames)
    }

    fn frame(&self, from: u32, to: u32) -> Result<(Vec<u8>, u64), MakeError> {
        let old_length = self.old.len() as u64;
        let mut out = Known(self.new);
        match self.coding {
            Coding::Dense(size) => {
                let mut bits = Encoder::new();
                let mut dense = Dense::new(self.layout, self.covers, self.map, old_length, size);
                dense.range(&mut bits, &self.old, from, to, &mut out)?;
                let count = bits.count();
                Ok((bits.finish(), count))
            }
            Coding::Quick => {
                let mut streams = Collect::default();
                let mut quick = Quick::new(self.layout, self.covers, self.map, old_length);
                quick.range(&mut streams, &self.old, from, to, &mut out)?;
                streams.finish();
                let mut coded = Vec::new();
                let mut bodies = Vec::new();
                let last = streams.streams.len() - 1;
                for (index, stream) in streams.streams.iter().enumerate() {
                    let body = compress(stream)?;
                    if index < last {
                        coded.extend_from_slice(&(body.len() as u32).to_le_bytes());
                    }
                    bodies.extend_from_slice(&body);
                }
                coded.extend_from_slice(&bodies);
                Ok((coded, u64::from(to - from) / 50))
            }
        }
    }

    /// Writes the layout and the covers.
    pub(super) fn control(&self, out: &mut impl Write) -> Result<(), MakeError> {
        let layout = layout_wire::write(self.layout);
        put_element(out, &compress(&layout)?, layout.len() as u32)?;
        let (coded, made) = code_covers(self.coding, self.covers, self.old, self.new)?;
        Ok(put_element(out, &coded, made)?)
    }
}

/// Codes covers; also returns their decompressed length.
pub(super) fn code_covers(
    coding: Coding,
    covers: &[Cover],
    old: &[u8],
    new: &[u8],
) -> io::Result<(Vec<u8>, u32)> {
    let (old, new) = (old.len() as u64, new.len() as u64);
    match coding {
        Coding::Dense(_) => {
            let mut bits = Encoder::new();
            let mut numbers = Modelled::new(&mut bits);
            control::covers(&mut numbers, covers, covers.len(), old, new);
            Ok((bits.finish(), 0))
        }
        Coding::Quick => {
            let mut numbers = Writer::default();
            control::covers(&mut numbers, covers, covers.len(), old, new);
            Ok((compress(&numbers.bytes)?, numbers.bytes.len() as u32))
        }
    }
}

pub(super) fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 19)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.include_checksum(false)?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    encoder.include_contentsize(true)?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

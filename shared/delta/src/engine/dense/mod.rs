//! The dense coder: every byte of the new image is predicted from its place in the old one, from
//! references that are followed, and from what was written before; the rest is coded by integer
//! context mixing. The same code serves both directions.

mod code;
mod gap;
mod reference;
mod run;
mod x86;

use std::io;

use super::coder::Bits;
use super::covers::{self, Cover, CoverMap, Step};
use super::history::{self, History};
use super::layout::{Kind, Layout, Region};
use super::model::{ByteModel, EXPECTED, Expected, FLAG_INPUTS, FlagModel, ORDERS};
use super::predict::Predictor;
use super::refs::BEFORE;
use super::window::{BLOCK, Window};
use crate::ReadAt;

/// Memory of the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// log2 of the buckets (32 bytes) of each of the byte model's tables, 8 to 20.
    pub(crate) log_buckets: u32,
    /// log2 of the number of bytes of history in which matches are found, 16 to 24.
    pub(crate) log_history: u32,
}

impl Size {
    /// Fits a controller.
    #[cfg(feature = "make")]
    pub(crate) const SMALL: Self = Self {
        log_buckets: 14,
        log_history: 20,
    };
    /// Fits a controller that also repacks streams.
    #[cfg(feature = "make")]
    pub(crate) const TINY: Self = Self {
        log_buckets: 13,
        log_history: 20,
    };
    /// Fits a controller when there are few copies.
    #[cfg(feature = "make")]
    pub(crate) const MEDIUM: Self = Self {
        log_buckets: 15,
        log_history: 20,
    };
    /// Fits machines with 130 MiB to spare.
    #[cfg(feature = "make")]
    pub(crate) const LARGE: Self = Self {
        log_buckets: 18,
        log_history: 23,
    };

    /// Memory that the models take, in bytes.
    pub(crate) fn memory(self) -> u64 {
        let tables = (ORDERS as u64 * 32) << self.log_buckets;
        let history = (1u64 << self.log_history) + (4 << history::places(self.log_history));
        // Flags, learned references, mixers and buffers.
        tables + history + (9 << 18)
    }
}

/// Source of the new bytes (for the maker) and their destination (for both).
pub(crate) trait Output {
    /// Returns the byte at a position of the new image; the applier does not know it and returns 0.
    fn known(&self, position: u32) -> u8;
    /// Takes the byte at the next position.
    fn put(&mut self, byte: u8) -> io::Result<()>;
    /// Takes the bytes at the next positions.
    fn put_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.iter().try_for_each(|&byte| self.put(byte))
    }
}

/// Codes the bytes of one frame.
#[derive(Debug)]
pub(crate) struct Dense<'a> {
    covers: &'a [Cover],
    old_length: u64,
    predictor: Predictor<'a>,
    bytes: ByteModel,
    same: FlagModel,
    runs: FlagModel,
    refs: FlagModel,
    history: History,
    /// Bit set of the last bytes of copies that were not as expected, the newest in bit 0.
    misses: u64,
    /// Number of expected bytes in a row.
    run: u32,
    /// Number of bytes ahead among which one is not as expected.
    doubt: u32,
    /// Bit set of the last runs with a byte that was not as expected, the newest in bit 0.
    run_hits: u32,
    /// Bit sets, by form, of the last references that were as predicted, the newest in bit 0.
    ref_hits: [u32; 13],
    /// Last destination that was spelled, by class of reference.
    last_spelled: [u32; reference::CLASSES],
    /// The last two references of tables: old destination, new destination, new offset.
    last_tables: [Option<(u32, u32, u32)>; 2],
    /// Predictions for the current reference from the order of the table.
    strides: [Option<[u8; 8]>; 2],
    /// Change of the last byte that was not as expected: what it became minus what it was.
    last_change: u8,
}

/// Position of a byte of a copy.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Index in the window.
    here: usize,
    /// Offset in the old image.
    offset: u32,
    /// Offset in the new image.
    position: u32,
    region: Region,
}

pub(super) fn mix(a: u32, b: u32) -> u32 {
    (a.wrapping_add(b.wrapping_mul(0x9E37_79B1)))
        .wrapping_mul(0x85EB_CA6B)
        .rotate_left(13)
}

/// Hashes each part with a tag and its order.
fn hashed(tag: u32, parts: &[u32; ORDERS]) -> [u32; ORDERS] {
    let mut contexts = [0; ORDERS];
    for (order, (context, part)) in contexts.iter_mut().zip(parts).enumerate() {
        *context = mix(tag + order as u32, *part);
    }
    contexts
}

fn kind_class(kind: Kind) -> u32 {
    match kind {
        Kind::Plain => 0,
        Kind::Text => 1,
        Kind::X86 => 2,
        Kind::Arm64 => 3,
        Kind::Thumb => 4,
        Kind::Arm => 5,
        Kind::Words32 | Kind::Relative32 | Kind::Numbers32 | Kind::Records(_) => 6,
        Kind::Words64 => 7,
    }
}

fn run_class(run: u32) -> u32 {
    match run {
        0..=7 => run,
        8..=11 => 8,
        12..=15 => 9,
        16..=23 => 10,
        24..=31 => 11,
        32..=63 => 12,
        64..=255 => 13,
        256..=1023 => 14,
        _ => 15,
    }
}

impl<'a> Dense<'a> {
    /// Creates models that have seen nothing.
    pub(crate) fn new(
        layout: &'a Layout,
        covers: &'a [Cover],
        map: &'a CoverMap,
        old_length: u64,
        size: Size,
    ) -> Self {
        Self {
            covers,
            old_length,
            predictor: Predictor::new(layout, map),
            bytes: ByteModel::new(size.log_buckets),
            same: FlagModel::new(15, 256, 62_000),
            runs: FlagModel::new(10, 64, 60_000),
            refs: FlagModel::new(12, 64, 50_000),
            history: History::new(size.log_history),
            misses: 0,
            run: 0,
            doubt: 0,
            run_hits: 0,
            ref_hits: [0; 13],
            last_spelled: [0; reference::CLASSES],
            last_tables: [None; 2],
            strides: [None; 2],
            last_change: 0,
        }
    }

    /// Codes the bytes from `from` to `to` of the new image.
    pub(crate) fn range<B: Bits, O: Output>(
        &mut self,
        bits: &mut B,
        old: &dyn ReadAt,
        from: u32,
        to: u32,
        out: &mut O,
    ) -> io::Result<()> {
        let mut window = Window::new();
        for step in covers::walk(self.covers, from, to) {
            match step {
                Step::Copy(part) => self.copy(bits, old, part, &mut window, out)?,
                Step::Gap {
                    from,
                    to,
                    before,
                    after,
                } => {
                    let gap = gap::Gap {
                        from,
                        to,
                        before,
                        after,
                    };
                    self.gap(bits, old, gap, &mut window, out)?;
                }
            }
        }
        Ok(())
    }

    fn copy<B: Bits, O: Output>(
        &mut self,
        bits: &mut B,
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
            let mut i = 0u32;
            while i < count {
                let offset = cover.old + done + i;
                if offset >= region.end {
                    region = self.predictor.region_at(offset);
                }
                let place = Place {
                    here: BEFORE + i as usize,
                    offset,
                    position: cover.new + done + i,
                    region,
                };
                let found = self.predictor.find(
                    window.bytes(),
                    place.here,
                    offset,
                    &region,
                    place.position,
                    cover.length - done - i,
                );
                if let Some(found) = found {
                    self.reference(bits, &found, place.position, out)?;
                    i += found.reference.form.width() as u32;
                } else {
                    let most = (count - i).min(region.end - offset);
                    let run = self.whole_run(bits, window.bytes(), place, most, out)?;
                    if run == 0 {
                        self.one(bits, window.bytes(), place, out)?;
                    }
                    i += run.max(1);
                }
            }
            // A reference may reach beyond the block.
            done += i;
        }
        Ok(())
    }

    /// Codes one byte of a copy that is not part of a reference.
    fn one<B: Bits, O: Output>(
        &mut self,
        bits: &mut B,
        window: &[u8],
        place: Place,
        out: &mut O,
    ) -> io::Result<()> {
        let here = place.here;
        let expected = window[here];
        let real = out.known(place.position);
        let phase = place.offset.wrapping_sub(place.region.start) & 7;
        let kind = kind_class(place.region.kind);
        let run = run_class(self.run);
        let aligned = here - (phase & 3) as usize;
        let word = u32::from_le_bytes([
            window[aligned],
            window[aligned + 1],
            window[aligned + 2],
            window[aligned + 3],
        ]);
        let (e, next) = (u32::from(expected), u32::from(window[here + 1]));
        let missed = |back: u32| (self.misses >> back & 1) as u32;
        // Whether the same field of earlier records has changed.
        let spread = missed(3)
            | missed(7) << 1
            | missed(11) << 2
            | missed(15) << 3
            | missed(23) << 4
            | missed(0) << 5;
        let around =
            next | u32::from(window[here - 1]) << 8 | e << 16 | u32::from(window[here - 2]) << 24;
        let c4 = self.history.c4;
        let doubt = u32::from(self.doubt > 0);
        self.doubt = self.doubt.saturating_sub(1);
        let contexts: [u32; FLAG_INPUTS] = [
            doubt << 11 | run << 7 | kind << 4 | phase,
            (self.misses & 0xFFFF) as u32,
            e << 8 | (self.misses & 3) as u32 | kind << 3,
            mix(e << 16 | c4 & 0xFFFF, kind),
            mix(word, 4 + (phase & 3)),
            doubt << 12 | spread << 6 | kind << 3 | phase & 3,
            mix(e << 8 | c4 & 0xFF, next << 8 | kind),
            mix(around, run.min(9)),
        ];
        let class = (run << 4 | kind << 1 | u32::from(self.history.matched() > 0)) as usize;
        let hit = self.same.code(bits, real == expected, &contexts, class);
        self.misses = self.misses << 1 | u64::from(!hit);
        let byte = if hit {
            self.run = self.run.saturating_add(1);
            expected
        } else {
            self.run = 0;
            self.doubt = 0;
            let byte = self.changed(bits, expected, next, word, place, real);
            self.last_change = byte.wrapping_sub(expected);
            byte
        };
        out.put(byte)?;
        self.history.push(byte);
        Ok(())
    }

    /// Codes a byte that differs from the expected one.
    fn changed<B: Bits>(
        &mut self,
        bits: &mut B,
        expected: u8,
        next: u32,
        word: u32,
        place: Place,
        real: u8,
    ) -> u8 {
        let kind = kind_class(place.region.kind);
        let phase = place.offset.wrapping_sub(place.region.start) & 7;
        let e = u32::from(expected);
        // Neighbouring fields often change by the same amount.
        let likely = expected.wrapping_add(self.last_change);
        let h = &self.history;
        let contexts = hashed(
            0x6000_0000,
            &[
                e << 8 | h.c4 & 0xFF,
                h.c4 & 0xFFFF,
                h.c4 & 0xFF_FFFF,
                mix(word, phase & 3),
                e << 16 | h.c4 & 0xFFFF,
                u32::from(likely) << 8 | e,
                next << 8 | e,
                mix(next << 8 | e, h.c4 & 0xFF),
                mix(h.word, e),
            ],
        );
        let guesses: [Expected; EXPECTED] = [
            Expected {
                byte: likely,
                trust: 62,
            },
            Expected {
                byte: expected,
                trust: 63,
            },
            h.expected(),
        ];
        let last = h.c4 as u8;
        self.bytes
            .code(bits, real, &contexts, guesses, (8 + kind) as usize, last)
    }
}

//! Coding of bytes that no copy covers. The copies on both sides still guide: the bytes they would
//! give, continued into the gap, are often right or nearly so.

use std::io;

use super::{Dense, Output, hashed, kind_class, mix, x86};
use crate::ReadAt;
use crate::engine::coder::Bits;
use crate::engine::covers::Cover;
use crate::engine::layout::Kind;
use crate::engine::model::{EXPECTED, Expected};
use crate::engine::refs::BEFORE;
use crate::engine::window::{BLOCK, Window};

/// Number of bytes by which a copy is continued into the bytes around it; within a block.
const REACH: usize = BLOCK / 2;

/// Number of bytes before a gap in which the beginning of an instruction is found.
const SYNC: usize = 24;

/// A gap, or the part of it inside a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) before: Option<Cover>,
    pub(super) after: Option<Cover>,
}

/// Bytes that a continued copy would give.
#[derive(Debug, Default)]
struct Guide {
    bytes: Vec<Option<u8>>,
    kind: Option<Kind>,
}

/// Bytes that the copies on both sides of a gap would give.
#[derive(Debug)]
struct Guides {
    /// Kind of the bytes they copy.
    kind: Kind,
    before: Guide,
    after: Guide,
    /// Position in the gap where the guide from behind begins.
    after_at: usize,
    /// Recent success of each.
    score: [u8; 2],
}

/// Highest score.
const BEST: u8 = 30;

impl Guides {
    /// Returns their predictions of `N` bytes at a position in the gap.
    fn at<const N: usize>(&self, at: usize) -> [Option<[u8; N]>; 2] {
        let after = at.checked_sub(self.after_at);
        [(&self.before, Some(at)), (&self.after, after)].map(|(guide, at)| {
            let told = guide.bytes.get(at?..at? + N)?;
            let mut bytes = [0; N];
            for (byte, told) in bytes.iter_mut().zip(told) {
                *byte = (*told)?;
            }
            Some(bytes)
        })
    }

    /// Updates their scores by what came.
    fn judge<T: PartialEq>(&mut self, told: [Option<T>; 2], came: &T, gain: u8, loss: u8) {
        for (score, guide) in self.score.iter_mut().zip(told) {
            if let Some(guide) = guide {
                *score = if guide == *came {
                    (*score + gain).min(BEST)
                } else {
                    *score - *score / loss
                };
            }
        }
    }
}

impl Dense<'_> {
    /// Returns the bytes at `old_from` and after, as they would be at `new_from`.
    fn guide(
        &mut self,
        old: &dyn ReadAt,
        old_from: i64,
        new_from: u32,
        count: usize,
        window: &mut Window,
    ) -> io::Result<Guide> {
        let mut bytes = vec![None; count];
        // Bytes before the beginning of the image are skipped.
        let skip = usize::try_from(-old_from).unwrap_or(0).min(count);
        let begin = old_from + skip as i64;
        let room = (self.old_length as i64 - begin).clamp(0, count as i64) as usize;
        let end = (skip + room).min(count);
        if skip >= end {
            return Ok(Guide { bytes, kind: None });
        }
        window.load(old, self.old_length, begin as u32)?;
        let mut region = self.predictor.region_at(begin as u32);
        let mut i = skip;
        while i < end {
            let offset = (old_from + i as i64) as u32;
            if offset >= region.end {
                region = self.predictor.region_at(offset);
            }
            let here = BEFORE + i - skip;
            let found = self.predictor.find(
                window.bytes(),
                here,
                offset,
                &region,
                new_from + i as u32,
                (end - i) as u32,
            );
            if let Some(found) = found {
                let width = found.reference.form.width();
                for (byte, &foretold) in bytes[i..i + width].iter_mut().zip(&found.first.bytes) {
                    *byte = Some(foretold);
                }
                i += width;
            } else {
                bytes[i] = Some(window.bytes()[here]);
                i += 1;
            }
        }
        Ok(Guide {
            bytes,
            kind: Some(region.kind),
        })
    }

    /// Codes a gap.
    pub(super) fn gap<B: Bits, O: Output>(
        &mut self,
        bits: &mut B,
        old: &dyn ReadAt,
        gap: Gap,
        window: &mut Window,
        out: &mut O,
    ) -> io::Result<()> {
        let length = (gap.to - gap.from) as usize;
        let reach = length.min(REACH);
        let before = match gap.before {
            Some(before) => {
                let start = i64::from(before.old) + i64::from(gap.from) - i64::from(before.new);
                self.guide(old, start, gap.from, reach, window)?
            }
            None => Guide::default(),
        };
        let after = match gap.after {
            Some(after) => {
                let from = i64::from(gap.to) - reach as i64;
                let start = i64::from(after.old) + from - i64::from(after.new);
                self.guide(old, start, from as u32, reach, window)?
            }
            None => Guide::default(),
        };
        let kind = before
            .kind
            .filter(|k| *k != Kind::Plain)
            .or(after.kind)
            .unwrap_or(Kind::Plain);
        let mut guides = Guides {
            kind,
            before,
            after,
            after_at: length - reach,
            score: [8; 2],
        };
        let arm = matches!(kind, Kind::Arm64 | Kind::Arm);
        let mut place = x86::Instructions::default();
        if kind == Kind::X86 {
            // An instruction begins somewhere in the bytes before: following them soon finds where.
            for back in (1..=SYNC).rev() {
                place.push(self.history.byte(back));
            }
        }
        let mut i = 0;
        while i < length {
            let position = gap.from + i as u32;
            let whole = i + 4 <= length;
            let destination = (whole && kind == Kind::X86).then(|| place.destination());
            let destination = destination.flatten();
            if destination.is_some() || whole && arm && position.is_multiple_of(4) {
                let told = guides.at::<4>(i).map(|g| g.map(u32::from_le_bytes));
                let mut real = [0; 4];
                for (at, byte) in (position..).zip(&mut real) {
                    *byte = out.known(at);
                }
                let real = u32::from_le_bytes(real);
                let score = guides.score;
                let word = match destination {
                    Some(class) => self.destination(bits, class, told, score, position, real),
                    None => self.instruction(bits, kind, told, score, position, real),
                };
                if arm {
                    guides.judge(told, &word, 8, 2);
                }
                for byte in word.to_le_bytes() {
                    out.put(byte)?;
                    self.history.push(byte);
                    place.push(byte);
                }
                i += 4;
                continue;
            }
            let told = guides.at::<1>(i).map(|g| g.map(|[byte]| byte));
            let real = out.known(position);
            let byte = self.literal(bits, &place, &guides, told, position, real);
            guides.judge(told, &byte, 2, 4);
            out.put(byte)?;
            self.history.push(byte);
            place.push(byte);
            i += 1;
        }
        self.run = 0;
        Ok(())
    }

    /// Codes one byte of a gap.
    fn literal<B: Bits>(
        &mut self,
        bits: &mut B,
        place: &x86::Instructions,
        guides: &Guides,
        told: [Option<u8>; 2],
        position: u32,
        real: u8,
    ) -> u8 {
        let (kind, score) = (guides.kind, guides.score);
        let class = kind_class(kind);
        let text = kind == Kind::Text;
        let h = &self.history;
        let phase = position & 3;
        let of = |guide: Option<u8>| guide.map_or(0, |byte| u32::from(byte) | 1 << 8);
        let (f, b) = (of(told[0]), of(told[1]));
        let words = if text {
            [
                mix(h.word, h.last_word),
                mix(h.word, 1),
                mix(h.word, h.c4 & 0xFF),
            ]
        } else if kind == Kind::X86 {
            let context = place.context();
            [
                mix(context, place.before()),
                mix(context, h.c4 & 0xFF),
                mix(context, place.before() & 0xFFFF),
            ]
        } else {
            [
                h.c4 >> 8 & 0xFFFF | phase << 16,
                h.c4 & 0xFFFF_0000 | phase,
                h.c4 >> 24 | (h.c8 & 0xFF) << 8 | phase << 16,
            ]
        };
        let contexts = hashed(
            0x7000_0000,
            &[
                h.c4 & 0xFF | class << 8,
                h.c4 & 0xFFFF,
                h.c4 & 0xFF_FFFF,
                h.c4,
                mix(h.c4, h.c8 & 0xFFFF),
                words[0],
                words[1],
                f << 12 | b | 1 << 30,
                words[2],
            ],
        );
        let trust = |guide: Option<u8>, score: u8| Expected {
            byte: guide.unwrap_or(0),
            trust: if guide.is_some() { 1 + score } else { 0 },
        };
        let guesses: [Expected; EXPECTED] = [
            trust(told[0], score[0]),
            trust(told[1], score[1]),
            h.expected(),
        ];
        let selector = if kind == Kind::X86 {
            // The role of a byte in its instruction tells most about which contexts are right.
            32 + place.state()
        } else {
            16 + usize::from(score[0] > 12)
                + 2 * usize::from(score[1] > 12)
                + 4 * usize::from(h.matched() > 15)
                + 8 * usize::from(text)
        };
        let last = h.c4 as u8;
        self.bytes
            .code(bits, real, &contexts, guesses, selector, last)
    }
}

//! Coding what no copy covers. The copies on both sides still guide: what they would give, went
//! they on into the gap, is often right or nearly so.

use std::io;

use super::{Dense, Output, hashed, kind_class, mix};
use crate::ReadAt;
use crate::engine::coder::Bits;
use crate::engine::covers::Cover;
use crate::engine::layout::Kind;
use crate::engine::model::{EXPECTED, Expected};
use crate::engine::refs::BEFORE;
use crate::engine::window::{BLOCK, Window};

/// How far a copy is thought to go on into the bytes around it; within a block.
const REACH: usize = BLOCK / 2;

/// A gap, or what a frame has of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) before: Option<Cover>,
    pub(super) after: Option<Cover>,
}

/// The bytes that a copy would give.
#[derive(Debug, Default)]
struct Guide {
    bytes: Vec<Option<u8>>,
    kind: Option<Kind>,
}

impl Dense<'_> {
    /// What stands at `old_from` and behind, as it would be at `new_from`.
    fn guide(
        &mut self,
        old: &dyn ReadAt,
        old_from: i64,
        new_from: u32,
        count: usize,
        window: &mut Window,
    ) -> io::Result<Guide> {
        let mut bytes = vec![None; count];
        // What lies before the image's begin is skipped.
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
        let forward = match gap.before {
            Some(before) => {
                let start = i64::from(before.old) + i64::from(gap.from) - i64::from(before.new);
                self.guide(old, start, gap.from, reach, window)?
            }
            None => Guide::default(),
        };
        let backward = match gap.after {
            Some(after) => {
                let from = i64::from(gap.to) - reach as i64;
                let start = i64::from(after.old) + from - i64::from(after.new);
                self.guide(old, start, from as u32, reach, window)?
            }
            None => Guide::default(),
        };
        let kind = forward
            .kind
            .filter(|k| *k != Kind::Plain)
            .or(backward.kind)
            .unwrap_or(Kind::Plain);
        // How well each guide has done lately.
        let mut score = [8u8; 2];
        for i in 0..length {
            let position = gap.from + i as u32;
            let ahead = forward.bytes.get(i).copied().flatten();
            let behind = (i + reach)
                .checked_sub(length)
                .and_then(|at| backward.bytes.get(at).copied().flatten());
            let byte = self.literal(
                bits,
                [ahead, behind],
                score,
                kind,
                position,
                out.known(position),
            );
            for (score, guide) in score.iter_mut().zip([ahead, behind]) {
                if let Some(guide) = guide {
                    *score = if guide == byte {
                        (*score + 2).min(30)
                    } else {
                        *score * 3 / 4
                    };
                }
            }
            out.put(byte)?;
            self.history.push(byte);
        }
        self.run = 0;
        Ok(())
    }

    /// Codes one byte of a gap.
    fn literal<B: Bits>(
        &mut self,
        bits: &mut B,
        guides: [Option<u8>; 2],
        score: [u8; 2],
        kind: Kind,
        position: u32,
        real: u8,
    ) -> u8 {
        let class = kind_class(kind);
        let text = kind == Kind::Text;
        let h = &self.history;
        let phase = position & 3;
        let told = |guide: Option<u8>| guide.map_or(0, |byte| u32::from(byte) | 1 << 8);
        let (f, b) = (told(guides[0]), told(guides[1]));
        let words = if text {
            [
                mix(h.word, h.last_word),
                mix(h.word, 1),
                mix(h.word, h.c4 & 0xFF),
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
            trust(guides[0], score[0]),
            trust(guides[1], score[1]),
            h.expected(),
        ];
        let selector = 16
            + usize::from(score[0] > 12)
            + 2 * usize::from(score[1] > 12)
            + 4 * usize::from(h.matched() > 15)
            + 8 * usize::from(text);
        let last = h.c4 as u8;
        self.bytes
            .code(bits, real, &contexts, guesses, selector, last)
    }
}

//! Runs of expected bytes, each coded by one flag: most of most images is unchanged.

use std::io;

use super::{Dense, Output, Place, kind_class, mix, run_class};
use crate::engine::coder::Bits;
use crate::engine::model::FLAG_INPUTS;
use crate::engine::refs::may_begin;

/// Number of expected bytes in a row from which on more are likely to follow.
const BEFORE: u32 = 24;
/// Maximum length of a run.
const MOST: u32 = 64;
/// Minimum length of a run that is worth a flag of its own.
const LEAST: u32 = 8;

impl Dense<'_> {
    /// Codes whether the next bytes of a copy are all as expected: as many as there are before the
    /// next possible reference, at most `most`. Returns how many were coded; 0 if the bytes must be
    /// coded one by one.
    pub(super) fn whole_run<B: Bits, O: Output>(
        &mut self,
        bits: &mut B,
        window: &[u8],
        place: Place,
        most: u32,
        out: &mut O,
    ) -> io::Result<u32> {
        if self.run < BEFORE || self.doubt > 0 {
            return Ok(0);
        }
        let inside = place.offset.wrapping_sub(place.region.start);
        let kind = place.region.kind;
        let length = (1..most.min(MOST))
            .find(|&i| may_begin(window, place.here + i as usize, inside + i, kind))
            .unwrap_or(most.min(MOST));
        if length < LEAST {
            return Ok(0);
        }
        let expected = &window[place.here..place.here + length as usize];
        let same = (place.position..)
            .zip(expected)
            .all(|(position, &byte)| out.known(position) == byte);
        let class = kind_class(kind);
        let run = run_class(self.run);
        let size = length / 8;
        let (first, last) = (u32::from(expected[0]), self.history.c4 & 0xFF);
        let contexts: [u32; FLAG_INPUTS] = [
            run << 4 | size,
            class << 4 | size,
            self.run_hits & 0xFF,
            class << 4 | self.run_hits & 15,
            mix(first << 8 | last, size),
            mix(self.history.word, class),
            mix(self.history.c4, class),
            (self.misses & 0xF) as u32 | run << 4,
        ];
        let whole = self
            .runs
            .code(bits, same, &contexts, (run << 2 | size >> 1 & 3) as usize);
        self.run_hits = self.run_hits << 1 | u32::from(!whole);
        if !whole {
            self.doubt = length;
            return Ok(0);
        }
        self.run = self.run.saturating_add(length);
        self.misses = if length >= 64 {
            0
        } else {
            self.misses << length
        };
        self.history.push_all(expected);
        out.put_all(expected)?;
        Ok(length)
    }
}

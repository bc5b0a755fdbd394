//! Coding of instructions in gaps: the position of a byte in its instruction says more about it
//! than the bytes before do, and the same destination is called from many places.

use super::reference::Told;
use super::{Dense, hashed, mix};
use crate::engine::coder::Bits;
use crate::engine::layout::Kind;
use crate::engine::model::{EXPECTED, Expected};
use crate::engine::refs::Form;

/// Form of a whole instruction that is a reference, if its destination is worth learning.
fn form(kind: Kind, word: u32) -> Option<Form> {
    match kind {
        Kind::Arm64 if word >> 26 == 0b10_0101 => Some(Form::Branch26),
        Kind::Arm64 if word & 0x9F00_0000 == 0x9000_0000 => Some(Form::Page),
        Kind::Arm if word & 0x0F00_0000 == 0x0B00_0000 => Some(Form::ArmBranch),
        _ => None,
    }
}

impl Dense<'_> {
    /// Converts a word to one with an absolute destination, or with `back` to a relative one.
    fn whole(&mut self, kind: Kind, word: u32, position: u32, back: bool) -> u32 {
        match form(kind, word) {
            Some(form) => self.predictor.absolute(form, word, position, back),
            None => word,
        }
    }

    /// Codes an ARM instruction, starting with its highest byte, which identifies it. `told` is
    /// what the guides predict, `score` how well they did lately.
    pub(super) fn instruction<B: Bits>(
        &mut self,
        bits: &mut B,
        kind: Kind,
        told: [Option<u32>; 2],
        score: [u8; 2],
        position: u32,
        real: u32,
    ) -> u32 {
        let real = self.whole(kind, real, position, false);
        let words = [told[0], told[1], self.history.expected_word()]
            .map(|word| word.map(|w| self.whole(kind, w, position, false)));
        let matched = self.history.expected().trust;
        let tag = 0x4000_0000 + u32::from(kind == Kind::Arm) * 256;
        let (last, before) = (self.history.c4.swap_bytes(), self.history.c8.swap_bytes());
        let mut above = 1u32;
        let mut alive = words.map(|w| w.is_some());
        for index in (0..4).rev() {
            let byte_of = |which: usize| words[which].map(|w| (w >> (8 * index)) as u8);
            let told = |which: usize| match byte_of(which) {
                Some(byte) => u32::from(byte) | 1 << 8 | u32::from(alive[which]) << 9,
                None => 0,
            };
            let contexts = hashed(
                tag + index * 16,
                &[
                    above,
                    mix(above, last >> 24),
                    mix(above, last >> 21),
                    mix(above, last),
                    mix(above, last >> 24 | before >> 24 << 8),
                    mix(mix(above, last >> 16), before >> 21),
                    mix(above & 0xFF, told(0) << 12 | told(1)),
                    mix(above, last & 31 | (before & 31) << 8),
                    mix(mix(above, last), before),
                ],
            );
            let trust = [
                1 + (score[0] & !1) + u8::from(alive[0]),
                1 + (score[1] & !1) + u8::from(alive[1]),
                if alive[2] { matched } else { 0 },
            ];
            let expected: [Expected; EXPECTED] =
                std::array::from_fn(|which| match byte_of(which) {
                    Some(byte) => Expected {
                        byte,
                        trust: trust[which],
                    },
                    None => Expected::default(),
                });
            let selector =
                48 + usize::from(alive[0]) + 2 * usize::from(alive[1]) + 4 * index as usize;
            let byte = self.bytes.code(
                bits,
                (real >> (8 * index)) as u8,
                &contexts,
                expected,
                selector,
                above as u8,
            );
            for (which, alive) in alive.iter_mut().enumerate() {
                *alive &= byte_of(which) == Some(byte);
            }
            above = above << 8 | u32::from(byte);
        }
        self.whole(kind, above, position, true)
    }

    /// Codes the distance in an x86-64 instruction to a function or to data.
    pub(super) fn destination<B: Bits>(
        &mut self,
        bits: &mut B,
        (class, form): (u32, Form),
        told: [Option<u32>; 2],
        score: [u8; 2],
        position: u32,
        real: u32,
    ) -> u32 {
        let opcode = u32::from(self.history.c4 as u8);
        let [mut first, mut second] =
            told.map(|word| word.map(|w| self.predictor.absolute(form, w, position, false)));
        if score[1] > score[0] {
            (first, second) = (second, first);
        }
        let told = Told {
            class,
            to: opcode,
            guesses: [first.map(u64::from), second.map(u64::from), None],
            trust: 32,
            width: 4,
        };
        let real = self.predictor.absolute(form, real, position, false);
        let word = self.spelled(bits, &told, u64::from(real)) as u32;
        self.predictor.absolute(form, word, position, true)
    }
}

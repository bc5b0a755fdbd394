//! Coding of references: mostly one flag that says "as predicted".

use std::io;

use super::{Dense, Output, hashed, mix, run_class};
use crate::engine::coder::Bits;
use crate::engine::model::{EXPECTED, Expected, FLAG_INPUTS};
use crate::engine::predict::{Found, Guess};
use crate::engine::refs::Form;

/// Tag of the contexts of the second guess.
const SECOND: u32 = 1 << 11;

impl Dense<'_> {
    /// Codes a reference.
    pub(super) fn reference<B: Bits, O: Output>(
        &mut self,
        bits: &mut B,
        found: &Found,
        position: u32,
        out: &mut O,
    ) -> io::Result<()> {
        let width = found.reference.form.width();
        let mut real = [0u8; 8];
        for (index, byte) in real.iter_mut().enumerate().take(width) {
            *byte = out.known(position + index as u32);
        }
        let form = found.reference.form;
        let table = matches!(form, Form::Self32 | Form::Abs32 { .. } | Form::Abs64 { .. });
        self.strides = [None; 2];
        if table {
            self.strides = self.strides(found, position);
        }
        let bytes = self.foretold(bits, found, real, width, position);
        self.predictor.learn(found, bytes, position);
        if table {
            let to = self.predictor.read(form, bytes, position);
            self.last_tables = [
                Some((found.reference.to, to.unwrap_or(0), position)),
                self.last_tables[0],
            ];
        }
        for &byte in &bytes[..width] {
            out.put(byte)?;
            self.history.push(byte);
        }
        Ok(())
    }

    /// Predictions from the order of a table.
    fn strides(&mut self, found: &Found, position: u32) -> [Option<[u8; 8]>; 2] {
        let mut out = [None; 2];
        let form = found.reference.form;
        if form == Form::Self32
            && let Some((_, to, at)) = self.last_tables[0]
        {
            let back = position.wrapping_sub(at).wrapping_sub(4) as usize;
            let range = self.history.back(back);
            let next = to.wrapping_add(range);
            let aligned = self.predictor.align(next, position);
            out[0] = self.predictor.write(form, found.old, position, aligned);
            out[1] = self.predictor.write(form, found.old, position, next);
            return out;
        }
        for (out, last) in out.iter_mut().zip(&self.last_tables) {
            if let Some((old, new, _)) = *last {
                let to = new.wrapping_add(found.reference.to).wrapping_sub(old);
                *out = self.predictor.write(form, found.old, position, to);
            }
        }
        out
    }

    fn foretold<B: Bits>(
        &mut self,
        bits: &mut B,
        found: &Found,
        real: [u8; 8],
        width: usize,
        position: u32,
    ) -> [u8; 8] {
        let form = found.reference.form.index();
        let Guess {
            bytes: first,
            source,
            ..
        } = found.first;
        let (source, exact) = (u32::from(source), u32::from(found.exact));
        let agree = found
            .both
            .map_or(0, |(a, b)| 1 + u32::from(a.bytes == b.bytes));
        let history = self.ref_hits[form as usize];
        let unchanged = u32::from(first[..width] == found.old[..width]);
        let run = run_class(self.run);
        let contexts: [u32; FLAG_INPUTS] = [
            form << 8 | source << 4 | agree << 2 | exact,
            form << 6 | history & 63,
            (history & 15) << 6 | source << 2 | agree,
            form << 6 | unchanged << 5 | agree << 3 | exact << 1 | (self.misses & 1) as u32,
            mix(found.reference.to, 77),
            (self.misses & 255) as u32 | unchanged << 8,
            run << 6 | source << 2 | exact,
            form << 8 | (history & 3) << 6 | agree << 4 | exact << 2 | unchanged,
        ];
        let class = (source.min(3) << 2 | agree) as usize;
        let hit = self
            .refs
            .code(bits, real[..width] == first[..width], &contexts, class);
        self.ref_hits[form as usize] = history << 1 | u32::from(hit);
        if hit {
            return first;
        }
        let second = match found.both {
            Some((a, b)) if a.bytes[..width] != b.bytes[..width] => Some(b.bytes),
            _ => (unchanged == 0).then_some(found.old),
        };
        if let Some(second) = second {
            let contexts: [u32; FLAG_INPUTS] = [
                SECOND | form << 4 | agree << 2 | exact,
                SECOND | history & 63,
                SECOND | form << 2 | unchanged,
                SECOND | source,
                mix(found.reference.to, 78),
                SECOND | agree,
                SECOND | run,
                SECOND | form << 3 | history & 7,
            ];
            let hit = real[..width] == second[..width];
            if self.refs.code(bits, hit, &contexts, 32 + class) {
                return second;
            }
        }
        self.spell(bits, found, real, width, position)
    }

    /// Codes the bytes of a reference that were not predicted.
    fn spell<B: Bits>(
        &mut self,
        bits: &mut B,
        found: &Found,
        real: [u8; 8],
        width: usize,
        position: u32,
    ) -> [u8; 8] {
        let form = found.reference.form;
        let c4 = self.history.c4;
        // Jumps within a function, whose destination no other reference shares.
        let jump = c4 & 0xFF == 0xE9 || c4 & 0xFFF0 == 0x0F80;
        let (far, class) = match form {
            Form::Rel32 { .. } if jump => (false, JUMP),
            Form::Rel32 { .. } => (true, if c4 & 0xFF == 0xE8 { CALL } else { DATA }),
            Form::Branch26 => (found.old[3] >> 7 == 1, form.index()),
            Form::ThumbBranch | Form::ArmBranch | Form::Page => (true, form.index()),
            _ => (false, form.index()),
        };
        let absolute = |dense: &mut Self, bytes: [u8; 8], back: bool| {
            let value = u64::from_le_bytes(bytes);
            if !far {
                return value;
            }
            let word = dense.predictor.absolute(form, value as u32, position, back);
            value & !0xFFFF_FFFF | u64::from(word)
        };
        let told = Told {
            class,
            to: found.reference.to,
            guesses: [
                Some(absolute(self, found.first.bytes, false)),
                self.strides[0].map(u64::from_le_bytes),
                self.strides[1].map(u64::from_le_bytes),
            ],
            trust: 42,
            width,
        };
        let real = absolute(self, real, false);
        let spelled = self.spelled(bits, &told, real);
        absolute(self, spelled.to_le_bytes(), true).to_le_bytes()
    }

    /// Codes a destination, its most significant byte first.
    pub(super) fn spelled<B: Bits>(&mut self, bits: &mut B, told: &Told, real: u64) -> u64 {
        let last = self.last_spelled[told.class as usize];
        let mut made = 0u64;
        let mut above = 0u32;
        // Guesses that were right in the bytes above.
        let mut alive = told.guesses.map(|guess| guess.is_some());
        for index in (0..told.width).rev() {
            let byte_of = |value: u64| (value >> (8 * index)) as u8;
            let g = told.guesses[0].map_or(0, |guess| u32::from(byte_of(guess)));
            let c4 = self.history.c4;
            let near = u32::from(alive[0]);
            let contexts = hashed(
                0x5000_0000 + (told.class * 8 + index as u32) * 16,
                &[
                    g,
                    g << 8 | above & 255,
                    above,
                    near << 8 | g,
                    mix(told.to, above),
                    mix(c4 & 0xFFFF, above),
                    c4 & 0xFF | g << 8,
                    mix(last, above),
                    near << 16 | g << 8 | c4 & 0xFF,
                ],
            );
            let expected: [Expected; EXPECTED] = std::array::from_fn(|which| {
                let trust = match which {
                    0 => told.trust + 2 * index as u8 + near as u8,
                    _ => 25 + 2 * index as u8,
                };
                match told.guesses[which] {
                    Some(guess) if which == 0 || alive[which] => Expected {
                        byte: byte_of(guess),
                        trust,
                    },
                    _ => Expected::default(),
                }
            });
            let byte = self.bytes.code(
                bits,
                byte_of(real),
                &contexts,
                expected,
                40 + index,
                above as u8,
            );
            for (alive, guess) in alive.iter_mut().zip(told.guesses) {
                *alive &= guess.is_some_and(|guess| byte_of(guess) == byte);
            }
            made = made << 8 | u64::from(byte);
            above = above << 8 | u32::from(byte);
        }
        self.last_spelled[told.class as usize] = above;
        made
    }
}

/// Facts about a destination before it is spelled.
#[derive(Debug)]
pub(super) struct Told {
    /// Class of the reference, below [`CLASSES`].
    pub(super) class: u32,
    /// Old destination, or another value that goes with it.
    pub(super) to: u32,
    /// Guesses of the destination.
    pub(super) guesses: [Option<u64>; EXPECTED],
    /// Trust in the first guess before anything is known.
    pub(super) trust: u8,
    /// Width in bytes.
    pub(super) width: usize,
}

/// Classes of references, beside those of [`Form::index`].
pub(super) const CALL: u32 = 0;
const JUMP: u32 = 13;
pub(super) const DATA: u32 = 14;
/// Number of classes.
pub(super) const CLASSES: usize = 15;

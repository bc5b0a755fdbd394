//! Coding references: mostly one flag that says "as foretold".

use std::io;

use super::{Dense, Output, hashed, mix, run_class};
use crate::engine::coder::Bits;
use crate::engine::model::{Expected, FLAG_INPUTS};
use crate::engine::predict::{Found, Guess};

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
        let bytes = self.foretold(bits, found, real, width);
        self.predictor.learn(found, bytes, position);
        for &byte in &bytes[..width] {
            out.put(byte)?;
            self.history.push(byte);
        }
        Ok(())
    }

    fn foretold<B: Bits>(
        &mut self,
        bits: &mut B,
        found: &Found,
        real: [u8; 8],
        width: usize,
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
        self.spell(bits, found, real, width)
    }

    /// Codes the bytes of a reference that nothing foretold, the most significant first.
    fn spell<B: Bits>(
        &mut self,
        bits: &mut B,
        found: &Found,
        real: [u8; 8],
        width: usize,
    ) -> [u8; 8] {
        let guess = found.first.bytes;
        let form = found.reference.form.index();
        let mut bytes = [0u8; 8];
        let mut above = 0u32;
        // Whether the bytes above were as guessed.
        let mut near = 1u32;
        for index in (0..width).rev() {
            let g = u32::from(guess[index]);
            let c4 = self.history.c4;
            let contexts = hashed(
                0x5000_0000 + (form * 8 + index as u32) * 16,
                &[
                    g,
                    g << 8 | above & 255,
                    above,
                    near << 8 | g,
                    found.reference.to,
                    c4 & 0xFF_FFFF,
                    c4 & 0xFF | g << 8,
                    g << 16 | above & 0xFFFF,
                    near << 16 | g << 8 | c4 & 0xFF,
                ],
            );
            let guesses = [
                Expected {
                    byte: guess[index],
                    trust: 42 + 2 * index as u8 + near as u8,
                },
                Expected::default(),
                Expected::default(),
            ];
            let byte = self.bytes.code(
                bits,
                real[index],
                &contexts,
                guesses,
                40 + index,
                above as u8,
            );
            bytes[index] = byte;
            near = u32::from(near == 1 && byte == guess[index]);
            above = above << 8 | u32::from(byte);
        }
        bytes
    }
}

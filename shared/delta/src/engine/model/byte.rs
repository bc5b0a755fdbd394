//! The model of whole bytes.

use super::counter::Counter;
use super::mixer::{Apm, Mixer};
use super::tables::{ORDERS, Tables, node_update};
use crate::engine::coder::Bits;
use crate::engine::math::{Stretch, squash};

/// Number of sources other than the tables that predict a byte.
pub(crate) const EXPECTED: usize = 3;
const INPUTS: usize = 2 * ORDERS + 2 * EXPECTED;

/// Prediction of a byte by a source other than the tables.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Expected {
    /// The byte.
    pub(crate) byte: u8,
    /// Trust in it, 1 to 63; 0 for none.
    pub(crate) trust: u8,
}

/// Codes whole bytes by mixing many contexts.
#[derive(Debug)]
pub(crate) struct ByteModel {
    tables: Tables,
    /// For each order, confidence and probability of a node: the observed probability.
    indirect: Vec<u16>,
    /// For each prediction, trust and number of bits right so far: the probability that the next
    /// one is.
    follow: Vec<Counter>,
    first: Mixer<INPUTS>,
    second: Mixer<INPUTS>,
    apm: [Apm; 2],
    inputs: [i16; INPUTS],
    stretch: &'static Stretch,
}

const INDIRECT: usize = 16 * 64;

impl ByteModel {
    pub(crate) fn new(log_buckets: u32) -> Self {
        let mut indirect = Vec::with_capacity(ORDERS * INDIRECT);
        for _ in 0..ORDERS {
            for index in 0..INDIRECT {
                let p = ((index as u32 & 63) * 2 + 1) * 512;
                indirect.push(p as u16);
            }
        }
        Self {
            tables: Tables::new(log_buckets),
            indirect,
            follow: vec![Counter::guess(48_000); EXPECTED * 64 * 8],
            first: Mixer::new(64 * 8, 14_000, 10),
            second: Mixer::new(256, 14_000, 10),
            apm: [Apm::new(256 * 4), Apm::new(1 << 10)],
            inputs: [0; INPUTS],
            stretch: Stretch::get(),
        }
    }

    /// Codes one byte. `contexts` are hashes, each of another order; `class` (below 64) selects the
    /// mixing weights; `last` is the byte before.
    pub(crate) fn code<B: Bits>(
        &mut self,
        bits: &mut B,
        byte: u8,
        contexts: &[u32; ORDERS],
        expected: [Expected; EXPECTED],
        class: usize,
        last: u8,
    ) -> u8 {
        // The bits so far, after a leading one.
        let mut node = 1usize & 15;
        let mut so_far = 1usize;
        let mut alive = [false; EXPECTED];
        for (alive, expected) in alive.iter_mut().zip(&expected) {
            *alive = expected.trust > 0;
        }
        for index in 0..8 {
            if index == 0 || index == 4 {
                node = 1;
                let salt = (so_far as u32 - 1).wrapping_mul(0x2545_F491);
                self.tables.select(contexts, salt);
            }
            let mut indirect_at = [0usize; ORDERS];
            for (order, indirect_at) in indirect_at.iter_mut().enumerate() {
                let value = self.tables.nodes[self.tables.at[order] as usize][node];
                let (p, n) = (usize::from(value >> 4), usize::from(value & 15));
                let at = order * INDIRECT + n * 64 + (p >> 6);
                *indirect_at = at;
                self.inputs[2 * order] = self.stretch.coarse(self.indirect[at]);
                self.inputs[2 * order + 1] = ((p as i32 - 2048) >> 2) as i16;
            }
            let mut follow_at = [usize::MAX; EXPECTED];
            for (which, expected) in expected.iter().enumerate() {
                let base = 2 * ORDERS + 2 * which;
                if alive[which] {
                    let at = (which * 64 + usize::from(expected.trust)) * 8 + index;
                    follow_at[which] = at;
                    let p = self.follow[at].p();
                    let one = (expected.byte >> (7 - index)) & 1 == 1;
                    let (s, lean) = (self.stretch.of(p) as i16, ((p - 32_768) >> 6) as i16);
                    self.inputs[base] = if one { s } else { -s };
                    self.inputs[base + 1] = if one { lean } else { -lean };
                } else {
                    self.inputs[base] = 0;
                    self.inputs[base + 1] = 0;
                }
            }
            let s1 = self.first.mix(&self.inputs, class * 8 + index);
            let s2 = self.second.mix(&self.inputs, so_far);
            let (p1, p2) = (squash(s1), squash(s2));
            let s = (s1 + s2) >> 1;
            let p = squash(s);
            let agree = usize::from(alive[0]) | usize::from(alive[1]) << 1;
            let a1 = self.apm[0].refine(s, so_far << 2 | agree);
            let a2 = self.apm[1].refine(
                s,
                (usize::from(last).wrapping_mul(0x2F5) ^ so_far.wrapping_mul(0x1D)) & 1023,
            );
            let last_p = (2 * p + a1 + a2) >> 2;
            let bit = bits.bit((byte >> (7 - index)) & 1 == 1, last_p.clamp(24, 65_512));
            let target = if bit { u16::MAX } else { 0 };
            self.first.learn(&self.inputs, p1, bit);
            self.second.learn(&self.inputs, p2, bit);
            self.apm[0].learn(bit, 6);
            self.apm[1].learn(bit, 6);
            for (order, at) in indirect_at.into_iter().enumerate() {
                let p = &mut self.indirect[at];
                *p = (i32::from(*p) + ((i32::from(target) - i32::from(*p)) >> 6)) as u16;
                node_update(
                    &mut self.tables.nodes[self.tables.at[order] as usize][node],
                    bit,
                );
            }
            for (which, at) in follow_at.iter().enumerate() {
                if *at != usize::MAX {
                    let one = (expected[which].byte >> (7 - index)) & 1 == 1;
                    self.follow[*at].update(one == bit, 255);
                    alive[which] = one == bit;
                }
            }
            node = ((node << 1) | usize::from(bit)) & 15;
            so_far = (so_far << 1) | usize::from(bit);
        }
        (so_far & 255) as u8
    }
}

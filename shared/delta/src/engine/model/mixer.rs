//! The mixer of many predictions into one, and the correction of its result.

use crate::engine::math::{LIMIT, squash};

/// Mixes inputs in the stretched domain with learned weights. Uses 16-bit lanes, so that compilers
/// vectorize the loops.
#[derive(Debug)]
pub(crate) struct Mixer<const N: usize> {
    weights: Vec<[i16; N]>,
    selected: usize,
    rate: i32,
}

/// A weight of one.
const ONE: i32 = 1 << 13;

impl<const N: usize> Mixer<N> {
    /// Creates a mixer; `first` is the initial weight of every input, as a part of 65,536.
    pub(crate) fn new(contexts: usize, first: i32, rate: i32) -> Self {
        Self {
            weights: vec![[((first * ONE) >> 16) as i16; N]; contexts],
            selected: 0,
            rate,
        }
    }

    /// Mixes the inputs in one context; the result is stretched.
    #[inline]
    pub(crate) fn mix(&mut self, inputs: &[i16; N], context: usize) -> i32 {
        self.selected = context;
        let weights = &self.weights[context];
        let mut sum = 0i32;
        for (&x, &w) in inputs.iter().zip(weights) {
            // At most 3071 * 32767 * N: 31 bits for N up to 16, and weights stay far below.
            sum = sum.wrapping_add(i32::from(x) * i32::from(w));
        }
        (sum >> 13).clamp(-LIMIT, LIMIT)
    }

    /// Learns from the result of `mix` (`p` of 65,536) and the actual bit.
    #[inline]
    pub(crate) fn learn(&mut self, inputs: &[i16; N], p: i32, bit: bool) {
        let error = (((i32::from(bit) << 16) - p) * self.rate) >> 4;
        let error = error.clamp(-32_767, 32_767) as i16;
        let weights = &mut self.weights[self.selected];
        for (&x, w) in inputs.iter().zip(weights) {
            let step = (i32::from(x) * i32::from(error) + (1 << 16)) >> 17;
            *w = w.saturating_add(step as i16);
        }
    }
}

/// Corrects a probability by the outcomes of similar probabilities in a context.
#[derive(Debug)]
pub(crate) struct Apm {
    table: Vec<u16>,
    at: usize,
}

impl Apm {
    const STEPS: usize = 33;

    pub(crate) fn new(contexts: usize) -> Self {
        let mut table = Vec::with_capacity(contexts * Self::STEPS);
        for _ in 0..contexts {
            for step in 0..Self::STEPS {
                table.push(squash((step as i32 - 16) * 192).clamp(1, 65_535) as u16);
            }
        }
        Self { table, at: 0 }
    }

    /// Corrects a stretched value; returns a probability of 65,536.
    #[inline]
    pub(crate) fn refine(&mut self, stretched: i32, context: usize) -> i32 {
        let x = stretched.clamp(-3071, 3071) + 3072;
        let (low, part) = (x as usize / 192, x % 192);
        let base = context * Self::STEPS + low;
        self.at = base + usize::from(part >= 96);
        let (a, b) = (i32::from(self.table[base]), i32::from(self.table[base + 1]));
        (a * (192 - part) + b * part) / 192
    }

    #[inline]
    pub(crate) fn learn(&mut self, bit: bool, shift: u32) {
        let p = i32::from(self.table[self.at]);
        let target = if bit { 65_535 } else { 0 };
        self.table[self.at] = (p + ((target - p) >> shift)).clamp(1, 65_535) as u16;
    }
}

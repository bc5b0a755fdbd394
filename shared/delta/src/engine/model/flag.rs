//! The model of yes-or-no flags.

use super::counter::Counter;
use super::mixer::{Apm, Mixer};
use crate::engine::coder::Bits;
use crate::engine::math::{Stretch, squash};

/// Number of inputs of a flag.
pub(crate) const FLAG_INPUTS: usize = 8;
const FLAG_LANES: usize = 16;

/// Codes a yes-or-no flag in several small contexts.
#[derive(Debug)]
pub(crate) struct FlagModel {
    counters: Vec<Counter>,
    log: u32,
    mixer: Mixer<FLAG_LANES>,
    apm: Apm,
    stretch: &'static Stretch,
}

impl FlagModel {
    /// `log`: log2 of the number of counters of each context; `classes`: number of sets of weights.
    pub(crate) fn new(log: u32, classes: usize, guess: u32) -> Self {
        Self {
            counters: vec![Counter::guess(guess); FLAG_INPUTS << log],
            log,
            mixer: Mixer::new(classes, (1 << 16) / 4, 4),
            apm: Apm::new(classes),
            stretch: Stretch::get(),
        }
    }

    /// Codes one flag; each context is cut to the table's size.
    pub(crate) fn code<B: Bits>(
        &mut self,
        bits: &mut B,
        flag: bool,
        contexts: &[u32; FLAG_INPUTS],
        class: usize,
    ) -> bool {
        let mask = (1usize << self.log) - 1;
        let mut inputs = [0i16; FLAG_LANES];
        let mut at = [0usize; FLAG_INPUTS];
        for (index, context) in contexts.iter().enumerate() {
            at[index] = (index << self.log) + (*context as usize & mask);
            inputs[index] = self.stretch.of(self.counters[at[index]].p()) as i16;
        }
        inputs[FLAG_INPUTS] = 256;
        let s = self.mixer.mix(&inputs, class);
        let p = squash(s);
        let refined = self.apm.refine(s, class);
        let bit = bits.bit(flag, ((p + 3 * refined) >> 2).clamp(1, 65_535));
        self.mixer.learn(&inputs, p, bit);
        self.apm.learn(bit, 6);
        for at in at {
            self.counters[at].update(bit, 1023);
        }
        bit
    }
}

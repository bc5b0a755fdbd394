//! Integer context mixing: adaptive probabilities, hashed tables of them, and the mixer.

use super::math::{squash, stretch, stretch_coarse};

/// One adaptive probability with a count of what it has seen: 22 bits and 10 bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counter(u32);

impl Counter {
    /// An even chance, nothing seen.
    pub(crate) const EVEN: Self = Self(1 << 31);

    /// Creates a counter with a first guess of `p1` of 65,536.
    pub(crate) const fn guess(p1: u32) -> Self {
        Self(p1 << 16)
    }

    /// The probability of a one, of 65,536.
    #[inline]
    pub(crate) fn p(self) -> i32 {
        (self.0 >> 16) as i32
    }

    /// Moves towards `bit`: by 1/(n + 1.5) while little is known, by 1/(`limit` + 1.5) later.
    #[inline]
    pub(crate) fn update(&mut self, bit: bool, limit: u32) {
        let count = self.0 & 1023;
        let p = i64::from(self.0 >> 10);
        let target = if bit { (1i64 << 22) - 1 } else { 0 };
        let step = ((target - p) * i64::from(RECIPROCAL[count as usize])) >> 16;
        let p = (p + step) as u32;
        self.0 = (p << 10) | if count < limit { count + 1 } else { count };
    }
}

/// 65536 / (n + 1.5).
static RECIPROCAL: [u16; 1024] = {
    let mut table = [0u16; 1024];
    let mut n = 0;
    while n < 1024 {
        table[n] = (131_072 / (2 * n + 3)) as u16;
        n += 1;
    }
    table
};

/// A node of a hashed table: 12 bits of probability, 4 bits of confidence.
#[inline]
fn node_update(node: &mut u16, bit: bool) {
    let n = i32::from(*node & 15);
    let p = i32::from(*node >> 4);
    let target = if bit { 4095 } else { 0 };
    let step = ((target - p) * NODE_RATE[n as usize] + 32_768) >> 16;
    let p = (p + step).clamp(0, 4095);
    let n = if n < 15 { n + 1 } else { n };
    *node = ((p << 4) | n) as u16;
}

const NODE_EVEN: u16 = 2048 << 4;

/// 65536 / (n + 1.5), but not below a tenth.
static NODE_RATE: [i32; 16] = [
    43_690, 26_214, 18_724, 14_563, 11_915, 10_082, 8_738, 7_710, 6_898, 6_553, 6_553, 6_553,
    6_553, 6_553, 6_553, 6_553,
];

/// Entries in a bucket: a check, then the 15 nodes of half a byte.
const BUCKET: usize = 16;

/// Hashed buckets of nodes, one table for each order, side by side in one allocation.
#[derive(Debug)]
struct Tables {
    nodes: Vec<[u16; BUCKET]>,
    /// Number of buckets of one order, less one.
    mask: u32,
    /// Current bucket of each order.
    at: [u32; ORDERS],
}

impl Tables {
    fn new(log_buckets: u32) -> Self {
        let mut bucket = [NODE_EVEN; BUCKET];
        bucket[0] = 0;
        Self {
            nodes: vec![bucket; ORDERS << log_buckets],
            mask: (1 << log_buckets) - 1,
            at: [0; ORDERS],
        }
    }

    /// Selects the buckets of these contexts; one that was never seen, or was lost, is reset.
    #[inline]
    fn select(&mut self, contexts: &[u32; ORDERS], salt: u32) {
        // All places first, so that the processor can fetch them in parallel.
        let mut checks = [0u16; ORDERS];
        let mut found = [0u16; ORDERS];
        for order in 0..ORDERS {
            let hash = (contexts[order] ^ salt)
                .wrapping_mul(0x85EB_CA6B)
                .rotate_left(15);
            checks[order] = (hash >> 16) as u16 | 1;
            let place = (hash.wrapping_mul(0x9E37_79B1) >> 8) & self.mask;
            self.at[order] = order as u32 * (self.mask + 1) + place;
            found[order] = self.nodes[self.at[order] as usize][0];
        }
        for order in 0..ORDERS {
            if found[order] != checks[order] {
                self.at[order] = self.other(self.at[order], checks[order]);
            }
        }
    }

    /// Returns the second place of a context, or the less used of the two, emptied.
    fn other(&mut self, first: u32, check: u16) -> u32 {
        let second = first ^ 1;
        if self.nodes[second as usize][0] == check {
            return second;
        }
        // The first node counts the visits.
        let (a, b) = (
            self.nodes[first as usize][1] & 15,
            self.nodes[second as usize][1] & 15,
        );
        let (victim, kept) = if a <= b {
            (first, second)
        } else {
            (second, first)
        };
        // The one that is kept loses a little, so that old contexts go some day.
        if a.max(b) > 0 {
            self.nodes[kept as usize][1] -= 1;
        }
        let bucket = &mut self.nodes[victim as usize];
        *bucket = [NODE_EVEN; BUCKET];
        bucket[0] = check;
        victim
    }
}

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
        (sum >> 13).clamp(-super::math::LIMIT, super::math::LIMIT)
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

/// Number of contexts in which a byte is looked up.
pub(crate) const ORDERS: usize = 9;
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
        }
    }

    /// Codes one byte. `contexts` are hashes, each of another order; `class` (below 64) selects the
    /// mixing weights; `last` is the byte before.
    pub(crate) fn code<B: super::coder::Bits>(
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
                self.inputs[2 * order] = stretch_coarse(self.indirect[at]);
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
                    let (s, lean) = (stretch(p) as i16, ((p - 32_768) >> 6) as i16);
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
}

impl FlagModel {
    /// `log`: log2 of the number of counters of each context; `classes`: number of sets of weights.
    pub(crate) fn new(log: u32, classes: usize, guess: u32) -> Self {
        Self {
            counters: vec![Counter::guess(guess); FLAG_INPUTS << log],
            log,
            mixer: Mixer::new(classes, (1 << 16) / 4, 4),
            apm: Apm::new(classes),
        }
    }

    /// Codes one flag; each context is cut to the table's size.
    pub(crate) fn code<B: super::coder::Bits>(
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
            inputs[index] = stretch(self.counters[at[index]].p()) as i16;
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

//! Seeded chance: a small generator per device, so that what one device draws does not depend on
//! what others do.

/// splitmix64.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The stream of one device under a seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut chance = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        chance.bits();
        chance
    }

    /// 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound.max(1)
    }

    /// Whether something of a probability in millionths happens.
    pub(crate) fn happens(&mut self, millionths: u32) -> bool {
        self.below(1_000_000) < u64::from(millionths)
    }

    /// A length with this mean: memoryless, in whole seconds, at least one. From a table of the
    /// exponential distribution's quantiles, since `ln` differs in its last digit between machines.
    pub(crate) fn memoryless(&mut self, mean_s: u64) -> u64 {
        // -ln(1 - (i + 1/2) / 64) * 1024.
        const QUANTILES: [u64; 64] = [
            8, 24, 41, 58, 75, 92, 110, 128, 146, 164, 183, 202, 222, 242, 262, 283, 304, 325, 347,
            369, 392, 415, 439, 463, 488, 513, 539, 566, 593, 621, 649, 679, 709, 740, 772, 805,
            839, 874, 911, 948, 987, 1_027, 1_069, 1_113, 1_158, 1_206, 1_256, 1_308, 1_363, 1_421,
            1_483, 1_549, 1_619, 1_694, 1_776, 1_865, 1_962, 2_070, 2_191, 2_330, 2_493, 2_693,
            2_958, 3_359,
        ];
        let bits = self.bits();
        let index = usize::try_from(bits % 63).unwrap_or(0);
        let (low, high) = (QUANTILES[index], QUANTILES[index + 1]);
        let between = low + (bits >> 32) % (high - low);
        (mean_s * between / 1_024).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_repeats_and_its_lengths_have_about_their_mean() {
        let draw = |seed| Chance::new(seed, 7).bits();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut chance = Chance::new(3, 3);
        let sum: u64 = (0..10_000).map(|_| chance.memoryless(600)).sum();
        let mean = sum / 10_000;
        assert!((540..660).contains(&mean), "{mean}");
        let hits = (0..100_000).filter(|_| chance.happens(20_000)).count();
        assert!((1_800..2_200).contains(&hits), "{hits}");
    }
}

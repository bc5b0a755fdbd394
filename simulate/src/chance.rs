//! Seeded randomness: a small generator per device, so that what one device draws does not depend
//! on the others.

/// A splitmix64 generator.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// Creates the stream of one device under a seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut chance = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        chance.bits();
        chance
    }

    /// Draws 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a number below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound.max(1)
    }

    /// Draws whether an event happens whose probability is given in millionths.
    pub(crate) fn happens(&mut self, millionths: u32) -> bool {
        self.below(1_000_000) < u64::from(millionths)
    }

    /// Draws an exponentially distributed length with this mean, in whole seconds, at least one.
    /// Uses a table of quantiles, since `ln` differs in its last digit between machines.
    pub(crate) fn memoryless(&mut self, mean_s: u64) -> u64 {
        // -ln(1 - (i + 1/2) / 64) * 1024, stretched a little, so that values interpolated between
        // two entries have the mean 1024.
        const QUANTILES: [u64; 64] = [
            8, 25, 42, 60, 77, 95, 113, 132, 150, 170, 189, 209, 229, 250, 271, 292, 314, 336, 359,
            383, 406, 431, 457, 483, 508, 535, 563, 592, 620, 651, 682, 714, 747, 781, 816, 852,
            890, 929, 969, 1_012, 1_056, 1_101, 1_149, 1_200, 1_252, 1_308, 1_367, 1_428, 1_494,
            1_564, 1_640, 1_720, 1_809, 1_905, 2_010, 2_127, 2_259, 2_410, 2_586, 2_798, 3_062,
            3_416, 3_955, 5_112,
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

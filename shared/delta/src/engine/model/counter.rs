//! Adaptive probabilities that count what they have seen.

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

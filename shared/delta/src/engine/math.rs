//! The logistic functions of the mixing models, as tables computed in integer arithmetic
//! alone: a patch must decode to the same bytes on every processor.
//!
//! Probabilities have 16 bits (1 to 65,535 of 65,536). The stretched domain is in units of 1/256
//! nat, from -[`LIMIT`] to [`LIMIT`].

use std::sync::LazyLock;

/// Largest stretched value: 12 nats.
pub(crate) const LIMIT: i32 = 3071;

/// e^(-1/256) as a fraction of 2^62.
const STEP: u128 = 4_593_706_758_521_714_574;

/// `SQUASH[x]` is 65536 / (1 + e^(-x/256)), for x from 0.
static SQUASH: [u16; LIMIT as usize + 1] = squash_table();

const fn squash_table() -> [u16; LIMIT as usize + 1] {
    let mut table = [0u16; LIMIT as usize + 1];
    let one: u128 = 1 << 62;
    let mut power = one;
    let mut x = 0;
    while x < table.len() {
        let value = ((one << 16) + u128::midpoint(one, power)) / (one + power);
        table[x] = if value > 65_535 { 65_535 } else { value as u16 };
        power = (power * STEP) >> 62;
        x += 1;
    }
    table
}

/// Converts a stretched value to a probability, 1 to 65,535.
#[inline]
pub(crate) fn squash(x: i32) -> i32 {
    let p = i32::from(SQUASH[x.unsigned_abs().min(LIMIT as u32) as usize]);
    // The curve is symmetric; half a table is half the program's bytes.
    if x < 0 { 65_536 - p } else { p }
}

/// Tables of the inverse, made when they are first needed: in the program they would take more room
/// than the code that makes them. A model keeps a reference, so that it does not ask each time.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// ln(p / (1 - p)) * 256 for p below 2048 of 65,536.
    low: [i16; 2048],
    /// The same for p / 16.
    coarse: [i16; 4096],
}

impl Stretch {
    pub(crate) fn get() -> &'static Self {
        // In a box: in place they would be a part of the program again.
        static TABLES: LazyLock<Box<Stretch>> = LazyLock::new(|| {
            Box::new(Stretch {
                low: table(|p| p),
                coarse: table(|p| p * 16 + 8),
            })
        });
        &TABLES
    }

    /// [`Stretch::of`] to within a sixteenth of a percent, without a branch.
    #[inline]
    pub(crate) fn coarse(&self, p: u16) -> i16 {
        self.coarse[usize::from(p >> 4)]
    }

    /// Converts a probability, 0 to 65,535, to a stretched value.
    #[inline]
    pub(crate) fn of(&self, p: i32) -> i32 {
        if p < 2048 {
            i32::from(self.low[p.max(0) as usize])
        } else if p >= 65_536 - 2048 {
            -i32::from(self.low[(65_535 - p).max(0) as usize])
        } else {
            i32::from(self.coarse[(p >> 4) as usize & 4095])
        }
    }
}

/// For each index, the smallest stretched value whose probability is not below `of` it.
fn table<const N: usize>(of: impl Fn(i32) -> i32) -> [i16; N] {
    let mut x = -LIMIT;
    std::array::from_fn(|index| {
        while x < LIMIT && squash(x) < of(index as i32) {
            x += 1;
        }
        x as i16
    })
}

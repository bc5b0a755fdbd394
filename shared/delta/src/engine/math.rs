//! The logistic functions of the mixing models, as constant tables computed in integer arithmetic
//! alone: a patch must decode to the same bytes on every processor.
//!
//! Probabilities have 16 bits (1 to 65,535 of 65,536). The stretched domain is in units of 1/256
//! nat, from -[`LIMIT`] to [`LIMIT`].

/// Largest stretched value: 12 nats.
pub(crate) const LIMIT: i32 = 3071;

/// e^(-1/256) as a fraction of 2^62.
const STEP: u128 = 4_593_706_758_521_714_574;

/// `SQUASH[x]` is 65536 / (1 + e^(-x/256)), for x from 0.
static SQUASH: [u16; LIMIT as usize + 1] = SQUASHED;
const SQUASHED: [u16; LIMIT as usize + 1] = squash_table();
/// ln(p / (1 - p)) * 256 for p below 2048 of 65,536.
static STRETCH_LOW: [i16; 2048] = stretch_low();
/// The same for p / 16.
static STRETCH: [i16; 4096] = stretch_table();

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

const fn squash_const(x: i32) -> i32 {
    if x >= 0 {
        squash_table_at(x as usize)
    } else {
        65_536 - squash_table_at((-x) as usize)
    }
}

const fn squash_table_at(x: usize) -> i32 {
    SQUASHED[if x > LIMIT as usize {
        LIMIT as usize
    } else {
        x
    }] as i32
}

const fn stretch_low() -> [i16; 2048] {
    let mut table = [0i16; 2048];
    let mut x = -LIMIT;
    let mut p = 0;
    while p < table.len() {
        while x < LIMIT && squash_const(x) < p as i32 {
            x += 1;
        }
        table[p] = x as i16;
        p += 1;
    }
    table
}

const fn stretch_table() -> [i16; 4096] {
    let mut table = [0i16; 4096];
    let mut x = -LIMIT;
    let mut p = 0;
    while p < table.len() {
        while x < LIMIT && squash_const(x) < (p as i32) * 16 + 8 {
            x += 1;
        }
        table[p] = x as i16;
        p += 1;
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

/// [`stretch`] to within a sixteenth of a percent, without a branch.
#[inline]
pub(crate) fn stretch_coarse(p: u16) -> i16 {
    STRETCH[usize::from(p >> 4)]
}

/// Converts a probability, 0 to 65,535, to a stretched value.
#[inline]
pub(crate) fn stretch(p: i32) -> i32 {
    if p < 2048 {
        i32::from(STRETCH_LOW[p.max(0) as usize])
    } else if p >= 65_536 - 2048 {
        -i32::from(STRETCH_LOW[(65_535 - p).max(0) as usize])
    } else {
        i32::from(STRETCH[(p >> 4) as usize & 4095])
    }
}

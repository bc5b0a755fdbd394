//! The binary range coder, with one interface for both directions: the code that models a bit is
//! written once and cannot differ between the maker and the applier.

/// Codes bits with a given probability. The encoder writes `bit` and returns it; the decoder
/// ignores it and returns what it read.
pub(crate) trait Bits {
    /// Codes one bit. `p1` is the probability of a one, 1 to 65,535 of 65,536.
    fn bit(&mut self, bit: bool, p1: i32) -> bool;
}

/// Writes a range-coded stream.
#[cfg(feature = "make")]
#[derive(Debug)]
pub(crate) struct Encoder {
    low: u32,
    high: u32,
    out: Vec<u8>,
    count: u64,
}

#[cfg(feature = "make")]
impl Encoder {
    pub(crate) fn new() -> Self {
        Self {
            low: 0,
            high: u32::MAX,
            out: Vec::new(),
            count: 0,
        }
    }

    /// Number of bits coded so far, which is the cost of decoding.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        // Any value from low to high will do; the decoder reads zeros past the end.
        let mut shift = 24;
        loop {
            let value = (self.high >> shift) << shift;
            if value >= self.low {
                for byte in value.to_be_bytes().iter().take(4 - shift / 8) {
                    self.out.push(*byte);
                }
                break;
            }
            shift -= 8;
        }
        self.out
    }
}

#[inline]
fn middle(low: u32, high: u32, p1: i32) -> u32 {
    let range = u64::from(high - low);
    // p1 is below 2^16, so the sum stays below `high`.
    low + ((range * u64::from(p1.clamp(1, 65_535) as u32)) >> 16) as u32
}

#[cfg(feature = "make")]
impl Bits for Encoder {
    #[inline]
    fn bit(&mut self, bit: bool, p1: i32) -> bool {
        self.count += 1;
        let middle = middle(self.low, self.high, p1);
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = (self.high << 8) | 255;
        }
        bit
    }
}

/// Reads a range-coded stream. Past its end it reads zeros, which [`Decoder::overrun`] detects.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    low: u32,
    high: u32,
    value: u32,
    input: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        let mut decoder = Self {
            low: 0,
            high: u32::MAX,
            value: 0,
            input,
            at: 0,
        };
        for _ in 0..4 {
            decoder.shift();
        }
        decoder
    }

    #[inline]
    fn shift(&mut self) {
        let byte = self.input.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        self.value = (self.value << 8) | u32::from(byte);
    }

    /// Returns whether more was read past the end than any encoder would have left out.
    pub(crate) fn overrun(&self) -> bool {
        self.at > self.input.len().saturating_add(4 + 8)
    }
}

impl Bits for Decoder<'_> {
    #[inline]
    fn bit(&mut self, _: bool, p1: i32) -> bool {
        let middle = middle(self.low, self.high, p1);
        let bit = self.value <= middle;
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = (self.high << 8) | 255;
            self.shift();
        }
        bit
    }
}

#[cfg(all(test, feature = "make"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_at_every_probability() {
        let bits: Vec<(bool, i32)> = (0..20_000u32)
            .map(|i| {
                let mixed = i.wrapping_mul(2_654_435_761) >> 7;
                (
                    mixed & 64 != 0,
                    [1, 30, 9_000, 32_768, 65_000, 65_535][(mixed % 6) as usize],
                )
            })
            .collect();
        let mut encoder = Encoder::new();
        for &(bit, p1) in &bits {
            encoder.bit(bit, p1);
        }
        let bytes = encoder.finish();
        let mut decoder = Decoder::new(&bytes);
        for &(bit, p1) in &bits {
            assert_eq!(decoder.bit(false, p1), bit);
        }
        assert!(!decoder.overrun());
    }

    #[test]
    fn an_empty_stream_is_one_byte() {
        assert_eq!(Encoder::new().finish().len(), 1);
    }
}

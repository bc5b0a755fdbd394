//! Wire form of numbers: modelled for `dense`; LEB128 for `quick` and for small data.

use super::coder::Bits;
use super::control::Numbers;
use super::model::Counter;

/// Codes numbers bit by bit: the number of bits, then the bits, of which the first three are
/// learned.
#[derive(Debug)]
pub(crate) struct Modelled<'a, B> {
    bits: &'a mut B,
    lengths: Vec<Counter>,
    tops: Vec<Counter>,
}

/// Count at which counters stop slowing down, which sets how fast they adapt.
const LIMIT: u32 = 60;

impl<'a, B: Bits> Modelled<'a, B> {
    pub(crate) fn new(bits: &'a mut B) -> Self {
        let contexts = super::control::CONTEXTS;
        Self {
            bits,
            lengths: vec![Counter::EVEN; contexts * 64],
            tops: vec![Counter::EVEN; contexts * 64 * 8],
        }
    }

    fn bit(bits: &mut B, counter: &mut Counter, bit: bool) -> bool {
        let bit = bits.bit(bit, counter.p());
        counter.update(bit, LIMIT);
        bit
    }
}

impl<B: Bits> Numbers for Modelled<'_, B> {
    fn number(&mut self, number: u64, context: usize) -> Option<u64> {
        // Numbers are below 2^63: they come from places in images and from zigzag of them.
        let number = number.min(u64::MAX - 1) + 1;
        let wanted = number.ilog2();
        // The number of bits, in a tree of six levels.
        let mut node = 1usize;
        for level in (0..6).rev() {
            let counter = &mut self.lengths[context * 64 + node];
            let bit = Self::bit(self.bits, counter, (wanted >> level) & 1 == 1);
            node = (node << 1) | usize::from(bit);
        }
        let length = node & 63;
        let mut value = 1u64;
        for index in (0..length).rev() {
            let bit = (number >> index) & 1 == 1;
            let bit = if length - index <= 3 {
                // `value` is 1, 2 to 3, or 4 to 7 here: a node of a tree.
                let at = (context * 64 + length) * 8 + (value as usize & 7);
                Self::bit(self.bits, &mut self.tops[at], bit)
            } else {
                self.bits.bit(bit, 32_768)
            };
            value = (value << 1) | u64::from(bit);
        }
        Some(value - 1)
    }
}

/// Appends a number as LEB128.
#[cfg(feature = "make")]
pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads LEB128 numbers.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Returns the next number, if there is one of at most 64 bits.
    pub(crate) fn get(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            let part = u64::from(byte & 0x7F);
            if shift == 63 && part > 1 {
                return None;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Returns the next number, as 32 bits.
    pub(crate) fn get32(&mut self) -> Option<u32> {
        u32::try_from(self.get()?).ok()
    }

    /// Returns the bytes not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns whether everything was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Numbers for Reader<'_> {
    fn number(&mut self, _: u64, _: usize) -> Option<u64> {
        self.get()
    }
}

/// Writes numbers as LEB128.
#[cfg(feature = "make")]
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

#[cfg(feature = "make")]
impl Numbers for Writer {
    fn number(&mut self, number: u64, _: usize) -> Option<u64> {
        put(&mut self.bytes, number);
        Some(number)
    }
}

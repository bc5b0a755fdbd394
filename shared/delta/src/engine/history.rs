//! The bytes written so far, as the models see them: the last bytes, words, and earlier places of
//! the same bytes.

use super::model::Expected;

/// Length in bytes of the shortest match that is followed; the same number is hashed to find one.
const SHORTEST: usize = 6;
/// Maximum number of bytes by which a match is verified backward.
const VERIFIED: usize = 32;

/// log2 of the number of bytes kept from which every place is remembered.
const LARGE: u32 = 22;

/// log2 of the number of places that are remembered if 2^`log` bytes are kept.
pub(crate) fn places(log: u32) -> u32 {
    if log < LARGE { log - 3 } else { log - 2 }
}

/// The last bytes written.
#[derive(Debug)]
pub(crate) struct History {
    ring: Vec<u8>,
    mask: usize,
    /// Number of bytes written.
    at: usize,
    /// The last four bytes, the newest in the lowest byte.
    pub(crate) c4: u32,
    /// The four bytes before those.
    pub(crate) c8: u32,
    /// Hash of the word characters since the last byte that is not one.
    pub(crate) word: u32,
    /// Hash of the word before.
    pub(crate) last_word: u32,
    /// Maps the hash of the last bytes to the place after them.
    places: Vec<u32>,
    place_log: u32,
    /// Among predicted bytes, one place in this many is remembered.
    every: usize,
    match_at: usize,
    match_length: usize,
}

impl History {
    /// Creates a history that keeps 2^`log` bytes.
    pub(crate) fn new(log: u32) -> Self {
        let place_log = places(log);
        Self {
            ring: vec![0; 1 << log],
            mask: (1 << log) - 1,
            at: 0,
            c4: 0,
            c8: 0,
            word: 0,
            last_word: 0,
            places: vec![0; 1 << place_log],
            place_log,
            every: if log < LARGE { 2 } else { 1 },
            match_at: 0,
            match_length: 0,
        }
    }

    /// Returns the four bytes that begin `back` bytes ago as a word; 0 if they are not kept.
    pub(crate) fn back(&self, back: usize) -> u32 {
        if back < 4 || back > self.at.min(self.mask) {
            return 0;
        }
        let byte = |i: usize| u32::from(self.ring[(self.at - back + i) & self.mask]);
        byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24
    }

    /// Length in bytes of the match that is followed; 0 for none.
    pub(crate) fn matched(&self) -> usize {
        self.match_length
    }

    /// Appends the next byte.
    #[inline]
    pub(crate) fn push(&mut self, byte: u8) {
        if self.match_length > 0 {
            if self.ring[self.match_at & self.mask] == byte {
                self.match_length = (self.match_length + 1).min(65_535);
                self.match_at += 1;
            } else {
                self.match_length = 0;
            }
        }
        self.take(byte);
        let place = self.place();
        let candidate = self.places[place] as usize;
        if self.match_length == 0 && candidate > 0 {
            self.follow(candidate);
        }
        self.places[place] = self.at as u32;
    }

    /// Appends bytes that were all predicted: cheaper, and remembers fewer places.
    pub(crate) fn push_all(&mut self, bytes: &[u8]) {
        self.match_length = 0;
        for &byte in bytes {
            self.take(byte);
            if self.at.is_multiple_of(self.every) {
                let place = self.place();
                self.places[place] = self.at as u32;
            }
        }
    }

    #[inline]
    fn take(&mut self, byte: u8) {
        self.ring[self.at & self.mask] = byte;
        self.at += 1;
        self.c8 = (self.c8 << 8) | (self.c4 >> 24);
        self.c4 = (self.c4 << 8) | u32::from(byte);
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 {
            self.word = self
                .word
                .wrapping_add(u32::from(byte) + 1)
                .wrapping_mul(0x2F0B_4C47);
        } else if self.word != 0 {
            self.last_word = self.word;
            self.word = 0;
        }
    }

    /// Slot in which the place of the last bytes is remembered.
    #[inline]
    fn place(&self) -> usize {
        let hash =
            (self.c4 ^ (self.c8 & 0xFFFF).wrapping_mul(0x3D4D_51CB)).wrapping_mul(0x9E37_79B1);
        (hash >> (32 - self.place_log)) as usize
    }

    /// Follows a candidate if it is a match.
    fn follow(&mut self, candidate: usize) {
        let mut length = 0;
        while length < VERIFIED
            && candidate > length
            && self.at - candidate + length < self.mask
            && self.ring[(candidate - 1 - length) & self.mask]
                == self.ring[(self.at - 1 - length) & self.mask]
        {
            length += 1;
        }
        if length >= SHORTEST {
            self.match_length = length;
            self.match_at = candidate;
        }
    }

    /// Returns the byte written `back` bytes ago, 1 for the last; 0 before the first.
    pub(crate) fn byte(&self, back: usize) -> u8 {
        self.ring[self.at.wrapping_sub(back) & self.mask]
    }

    /// Next four bytes according to the match, if it is that far behind.
    pub(crate) fn expected_word(&self) -> Option<u32> {
        if self.match_length == 0 || self.match_at + 4 > self.at {
            return None;
        }
        let byte = |i: usize| self.ring[(self.match_at + i) & self.mask];
        Some(u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]))
    }

    /// Next byte according to the match.
    #[inline]
    pub(crate) fn expected(&self) -> Expected {
        let trust = match self.match_length {
            0 => return Expected::default(),
            length @ 1..=15 => length,
            length @ 16..=31 => 16 + (length - 16) / 4,
            length => (20 + length / 32).min(40),
        };
        Expected {
            byte: self.ring[self.match_at & self.mask],
            trust: trust as u8,
        }
    }
}

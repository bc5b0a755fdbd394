//! What was written, as the models see it: the last bytes, words, and where the same bytes came
//! before.

use super::model::Expected;

/// Shortest match that is followed, in bytes; as many are hashed to find one.
const SHORTEST: usize = 6;
/// Longest that a match is verified backward.
const VERIFIED: usize = 32;

/// log2 of the bytes kept from which on every place is remembered.
const LARGE: u32 = 22;

/// log2 of the places that are remembered where 2^`log` bytes are kept.
pub(crate) fn places(log: u32) -> u32 {
    if log < LARGE { log - 3 } else { log - 2 }
}

/// The last bytes written.
#[derive(Debug)]
pub(crate) struct History {
    ring: Vec<u8>,
    mask: usize,
    /// Bytes written.
    at: usize,
    /// The last four bytes, the newest lowest.
    pub(crate) c4: u32,
    /// The four before.
    pub(crate) c8: u32,
    /// Hash of the letters since the last that is none.
    pub(crate) word: u32,
    /// The word before.
    pub(crate) last_word: u32,
    /// Hash of the last bytes to the place behind them.
    places: Vec<u32>,
    place_log: u32,
    /// Of bytes that were foretold one place in so many is remembered.
    every: usize,
    match_at: usize,
    match_length: usize,
}

impl History {
    /// `log`: log2 of the bytes that are kept.
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

    /// The word that began so many bytes ago; 0 if it is gone.
    pub(crate) fn back(&self, back: usize) -> u32 {
        if back < 4 || back > self.at.min(self.mask) {
            return 0;
        }
        let byte = |i: usize| u32::from(self.ring[(self.at - back + i) & self.mask]);
        byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24
    }

    /// How many bytes the match that is followed has had, 0 for none.
    pub(crate) fn matched(&self) -> usize {
        self.match_length
    }

    /// Takes the next byte.
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

    /// Takes bytes that were all foretold: cheaper, and remembers fewer places.
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

    /// Where the place of the last bytes is remembered.
    #[inline]
    fn place(&self) -> usize {
        let hash =
            (self.c4 ^ (self.c8 & 0xFFFF).wrapping_mul(0x3D4D_51CB)).wrapping_mul(0x9E37_79B1);
        (hash >> (32 - self.place_log)) as usize
    }

    /// Follows a match if it is one.
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

    /// The byte that was written so many bytes ago, 1 for the last; 0 before the first.
    pub(crate) fn byte(&self, back: usize) -> u8 {
        self.ring[self.at.wrapping_sub(back) & self.mask]
    }

    /// What the match says the next four bytes are, if it is that far behind.
    pub(crate) fn expected_word(&self) -> Option<u32> {
        if self.match_length == 0 || self.match_at + 4 > self.at {
            return None;
        }
        let byte = |i: usize| self.ring[(self.match_at + i) & self.mask];
        Some(u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]))
    }

    /// What the match says comes next.
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

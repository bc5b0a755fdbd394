//! Finds the longest pieces that a masked image has in common with another: its suffix array, and a
//! filter before it.

/// Maximum length of a gram in bytes.
const LONGEST_GRAM: usize = 24;
/// Interval between remembered grams: a match that is longer than a gram by as much contains one.
const GRAM_STEP: usize = 4;
/// Bits of memory per remembered gram: one absent gram in sixteen appears to be present.
const GRAM_BITS: usize = 16;

/// Set of the short runs of bytes, called grams, that an image has: one or two memory accesses
/// instead of a search for what is not there.
#[derive(Debug)]
pub(super) struct Grams {
    length: usize,
    bits: Vec<u64>,
}

impl Grams {
    /// Collects the grams of `text`, for matches of at least `least` bytes.
    pub(super) fn new(text: &[u8], least: usize) -> Self {
        let length = least.saturating_sub(GRAM_STEP - 1).clamp(4, LONGEST_GRAM);
        let mut grams = Self {
            length,
            bits: vec![0; (text.len() / GRAM_STEP * GRAM_BITS).div_ceil(64).max(1)],
        };
        for gram in text.windows(length).step_by(GRAM_STEP) {
            let place = grams.place(gram);
            grams.bits[place / 64] |= 1 << (place % 64);
        }
        grams
    }

    #[inline]
    fn place(&self, gram: &[u8]) -> usize {
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        };
        let mut hash = 0u64;
        let mut parts = gram.chunks_exact(8);
        for part in parts.by_ref() {
            hash = (hash ^ word(part))
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29);
        }
        let rest = if gram.len() >= 8 {
            word(&gram[gram.len() - 8..])
        } else {
            word(parts.remainder())
        };
        let hash = (hash ^ rest).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let hash = hash ^ hash >> 32;
        let hash = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // The high half of the product spreads the hash over all bits.
        ((u128::from(hash) * (self.bits.len() as u128 * 64)) >> 64) as usize
    }

    fn has(&self, text: &[u8], at: usize) -> bool {
        let Some(gram) = text.get(at..at + self.length) else {
            return false;
        };
        let place = self.place(gram);
        self.bits[place / 64] >> (place % 64) & 1 == 1
    }
}

/// Looks into [`Grams`] from position to position, at each gram once.
#[derive(Debug)]
pub(super) struct Looks<'a> {
    grams: &'a Grams,
    /// First position not looked at yet.
    next: usize,
    /// Last position with a gram that the image may have.
    last: Option<usize>,
}

impl<'a> Looks<'a> {
    pub(super) fn new(grams: &'a Grams) -> Self {
        Self {
            grams,
            next: 0,
            last: None,
        }
    }

    /// Returns whether a match of `least` bytes that begins at `at` is possible.
    #[inline]
    pub(super) fn may_match(&mut self, text: &[u8], at: usize, least: usize) -> bool {
        if least < self.grams.length + GRAM_STEP - 1 {
            return true;
        }
        self.next = self.next.max(at);
        while self.next < at + GRAM_STEP {
            if self.grams.has(text, self.next) {
                self.last = Some(self.next);
            }
            self.next += 1;
        }
        self.last.is_some_and(|last| last >= at)
    }
}

/// Number of leading bits of a suffix that index the table.
const KEY_BITS: usize = 20;

/// The suffix array of an image, with a table of where the suffixes with each key begin.
pub(super) struct Index<'a> {
    text: &'a [u8],
    suffixes: Vec<i32>,
    /// First suffix of each key.
    starts: Vec<u32>,
}

impl<'a> Index<'a> {
    /// Builds the index; `None` for an image of 2 GiB and more.
    pub(super) fn new(text: &'a [u8]) -> Option<Self> {
        let suffixes = sorted(text)?;
        let mut index = Self {
            text,
            suffixes,
            starts: Vec::new(),
        };
        let mut starts = vec![0u32; (1 << KEY_BITS) + 1];
        // Suffixes shorter than a key sort first among those with the same key.
        for at in 0..text.len() {
            starts[Self::key_of(&text[at..]) + 1] += 1;
        }
        for place in 1..starts.len() {
            starts[place] += starts[place - 1];
        }
        index.starts = starts;
        Some(index)
    }

    /// The image.
    pub(super) fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Returns the first bits as a number; missing bytes count as 0.
    #[inline]
    fn key_of(bytes: &[u8]) -> usize {
        let byte = |at: usize| usize::from(bytes.get(at).copied().unwrap_or(0));
        (byte(0) << 16 | byte(1) << 8 | byte(2)) >> (24 - KEY_BITS)
    }

    /// Finds the longest match of a beginning of `wanted`: offset and length; length 0 if `wanted`
    /// has under three bytes. Of equally long ones, takes the one nearest to `near`, as far as a
    /// short look around tells.
    pub(super) fn longest(&self, wanted: &[u8], near: usize, shortest: usize) -> (usize, usize) {
        if wanted.len() < 3 {
            return (0, 0);
        }
        let key = Self::key_of(wanted);
        let (mut low, mut high) = (self.starts[key] as usize, self.starts[key + 1] as usize);
        let (mut best, mut best_length, mut best_rank) = (0, 0, 0);
        let (mut low_common, mut high_common) = (0usize, 0usize);
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.suffixes[middle] as usize;
            let skip = low_common.min(high_common);
            let length = skip
                + common(
                    &self.text[(at + skip).min(self.text.len())..],
                    &wanted[skip..],
                );
            if length > best_length {
                (best, best_length, best_rank) = (at, length, middle);
            }
            if length == wanted.len() {
                break;
            }
            let greater = self
                .text
                .get(at + length)
                .is_some_and(|&t| t > wanted[length]);
            if greater {
                high = middle;
                high_common = length;
            } else {
                low = middle + 1;
                low_common = length;
            }
        }
        // If whole pages are alike, any of them will do.
        if best_length >= shortest && best_length <= 4096 {
            let wanted = &wanted[..best_length];
            let same = |rank: usize| {
                let at = *self.suffixes.get(rank)? as usize;
                (self.text.get(at..at + best_length)? == wanted).then_some(at)
            };
            let ranks = (best_rank + 1..best_rank + LOOK).map_while(same);
            let before = (best_rank.saturating_sub(LOOK)..best_rank)
                .rev()
                .map_while(same);
            for at in ranks.chain(before) {
                if at.abs_diff(near) < best.abs_diff(near) {
                    best = at;
                }
            }
        }
        (best, best_length)
    }
}

/// Number of neighbours in the suffix array that are checked for a nearer match.
const LOOK: usize = 64;

/// Length of the common beginning of two slices, in bytes.
#[inline]
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    let most = a.len().min(b.len());
    let mut length = 0;
    while length + 8 <= most {
        let (mut x, mut y) = ([0; 8], [0; 8]);
        x.copy_from_slice(&a[length..length + 8]);
        y.copy_from_slice(&b[length..length + 8]);
        let different = u64::from_le_bytes(x) ^ u64::from_le_bytes(y);
        if different != 0 {
            return length + (different.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    while length < most && a[length] == b[length] {
        length += 1;
    }
    length
}

/// Length below which suffixes are compared one by one: the library reads before the beginning of
/// short texts and panics.
const SHORT: usize = 256;

/// Sorts the suffixes of a text; `None` for one of 2 GiB and more.
fn sorted(text: &[u8]) -> Option<Vec<i32>> {
    let count = i32::try_from(text.len()).ok()?;
    if text.len() < SHORT {
        let mut suffixes: Vec<i32> = (0..count).collect();
        suffixes.sort_by_key(|at| &text[*at as usize..]);
        return Some(suffixes);
    }
    let mut suffixes = vec![0i32; text.len()];
    (libsais_rs::libsais(text, &mut suffixes, 0, None) == 0).then_some(suffixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_are_sorted_like_long_ones() {
        let mut state = 7u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        for round in 0..3_000 {
            let (letters, length) = ([1, 2, 3, 200][round % 4], random(600) as usize);
            let text: Vec<u8> = (0..length).map(|_| random(letters) as u8).collect();
            let mut wanted: Vec<i32> = (0..length as i32).collect();
            wanted.sort_by_key(|at| &text[*at as usize..]);
            assert_eq!(sorted(&text), Some(wanted), "{text:?}");
        }
        assert_eq!(sorted(b"1.0.0"), Some(vec![3, 1, 4, 2, 0]));
    }
}

//! Finding copies: the longest common pieces of the masked images by a suffix array, and from
//! them the covers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::engine::covers::{Cover, RECENT};
use crate::engine::layout::{Kind, Region};

/// What covers are chosen by, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// A copy from elsewhere must explain this many bytes more than going straight on does.
    pub(crate) gain: usize,
    /// The same for a copy on a diagonal that was used lately.
    pub(crate) near: usize,
    /// Shortest match that is looked at.
    pub(crate) shortest: usize,
}

/// What covers are chosen by in each part of the new image.
#[derive(Debug)]
pub(crate) struct Choices<'a> {
    /// Sorted, not overlapping.
    pub(crate) regions: &'a [Region],
    pub(crate) text: Choice,
    /// x86-64 code.
    pub(crate) x86: Choice,
    /// ARM code of 32-bit instructions.
    pub(crate) arm: Choice,
    /// Other code, and tables of references.
    pub(crate) code: Choice,
    /// Regions of other bytes.
    pub(crate) plain: Choice,
    /// What is in no region.
    pub(crate) between: Choice,
}

impl Choice {
    /// Shortest match from elsewhere that can pay.
    fn least(&self) -> usize {
        self.shortest.max(self.gain + 1)
    }
}

impl Choices<'_> {
    /// The shortest match that pays in most of the image.
    fn usual(&self) -> usize {
        let mut bytes = [0u64; 4];
        let choices = [self.text, self.x86, self.arm, self.code];
        for region in self.regions {
            let kind = match region.kind {
                Kind::Plain => continue,
                Kind::Text => 0,
                Kind::X86 => 1,
                Kind::Arm64 | Kind::Arm => 2,
                _ => 3,
            };
            bytes[kind] += u64::from(region.end - region.start);
        }
        (0..4)
            .max_by_key(|&kind| bytes[kind])
            .filter(|&kind| bytes[kind] > 0)
            .map_or(self.between, |kind| choices[kind])
            .least()
    }

    /// The choice at a place; `hint` is the region looked at last.
    fn at(&self, place: usize, hint: &mut usize) -> Choice {
        while self
            .regions
            .get(*hint)
            .is_some_and(|r| r.end as usize <= place)
        {
            *hint += 1;
        }
        match self
            .regions
            .get(*hint)
            .filter(|r| r.start as usize <= place)
        {
            Some(region) => match region.kind {
                Kind::Text => self.text,
                Kind::Plain => self.plain,
                Kind::X86 => self.x86,
                Kind::Arm64 | Kind::Arm => self.arm,
                _ => self.code,
            },
            None => self.between,
        }
    }
}

/// Most bytes of a gram.
const LONGEST_GRAM: usize = 24;
/// One gram in so many is remembered: each match that is longer by as much has one.
const GRAM_STEP: usize = 4;
/// Bits of memory for each remembered gram: one in sixteen that is not there seems to be.
const GRAM_BITS: usize = 16;

/// Which runs of a few bytes, called grams, an image has: a look into memory or two instead of a
/// search for what is not there.
#[derive(Debug)]
pub(crate) struct Grams {
    length: usize,
    bits: Vec<u64>,
}

impl Grams {
    fn new(text: &[u8], least: usize) -> Self {
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

/// Looks into [`Grams`] from place to place, at each gram once.
#[derive(Debug)]
struct Looks<'a> {
    grams: &'a Grams,
    /// First place that was not looked at.
    next: usize,
    /// Last place with a gram that the image may have.
    last: Option<usize>,
}

impl Looks<'_> {
    /// Whether a match of `least` bytes that begins at `at` is possible.
    #[inline]
    fn may_match(&mut self, text: &[u8], at: usize, least: usize) -> bool {
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

/// Bits of a suffix's begin that a table is kept of.
const KEY_BITS: usize = 20;

/// The suffix array of an image with a table of where suffixes of each begin are.
pub(crate) struct Index<'a> {
    text: &'a [u8],
    suffixes: Vec<i32>,
    /// For each key: where its suffixes begin.
    starts: Vec<u32>,
}

impl<'a> Index<'a> {
    /// `None` for an image of 2 GiB and more.
    pub(crate) fn new(text: &'a [u8]) -> Option<Self> {
        let mut suffixes = vec![0i32; text.len()];
        if !text.is_empty() && libsais_rs::libsais(text, &mut suffixes, 0, None) != 0 {
            return None;
        }
        let mut index = Self {
            text,
            suffixes,
            starts: Vec::new(),
        };
        let mut starts = vec![0u32; (1 << KEY_BITS) + 1];
        // Suffixes shorter than a key sort first among those of theirs.
        for at in 0..text.len() {
            starts[Self::key_of(&text[at..]) + 1] += 1;
        }
        for place in 1..starts.len() {
            starts[place] += starts[place - 1];
        }
        index.starts = starts;
        Some(index)
    }

    /// The first bytes as a number; those that are missing count as 0.
    #[inline]
    fn key_of(bytes: &[u8]) -> usize {
        let byte = |at: usize| usize::from(bytes.get(at).copied().unwrap_or(0));
        (byte(0) << 16 | byte(1) << 8 | byte(2)) >> (24 - KEY_BITS)
    }

    /// The longest match of a beginning of `wanted`: where and how long; 0 if under three bytes. Of
    /// equally long ones that which is nearest to `near`, as far as a short look around tells.
    pub(crate) fn longest(&self, wanted: &[u8], near: usize, shortest: usize) -> (usize, usize) {
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
        // Where whole pages are alike, any of them will do.
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

/// Neighbours in the suffix array that are looked at for a nearer match.
const LOOK: usize = 64;

/// How many bytes two slices have in common at their begin.
#[inline]
pub(crate) fn common(a: &[u8], b: &[u8]) -> usize {
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

/// Longest that a match is followed: nothing changes beyond.
const CAP: usize = 1 << 16;

/// Bytes of the new image that one thread matches at a time. The covers do not depend on how many
/// threads there are.
const BLOCK: usize = 12 << 20;

/// Chooses covers for `new` on several threads; none more once `cancel` is set.
pub(crate) fn covers(
    index: &Index<'_>,
    new: &[u8],
    choices: &Choices<'_>,
    threads: usize,
    cancel: Option<&AtomicBool>,
) -> Vec<Cover> {
    let grams = Grams::new(index.text, choices.usual());
    let blocks = new.len().div_ceil(BLOCK).max(1);
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<Vec<Cover>>> = Mutex::new(vec![Vec::new(); blocks]);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, blocks) {
            scope.spawn(|| {
                loop {
                    let block = next.fetch_add(1, Ordering::Relaxed);
                    if block >= blocks {
                        return;
                    }
                    let to = new.len().min((block + 1) * BLOCK);
                    let covers = part(index, &grams, new, (block * BLOCK, to), choices, cancel);
                    if let Ok(mut found) = found.lock() {
                        found[block] = covers;
                    }
                }
            });
        }
    });
    let mut covers: Vec<Cover> = Vec::new();
    for cover in found.into_inner().unwrap_or_default().into_iter().flatten() {
        match covers.last_mut() {
            // One that goes on in the next block.
            Some(last)
                if last.new + last.length == cover.new && last.old + last.length == cover.old =>
            {
                last.length += cover.length;
            }
            _ => covers.push(cover),
        }
    }
    covers
}

/// Chooses covers for a part of `new`.
fn part(
    index: &Index<'_>,
    grams: &Grams,
    new: &[u8],
    (from, to): (usize, usize),
    choices: &Choices<'_>,
    cancel: Option<&AtomicBool>,
) -> Vec<Cover> {
    let old = index.text;
    let mut looks = Looks {
        grams,
        next: 0,
        last: None,
    };
    let mut covers: Vec<Cover> = Vec::new();
    // The copy that goes on: old place minus new place.
    let mut diagonal: Option<i64> = None;
    let mut recent: Vec<i64> = Vec::new();
    let new = &new[..to];
    let mut region = 0;
    let mut begin = from; // first byte that no finished cover has
    let mut scan = from;
    let mut seed: (usize, usize, usize) = (from, 0, 0); // the current copy's seed: new, old, length
    let mut reach = Reach::new(seed);
    let old_at = |diagonal: i64, new_at: usize| -> Option<usize> {
        let at = new_at as i64 + diagonal;
        (at >= 0 && (at as usize) < old.len()).then_some(at as usize)
    };
    while scan < to {
        if cancel.is_some_and(|c| c.load(Ordering::Relaxed)) {
            break;
        }
        let choice = choices.at(scan, &mut region);
        let end = (scan + CAP).min(to);
        // Straight on as long as it is exact.
        if let Some(at) = diagonal.and_then(|d| old_at(d, scan)) {
            let run = common(&old[at..], &new[scan..end]);
            if run >= 16 {
                if !reach.to(old, new, scan) {
                    // Too much that differs lies between: a copy of its own on this diagonal.
                    close(
                        old,
                        new,
                        &mut covers,
                        seed,
                        diagonal,
                        &mut begin,
                        Some((scan, at)),
                    );
                    seed = (scan, at, run);
                    reach = Reach::new(seed);
                }
                scan += run;
                continue;
            }
        }
        // A copy on a diagonal that was used lately is told in a few bits.
        let mut best = (0i64, 0usize, 0usize); // score, place, length
        for &d in &recent {
            let Some(at) = old_at(d, scan) else { continue };
            let length = common(&old[at..], &new[scan..end]);
            let score = length as i64 - choice.near as i64;
            if Some(d) != diagonal && length >= choice.shortest.min(8) && score > best.0 {
                best = (score, at, length);
            }
        }
        if best.2 < 32 && looks.may_match(new, scan, choice.least()) {
            let (place, length) = index.longest(
                &new[scan..end],
                old_at(diagonal.unwrap_or(0), scan).unwrap_or(0),
                choice.shortest,
            );
            let score = length as i64 - choice.gain as i64;
            if length >= choice.shortest && score > best.0 {
                best = (score, place, length);
            }
        }
        let (score, place, length) = best;
        if score <= 0 {
            scan += 1;
            continue;
        }
        let other = place as i64 - scan as i64;
        if diagonal == Some(other) && reach.to(old, new, scan) {
            scan += length;
            continue;
        }
        // What going straight on explains of these bytes.
        let straight = diagonal.filter(|&d| d != other).map_or(0, |d| {
            (scan..scan + length)
                .filter(|&i| old_at(d, i).is_some_and(|at| old[at] == new[i]))
                .count()
        });
        if score < straight as i64 {
            scan += 1;
            continue;
        }
        close(
            old,
            new,
            &mut covers,
            seed,
            diagonal,
            &mut begin,
            Some((scan, place)),
        );
        diagonal = Some(other);
        if let Some(known) = recent.iter().position(|&d| d == other) {
            recent.remove(known);
        } else if recent.len() == RECENT {
            recent.pop();
        }
        recent.insert(0, other);
        seed = (scan, place, length);
        reach = Reach::new(seed);
        scan += length;
    }
    close(old, new, &mut covers, seed, diagonal, &mut begin, None);
    covers
}

/// So many bytes more wrong than right end a copy.
const PATIENCE: i64 = 256;

/// How far a copy reaches from its seed: as long as what is right outweighs what is wrong.
#[derive(Debug)]
struct Reach {
    /// Old place minus new place.
    diagonal: i64,
    /// First byte of the new image that was not looked at.
    at: usize,
    score: i64,
    best: i64,
    best_end: usize,
}

impl Reach {
    /// Of a seed: place in the new image, in the old one, length.
    fn new(seed: (usize, usize, usize)) -> Self {
        let from = seed.0 + seed.2;
        Self {
            diagonal: seed.1 as i64 - seed.0 as i64,
            at: from,
            score: 0,
            best: 0,
            best_end: from,
        }
    }

    /// Looks on as far as `limit`; whether the copy reaches there.
    fn to(&mut self, old: &[u8], new: &[u8], limit: usize) -> bool {
        while self.at < limit && self.score >= self.best - PATIENCE {
            let place = self.at as i64 + self.diagonal;
            if place < 0 || place as usize >= old.len() {
                return false;
            }
            self.score += if old[place as usize] == new[self.at] {
                1
            } else {
                -1
            };
            self.at += 1;
            if self.score > self.best {
                (self.best, self.best_end) = (self.score, self.at);
            }
        }
        self.at >= limit && self.score >= self.best - PATIENCE
    }
}

/// Finishes the copy on `diagonal`: forward from its seed as far as it pays, and lets the next
/// one, which begins at `next`, grow backward; where both want the same bytes they share them
/// where it is best.
fn close(
    old: &[u8],
    new: &[u8],
    covers: &mut Vec<Cover>,
    seed: (usize, usize, usize),
    diagonal: Option<i64>,
    begin: &mut usize,
    next: Option<(usize, usize)>,
) {
    let limit = next.map_or(new.len(), |n| n.0);
    let mut end = *begin;
    if diagonal.is_some() {
        let mut reach = Reach::new(seed);
        reach.to(old, new, limit);
        end = reach.best_end;
    }
    // How far the next one reaches back.
    let mut back = limit;
    if let Some((next_new, next_old)) = next {
        let (mut score, mut best) = (0i64, 0i64);
        let mut steps = 1;
        while steps <= next_new - *begin && steps <= next_old {
            score += if old[next_old - steps] == new[next_new - steps] {
                1
            } else {
                -1
            };
            if score > best {
                best = score;
                back = next_new - steps;
            }
            if score < best - PATIENCE {
                break;
            }
            steps += 1;
        }
        if let Some(d) = diagonal {
            // The overlap is cut where most bytes are right.
            if back < end {
                let next_d = next_old as i64 - next_new as i64;
                let (mut score, mut best, mut cut) = (0i64, 0i64, back);
                for (at, byte) in new.iter().enumerate().take(end).skip(back) {
                    let mine = old.get((at as i64 + d) as usize) == Some(byte);
                    let theirs = old.get((at as i64 + next_d) as usize) == Some(byte);
                    score += i64::from(mine) - i64::from(theirs);
                    if score > best {
                        best = score;
                        cut = at + 1;
                    }
                }
                end = cut;
                back = cut;
            }
        }
    }
    if let Some(d) = diagonal {
        let from = *begin;
        if end > from {
            covers.push(Cover {
                old: (from as i64 + d) as u32,
                new: from as u32,
                length: (end - from) as u32,
            });
        }
    }
    *begin = back.max(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_goes_on_behind_what_was_replaced() {
        let byte = |i: u32, seed: u32| (i.wrapping_mul(0x9E37_79B1).wrapping_add(seed) >> 21) as u8;
        let old: Vec<u8> = (0..20_000).map(|i| byte(i, 1)).collect();
        let mut new = old.clone();
        for (i, changed) in (5000..6000).zip(&mut new[5000..6000]) {
            *changed = byte(i, 0x1234_5678) ^ 0x55;
        }
        let choice = Choice {
            gain: 10,
            near: 6,
            shortest: 10,
        };
        let choices = Choices {
            regions: &[],
            text: choice,
            x86: choice,
            arm: choice,
            code: choice,
            plain: choice,
            between: choice,
        };
        let index = Index::new(&old).expect("an index");
        let covers = covers(&index, &new, &choices, 2, None);
        let straight: u32 = covers
            .iter()
            .filter(|c| c.old == c.new)
            .map(|c| c.length)
            .sum();
        assert!(straight >= 18_900, "{straight}");
    }
}

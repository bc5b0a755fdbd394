//! Choosing covers among the longest common pieces of the masked images.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::index::{Grams, Index, Looks, common};
use crate::engine::covers::{Cover, RECENT};
use crate::engine::layout::{Kind, Region};

/// Criteria for choosing covers, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// Number of bytes that a copy from elsewhere must explain beyond what going straight on does.
    pub(crate) gain: usize,
    /// The same for a copy on a recently used diagonal.
    pub(crate) near: usize,
    /// Length of the shortest match that is considered.
    pub(crate) shortest: usize,
}

/// Criteria for choosing covers in each part of the new image.
#[derive(Debug)]
pub(crate) struct Choices<'a> {
    /// Sorted, not overlapping.
    pub(crate) regions: &'a [Region],
    pub(crate) text: Choice,
    /// x86-64 code.
    pub(crate) x86: Choice,
    /// ARM code with 32-bit instructions.
    pub(crate) arm: Choice,
    /// Other code, and tables of references.
    pub(crate) code: Choice,
    /// Regions of other bytes.
    pub(crate) plain: Choice,
    /// Bytes in no region.
    pub(crate) between: Choice,
}

impl Choice {
    /// Length of the shortest match from elsewhere that can pay.
    fn least(&self) -> usize {
        self.shortest.max(self.gain + 1)
    }
}

impl Choices<'_> {
    /// Length of the shortest match that pays in most of the image.
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

    /// Returns the criteria at a position; `hint` is the region looked at last.
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

/// Number of equal bytes that make a run.
const RUN: usize = 32;
/// Number of bytes for which a run must go on to count as long; padding within archives is shorter.
const LONG_RUN: usize = 4096;

/// Maximum length to which a match is followed: nothing changes beyond.
const CAP: usize = 1 << 16;

/// Bytes of the new image that one thread matches at a time. The covers do not depend on the number
/// of threads.
const BLOCK: usize = 12 << 20;

/// Chooses covers for `new` on several threads; stops once `cancel` is set.
pub(crate) fn covers(
    index: &Index<'_>,
    new: &[u8],
    choices: &Choices<'_>,
    threads: usize,
    cancel: Option<&AtomicBool>,
) -> Vec<Cover> {
    let grams = Grams::new(index.text(), choices.usual());
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
            // A cover that continues in the next block.
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
    let old = index.text();
    let mut looks = Looks::new(grams);
    let mut covers: Vec<Cover> = Vec::new();
    // Diagonal of the copy that goes on: old offset minus new offset.
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
        // Straight on, as long as it is exact.
        if let Some(at) = diagonal.and_then(|d| old_at(d, scan)) {
            let run = common(&old[at..], &new[scan..end]);
            if run >= 16 {
                if !reach.to(old, new, scan) {
                    // Too many differences lie between: start a separate copy on this diagonal.
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
        // A copy on a recently used diagonal costs a few bits.
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
        // A long run of one byte that goes on is predicted without a copy; a copy that ends in it
        // would be followed by the next, over and over.
        let going_on = length >= RUN && scan > from && new[scan - 1] == new[scan];
        let ahead = new.get(scan..scan + length + LONG_RUN);
        if going_on && ahead.is_some_and(|ahead| ahead.iter().all(|&b| b == new[scan])) {
            scan += length;
            continue;
        }
        if score <= 0 {
            scan += 1;
            continue;
        }
        let other = place as i64 - scan as i64;
        if diagonal == Some(other) && reach.to(old, new, scan) {
            scan += length;
            continue;
        }
        // Number of these bytes that going straight on explains.
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

/// Excess of wrong bytes over right ones that ends a copy.
const PATIENCE: i64 = 256;

/// Extent of a copy from its seed: as long as right bytes outweigh wrong ones.
#[derive(Debug)]
struct Reach {
    /// Old offset minus new offset.
    diagonal: i64,
    /// First byte of the new image not looked at yet.
    at: usize,
    score: i64,
    best: i64,
    best_end: usize,
}

impl Reach {
    /// Starts from a seed: offset in the new image, offset in the old one, length.
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

    /// Looks on as far as `limit`; returns whether the copy reaches it.
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

/// Finishes the copy on `diagonal`: extends it forward from its seed as far as it pays, and lets
/// the next one, which begins at `next`, grow backward. If both want the same bytes, they are split
/// where most are right.
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
    // Extent of the next copy backward.
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

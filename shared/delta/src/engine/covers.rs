//! Copies: which parts of the new image come from which parts of the old one, and the resulting map
//! from old to new offsets.

use std::collections::BinaryHeap;

/// One copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cover {
    /// Offset in the old image.
    pub(crate) old: u32,
    /// Offset in the new image.
    pub(crate) new: u32,
    /// Its length in bytes.
    pub(crate) length: u32,
}

/// Number of diagonals (old offset minus new offset) that are remembered, the latest first.
pub(crate) const RECENT: usize = 16;

/// A part of the new image, in order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A cover, or the part of it inside the range.
    Copy(Cover),
    /// Bytes in no cover, with the whole covers on both sides.
    Gap {
        from: u32,
        to: u32,
        before: Option<Cover>,
        after: Option<Cover>,
    },
}

/// Walks the bytes from `from` to `to` of the new image; `covers` are sorted by their offset in it.
pub(crate) fn walk(covers: &[Cover], from: u32, to: u32) -> impl Iterator<Item = Step> + '_ {
    let mut at = covers.partition_point(|c| c.new.saturating_add(c.length) <= from);
    let mut position = from;
    std::iter::from_fn(move || {
        if position >= to {
            return None;
        }
        let cover = covers.get(at).copied();
        let begin = position;
        Some(match cover {
            Some(cover) if cover.new <= begin => {
                position = (cover.new + cover.length).min(to);
                at += usize::from(position == cover.new + cover.length);
                Step::Copy(Cover {
                    old: cover.old + (begin - cover.new),
                    new: begin,
                    length: position - begin,
                })
            }
            _ => {
                position = cover.map_or(to, |c| c.new.min(to));
                Step::Gap {
                    from: begin,
                    to: position,
                    before: at.checked_sub(1).and_then(|i| covers.get(i)).copied(),
                    after: cover,
                }
            }
        })
    })
}

/// Maps old offsets to new ones: the covers, made disjoint in the old image.
#[derive(Debug, Default)]
pub(crate) struct CoverMap {
    /// Sorted by `old`, not overlapping.
    pieces: Vec<Cover>,
    /// For each 2^`log` bytes of the old image, the first piece that ends after they begin.
    index: Vec<u32>,
    log: u32,
}

/// Cuts covers, sorted by their old offset, so that each old byte is in the longest one that
/// contains it.
fn disjoint(sorted: &[Cover]) -> Vec<Cover> {
    let mut pieces: Vec<Cover> = Vec::with_capacity(sorted.len());
    // Covers that have begun, the longest first.
    let mut open: BinaryHeap<(u32, usize)> = BinaryHeap::new();
    let (mut next, mut at) = (0usize, 0u64);
    let end = |c: &Cover| u64::from(c.old) + u64::from(c.length);
    while next < sorted.len() || !open.is_empty() {
        if open.is_empty() {
            at = at.max(u64::from(sorted[next].old));
        }
        while let Some(cover) = sorted.get(next).filter(|c| u64::from(c.old) <= at) {
            open.push((cover.length, next));
            next += 1;
        }
        let Some(&(_, top)) = open.peek() else {
            continue;
        };
        let cover = &sorted[top];
        if end(cover) <= at {
            open.pop();
            continue;
        }
        // Continues to its end, or to where the next one begins.
        let stop = sorted
            .get(next)
            .map_or(u64::MAX, |c| u64::from(c.old))
            .min(end(cover));
        let skip = (at - u64::from(cover.old)) as u32;
        let piece = Cover {
            old: at as u32,
            new: cover.new.wrapping_add(skip),
            length: (stop - at) as u32,
        };
        match pieces.last_mut() {
            Some(last)
                if last.old + last.length == piece.old
                    && last.new.wrapping_add(last.length) == piece.new =>
            {
                last.length += piece.length;
            }
            _ => pieces.push(piece),
        }
        at = stop;
    }
    pieces
}

impl CoverMap {
    /// Builds the map from covers in any order. Where two cover the same old bytes, the longer one
    /// counts.
    pub(crate) fn new(covers: &[Cover], more: &[Cover]) -> Self {
        let mut sorted: Vec<Cover> = covers
            .iter()
            .chain(more)
            .copied()
            .filter(|c| c.length > 0)
            .collect();
        // A total order: standard libraries differ in how they sort equal elements.
        sorted.sort_unstable_by_key(|c| (c.old, c.length, c.new));
        let mut pieces = disjoint(&sorted);
        // Covers may cut each other into twice as many pieces; the promised memory is for fewer.
        let most = sorted.len() + sorted.len() / 4;
        let mut shortest = 1;
        while pieces.len() > most {
            shortest += shortest / 2 + 1;
            pieces.retain(|c| c.length >= shortest);
        }
        pieces.shrink_to_fit();
        drop(sorted);
        let span = pieces
            .last()
            .map_or(0, |c| u64::from(c.old) + u64::from(c.length));
        let mut log = 6;
        while span >> log > 1 << 16 {
            log += 1;
        }
        let mut index = Vec::with_capacity((span >> log) as usize + 2);
        let mut piece = 0usize;
        for slot in 0..=(span >> log) {
            let begin = slot << log;
            while pieces
                .get(piece)
                .is_some_and(|c| u64::from(c.old) + u64::from(c.length) <= begin)
            {
                piece += 1;
            }
            index.push(piece as u32);
        }
        Self { pieces, index, log }
    }

    /// Maps an old offset to a new one. Between two covers the nearer one counts, and `false` marks
    /// the result as a guess.
    #[inline]
    pub(crate) fn map(&self, old: u32) -> Option<(u32, bool)> {
        let slot = (old >> self.log) as usize;
        let bound = |slot: usize| {
            self.index
                .get(slot)
                .map_or(self.pieces.len(), |&i| i as usize)
        };
        // The first piece that ends after `old` is among those of this slot and the next.
        let (low, high) = (bound(slot), (bound(slot + 1) + 1).min(self.pieces.len()));
        let among = self.pieces.get(low..high).unwrap_or(&[]);
        let at = low + among.partition_point(|c| c.old + c.length <= old);
        if let Some(piece) = self.pieces.get(at)
            && old >= piece.old
        {
            return Some((piece.new.wrapping_add(old - piece.old), true));
        }
        // `at` is the first piece after `old`.
        let before = at.checked_sub(1).and_then(|i| self.pieces.get(i));
        let after = self.pieces.get(at);
        let (from_before, from_after) = (
            before.map(|c| (old - c.old - c.length, c.new.wrapping_add(old - c.old))),
            after.map(|c| (c.old - old, c.new.wrapping_sub(c.old - old))),
        );
        match (from_before, from_after) {
            (Some((d, guess)), Some((e, other))) => {
                Some((if d <= e { guess } else { other }, false))
            }
            (Some((_, guess)), None) | (None, Some((_, guess))) => Some((guess, false)),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_covers_begin_in_any_order_the_map_is_the_same() {
        // Many copies of the same old bytes: the maker and the applier must choose the same one of
        // them, whatever sort their standard library has.
        let covers: Vec<Cover> = (0..600u32)
            .map(|n| Cover {
                old: n % 7 * 100,
                new: n.wrapping_mul(0x9E37_79B1) >> 12,
                length: 50 + n % 3 * 40,
            })
            .collect();
        let pieces = |covers: &[Cover]| CoverMap::new(covers, &[]).pieces;
        let wanted = pieces(&covers);
        let mut turned = covers.clone();
        for by in [1, 7, 299, 300] {
            turned.rotate_left(by);
            assert_eq!(pieces(&turned), wanted);
            turned.reverse();
            assert_eq!(pieces(&turned), wanted);
        }
    }
}

//! Wire form of the table of covers: the gap before each, its diagonal and its length.

use super::covers::{Cover, RECENT};

/// Coder of unsigned numbers: by a model, or as plain bytes.
pub(crate) trait Numbers {
    /// Codes one number in one of [`CONTEXTS`] contexts; a reader ignores `number`. Returns `None`
    /// when there is nothing left to read.
    fn number(&mut self, number: u64, context: usize) -> Option<u64>;
}

/// Number of contexts that a number may be coded in.
pub(crate) const CONTEXTS: usize = 4 * 64;

/// Codes `count` covers. A writer passes them in `known`; for a reader it is empty. Returns `None`
/// for covers that are not sorted, or that reach outside an image.
pub(crate) fn covers<N: Numbers>(
    numbers: &mut N,
    known: &[Cover],
    count: usize,
    old_length: u64,
    new_length: u64,
) -> Option<Vec<Cover>> {
    let mut made = Vec::with_capacity(count);
    let mut new_end = 0u64;
    // Diagonals, old offset minus new offset, the latest first.
    let mut recent: Vec<i64> = vec![0];
    let (mut last_choice, mut last_length) = (0usize, 0usize);
    let size = |n: u64| (64 - n.leading_zeros()) as usize;
    for index in 0..count {
        let (gap, diagonal, length) = known.get(index).map_or((0, 0, 0), |c| {
            (
                u64::from(c.new) - new_end,
                i64::from(c.old) - i64::from(c.new),
                u64::from(c.length) - 1,
            )
        });
        let gap = numbers.number(gap, last_choice * 8 + last_length.min(15) / 2)?;
        let gap_class = size(gap).min(15) / 2;
        let new = new_end.checked_add(gap)?;
        let choice = recent.iter().position(|&d| d == diagonal).unwrap_or(RECENT);
        let choice = numbers.number(choice as u64, 64 + gap_class * 4 + last_choice)? as usize;
        let diagonal = if choice < recent.len() {
            recent.remove(choice)
        } else {
            let last = recent.first().copied()?;
            let jump = diagonal.wrapping_sub(last);
            let jump = numbers.number((jump << 1 ^ jump >> 63) as u64, 128 + gap_class)?;
            last.checked_add((jump >> 1) as i64 ^ -((jump & 1) as i64))?
        };
        recent.insert(0, diagonal);
        recent.truncate(RECENT);
        let kind = match choice {
            0 => 0,
            _ if choice < RECENT => 1,
            _ => 2,
        };
        let length = numbers
            .number(length, 192 + kind * 8 + gap_class)?
            .checked_add(1)?;
        let old = u64::try_from(i64::try_from(new).ok()?.checked_add(diagonal)?).ok()?;
        new_end = new.checked_add(length)?;
        if old.checked_add(length)? > old_length || new_end > new_length {
            return None;
        }
        made.push(Cover {
            old: u32::try_from(old).ok()?,
            new: u32::try_from(new).ok()?,
            length: u32::try_from(length).ok()?,
        });
        last_choice = if kind == 2 { 3 } else { choice.min(2) };
        last_length = size(length);
    }
    Some(made)
}

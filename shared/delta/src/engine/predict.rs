//! Following references: where an old reference leads in the new image, and which bytes encode
//! that.

use super::covers::CoverMap;
use super::layout::{Layout, Region, space_at};
use super::refs::{self, Form, NUMBER, Reference};

/// Destinations in the new image that were observed for old references.
#[derive(Debug)]
struct Learned {
    /// Old offset, new offset, number of confirmations.
    entries: Vec<(u32, u32, u8)>,
}

impl Learned {
    const LOG: u32 = 16;

    fn new() -> Self {
        Self {
            entries: vec![(u32::MAX, 0, 0); 1 << Self::LOG],
        }
    }

    #[inline]
    fn slot(old: u32) -> usize {
        (old.wrapping_mul(0x9E37_79B1) >> (32 - Self::LOG)) as usize
    }

    #[inline]
    fn get(&self, old: u32) -> Option<(u32, u8)> {
        let (key, new, sure) = self.entries[Self::slot(old)];
        (key == old).then_some((new, sure))
    }

    #[inline]
    fn put(&mut self, old: u32, new: u32) {
        let entry = &mut self.entries[Self::slot(old)];
        *entry = if entry.0 == old && entry.1 == new {
            (old, new, (entry.2 + 1).min(7))
        } else {
            (old, new, 0)
        };
    }
}

/// One prediction of what a reference becomes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guess {
    /// Predicted bytes, as many as the form is wide.
    pub(crate) bytes: [u8; 8],
    /// New offset that they refer to.
    pub(crate) to: u32,
    /// Its source: 0 a copy near by, 1 a copy, 2 and more what was learned, by its confirmations.
    pub(crate) source: u8,
}

/// A reference in a copy, with its predictions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) reference: Reference,
    /// The old bytes.
    pub(crate) old: [u8; 8],
    /// The likelier prediction.
    pub(crate) first: Guess,
    /// Predictions from what was learned and from the copies, if both exist.
    pub(crate) both: Option<(Guess, Guess)>,
    /// Whether a copy contains its old destination itself: 0 or 1; 2 if the copies predict nothing.
    pub(crate) exact: u8,
}

/// Predicts what references become.
#[derive(Debug)]
pub(crate) struct Predictor<'a> {
    layout: &'a Layout,
    map: &'a CoverMap,
    learned: Learned,
    /// Recent numbers and what they became.
    numbers: [(u32, u32); 8],
    next_number: usize,
    old_hint: usize,
    new_hint: usize,
}

impl<'a> Predictor<'a> {
    pub(crate) fn new(layout: &'a Layout, map: &'a CoverMap) -> Self {
        Self {
            layout,
            map,
            learned: Learned::new(),
            numbers: [(0, 0); 8],
            next_number: 0,
            old_hint: 0,
            new_hint: 0,
        }
    }

    /// Returns the region that holds an old offset.
    pub(crate) fn region_at(&self, offset: u32) -> Region {
        self.layout.region_at(offset)
    }

    /// Finds the reference that begins at `window[here]`, which is at `offset` of the old image and
    /// is to be copied to `position` of the new one. Returns `None` if there is none, if nothing
    /// predicts it, or if it is longer than `left` bytes.
    #[inline]
    pub(crate) fn find(
        &mut self,
        window: &[u8],
        here: usize,
        offset: u32,
        region: &Region,
        position: u32,
        left: u32,
    ) -> Option<Found> {
        let inside = offset.wrapping_sub(region.start);
        if left < 4 || !refs::may_begin(window, here, inside, region.kind) {
            return None;
        }
        let space = space_at(&self.layout.old, offset, &mut self.old_hint)?;
        let reference = refs::find(window, here, offset, region, &self.layout.records, space)?;
        let width = reference.form.width();
        if width as u32 > left {
            return None;
        }
        let space = space_at(&self.layout.new, position, &mut self.new_hint)?;
        let mut old = [0; 8];
        old[..width].copy_from_slice(&window[here..here + width]);
        let guess = |to: u32, source: u8| {
            let bytes = refs::write(reference.form, old, position, to, space)?;
            Some(Guess { bytes, to, source })
        };
        let learned = self
            .learned
            .get(reference.to)
            .and_then(|(to, sure)| guess(to, 2 + sure));
        let mapped = match reference.form {
            Form::Number => Some((self.shifted(reference.to), false)),
            _ => self.map.map(reference.to),
        };
        let mapped = mapped.and_then(|(to, exact)| guess(to, u8::from(exact)));
        Some(Found {
            reference,
            old,
            first: learned.or(mapped)?,
            both: learned.zip(mapped),
            exact: mapped.map_or(2, |m| m.source),
        })
    }

    /// Makes the distance in the word of a reference at `position` absolute, or with `back`
    /// relative again: see [`refs::absolute`].
    pub(crate) fn absolute(&mut self, form: Form, word: u32, position: u32, back: bool) -> u32 {
        match space_at(&self.layout.new, position, &mut self.new_hint) {
            Some(space) => refs::absolute(form, word, position, space, back),
            None => word,
        }
    }

    /// Returns the offset that the bytes of a reference at `position` refer to.
    pub(crate) fn read(&mut self, form: Form, bytes: [u8; 8], position: u32) -> Option<u32> {
        let space = space_at(&self.layout.new, position, &mut self.new_hint)?;
        refs::read(form, bytes, position, space)
    }

    /// Returns the bytes of a reference at `position` to `to`, written over the old ones.
    pub(crate) fn write(
        &mut self,
        form: Form,
        old: [u8; 8],
        position: u32,
        to: u32,
    ) -> Option<[u8; 8]> {
        let space = space_at(&self.layout.new, position, &mut self.new_hint)?;
        refs::write(form, old, position, to, space)
    }

    /// Rounds `to` up to a multiple of 16 addresses, seen from `position`: where a function may
    /// begin.
    pub(crate) fn align(&mut self, to: u32, position: u32) -> u32 {
        let Some(space) = space_at(&self.layout.new, position, &mut self.new_hint) else {
            return to;
        };
        let address = space.address_of(to).unwrap_or(0) as u32;
        to.wrapping_add(address.wrapping_neg() & 15)
    }

    /// Shifts a number by as much as the nearest of the recent ones.
    fn shifted(&self, number: u32) -> u32 {
        let near = self.numbers.iter().min_by_key(|n| n.0.abs_diff(number));
        near.map_or(number, |&(old, new)| {
            number.wrapping_add(new.wrapping_sub(old)) | NUMBER
        })
    }

    /// Learns what a reference became.
    pub(crate) fn learn(&mut self, found: &Found, bytes: [u8; 8], position: u32) {
        let width = found.reference.form.width();
        let known = [Some(found.first), found.both.map(|b| b.1)];
        let known = known
            .into_iter()
            .flatten()
            .find(|g| g.bytes[..width] == bytes[..width])
            .map(|g| g.to);
        let to = known.or_else(|| self.read(found.reference.form, bytes, position));
        if let Some(to) = to {
            self.learned.put(found.reference.to, to);
            if found.reference.form == Form::Number {
                self.numbers[self.next_number % 8] = (found.reference.to, to);
                self.next_number = self.next_number.wrapping_add(1);
            }
        }
    }
}

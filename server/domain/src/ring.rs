//! Ring and frontier: which devices a wave has admitted, as one number.
//!
//! A device draws a ring position once. A rollout draws a salt. A device's place in the rollout is
//! `(ring - salt) mod 2^63`; a wave admits the devices whose place is below its frontier. A
//! frontier only rises, so a device never leaves a wave; the salt makes every rollout start with
//! different devices.

/// Number of positions on the ring: 2^63, so that a position fits a signed 64-bit column.
const SPAN: u64 = 1 << 63;

/// A position on the ring, below 2^63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ring(u64);

impl Ring {
    /// Builds a position from 64 random bits; drops the highest bit.
    pub fn from_random(bits: u64) -> Self {
        Self(bits & (SPAN - 1))
    }

    /// The position as it is stored.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Ring position at a place in a rollout with this salt; the inverse of [`Ring::place`].
    pub fn at_place(place: u64, salt: Ring) -> Self {
        Self(place.wrapping_add(salt.0) & (SPAN - 1))
    }

    /// Place of a device with this position in a rollout with this salt.
    pub fn place(self, salt: Ring) -> Place {
        Place(self.0.wrapping_sub(salt.0) & (SPAN - 1))
    }
}

/// A device's place in one rollout, below 2^63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

impl Place {
    /// The place as a number.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Admission bound of a wave: devices with a place below it are admitted. 0 to 2^63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Frontier(u64);

impl Frontier {
    /// Admits nobody.
    pub const NONE: Self = Self(0);
    /// Admits everybody, devices that join later included.
    pub const ALL: Self = Self(SPAN);

    /// Reads a stored value; anything beyond the ring admits everybody.
    pub fn from_stored(value: u64) -> Self {
        Self(value.min(SPAN))
    }

    /// The number as it is stored.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The frontier just beyond a place, so that the place is admitted.
    pub fn beyond(place: Place) -> Self {
        Self(place.0 + 1)
    }

    /// Returns whether a place is admitted.
    pub fn admits(self, place: Place) -> bool {
        place.0 < self.0
    }

    /// The frontier that admits exactly the `count` smallest of the places, or all of them when
    /// there are fewer. Reorders the slice. Linear time.
    pub fn admitting(places: &mut [Place], count: u64) -> Self {
        let count = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(places.len());
        let Some(last) = count.checked_sub(1) else {
            return Self::NONE;
        };
        let (_, place, _) = places.select_nth_unstable(last);
        Self::beyond(*place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frontier_admits_exactly_the_wanted_number(
            rings in prop::collection::btree_set(any::<u64>(), 0..200),
            salt in any::<u64>(),
            count in 0u64..250,
        ) {
            let salt = Ring::from_random(salt);
            let mut places: Vec<Place> =
                rings.iter().map(|r| Ring::from_random(*r).place(salt)).collect();
            places.sort_unstable();
            places.dedup();
            let wanted = count.min(places.len() as u64);
            let frontier = Frontier::admitting(&mut places, count);
            let admitted = places.iter().filter(|p| frontier.admits(**p)).count() as u64;
            prop_assert_eq!(admitted, wanted);
        }

        #[test]
        fn a_rising_frontier_never_lets_a_device_go(
            ring in any::<u64>(), salt in any::<u64>(), a in any::<u64>(), b in any::<u64>(),
        ) {
            let place = Ring::from_random(ring).place(Ring::from_random(salt));
            let (low, high) = (Frontier::from_stored(a.min(b)), Frontier::from_stored(a.max(b)));
            prop_assert!(!low.admits(place) || high.admits(place));
            prop_assert!(Frontier::ALL.admits(place));
            prop_assert!(!Frontier::NONE.admits(place));
        }
    }

    #[test]
    fn the_last_position_of_the_ring_can_be_admitted_too() {
        let last = Ring::from_random(u64::MAX).place(Ring::from_random(0));
        assert_eq!(Frontier::beyond(last), Frontier::ALL);
    }
}

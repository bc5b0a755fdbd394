#![doc = include_str!("../README.md")]

pub mod access;
pub mod admission;
pub mod approval;
pub mod client;
pub mod contact;
pub mod deployment;
pub mod event;
pub mod hold;
pub mod incident;
pub mod lifecycle;
pub mod path;
pub mod people;
pub mod requests;
pub mod ring;
pub mod rollout;
pub mod selector;
pub mod transport;
pub mod version_gate;
pub mod window;

/// A share in hundredths of a percent, 0 to 10,000. Integers, never floats: every replica must
/// come to the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BasisPoints(u16);

/// The number is above 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} basis points are more than 10,000 (100 %)")]
pub struct TooMuch(pub u32);

impl BasisPoints {
    /// The whole, 100 %.
    pub const ALL: Self = Self(10_000);

    /// Builds a share from hundredths of a percent; refuses more than 10,000.
    pub fn new(points: u32) -> Result<Self, TooMuch> {
        u16::try_from(points)
            .ok()
            .filter(|p| *p <= 10_000)
            .map(Self)
            .ok_or(TooMuch(points))
    }

    /// Hundredths of a percent.
    pub fn get(self) -> u32 {
        u32::from(self.0)
    }

    /// This share of a count, rounded up: a share above zero of at least one is at least one.
    pub fn of(self, count: u64) -> u64 {
        let product = u128::from(count) * u128::from(self.0);
        u64::try_from(product.div_ceil(10_000)).unwrap_or(u64::MAX)
    }

    /// Returns whether `part` of `whole` is more than this share.
    pub fn is_exceeded_by(self, part: u64, whole: u64) -> bool {
        u128::from(part) * 10_000 > u128::from(whole) * u128::from(self.0)
    }
}

impl std::fmt::Display for BasisPoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole} %"),
            (whole, part) => write!(f, "{whole}.{part:02} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_up_and_never_overflow() {
        let fifth = BasisPoints::new(2_000).unwrap();
        assert_eq!(fifth.of(0), 0);
        assert_eq!(fifth.of(1), 1);
        assert_eq!(fifth.of(24), 5);
        assert_eq!(BasisPoints::ALL.of(u64::MAX), u64::MAX);
        assert!(BasisPoints::new(10_001).is_err());
    }

    #[test]
    fn a_share_is_exceeded_only_beyond_it() {
        let two = BasisPoints::new(200).unwrap();
        assert!(!two.is_exceeded_by(2, 100));
        assert!(two.is_exceeded_by(3, 100));
        assert_eq!(two.to_string(), "2 %");
        assert_eq!(BasisPoints::new(205).unwrap().to_string(), "2.05 %");
    }
}

//! Version floors: what a device has seen, stored apart from the files themselves.
//!
//! The stored files alone set a floor only while they are intact. A device whose folder was
//! damaged, or restored from an old copy, must not be talked into an older repository.

use serde::{Deserialize, Serialize};
use tidegate_protocol::Sha256;

use crate::TrustError;

/// Lowest version of a file that is accepted, and the keys under which it was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The version.
    pub version: u64,
    /// Keys that vouched for it. Once other keys have replaced them, the floor is void: that is how
    /// a repository recovers from a thief who signed an enormous version (TUF 5.3.11). `None`: the
    /// floor holds whoever signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Sha256>,
}

impl Floor {
    /// Refuses a version below the floor.
    pub(crate) fn check(self, file: &str, version: u64, keys: Sha256) -> Result<(), TrustError> {
        // The specification counts versions from 1.
        if version == 0 {
            return Err(TrustError::field(file, "it has version 0"));
        }
        let holds = self.keys.is_none_or(|known| known == keys);
        if holds && version < self.version {
            return Err(TrustError::BelowVersionFloor {
                file: file.to_owned(),
                got: version,
                floor: self.version,
            });
        }
        Ok(())
    }

    /// Returns the floor after a version was seen.
    pub(crate) fn raised(self, version: u64, keys: Sha256) -> Self {
        match self.keys {
            // A floor that was handed to the device from outside stays until a version overtakes
            // it.
            None if self.version > version => self,
            _ => Self {
                version,
                keys: Some(keys),
            },
        }
    }
}

/// The floors of one repository on one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floors {
    /// The newest root seen. A chain that ends below it is an old copy.
    #[serde(default)]
    pub root: u64,
    /// `timestamp`.
    #[serde(default)]
    pub timestamp: Floor,
    /// `snapshot`.
    #[serde(default)]
    pub snapshot: Floor,
    /// `targets`.
    #[serde(default)]
    pub targets: Floor,
    /// The device's product-channel role.
    #[serde(default)]
    pub role: Floor,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Sha256 {
        Sha256::from_bytes([n; 32])
    }

    #[test]
    fn a_floor_holds_under_its_keys_and_is_void_under_others() {
        let floor = Floor::default().raised(7, key(1));
        assert!(floor.check("x", 6, key(1)).is_err());
        floor.check("x", 7, key(1)).unwrap();
        floor.check("x", 1, key(2)).unwrap();
        assert!(floor.check("x", 0, key(2)).is_err());
        assert_eq!(floor.raised(1, key(2)).version, 1);
    }

    #[test]
    fn a_floor_from_outside_holds_under_any_keys() {
        let floor = Floor {
            version: 7,
            keys: None,
        };
        assert!(floor.check("x", 6, key(1)).is_err());
        assert!(floor.check("x", 6, key(2)).is_err());
        assert_eq!(floor.raised(9, key(1)).version, 9);
    }
}

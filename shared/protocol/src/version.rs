//! Semantic versions, bounded in length.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A semantic version (semver 2.0) of at most [`Version::MAX_LEN`] characters, without build
/// metadata: two versions that compare equal must be the same release.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(semver::Version);

/// Error for a text that is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseVersionError {
    /// Longer than [`Version::MAX_LEN`].
    #[error("a version has at most {} characters", Version::MAX_LEN)]
    TooLong,
    /// Not of the form MAJOR.MINOR.PATCH[-pre].
    #[error("not a semantic version (MAJOR.MINOR.PATCH, for example 1.4.0): {0}")]
    NotSemver(String),
    /// Carries `+build`, which semver ignores in comparisons.
    #[error("build metadata (+...) is not allowed: it would give one release two names")]
    BuildMetadata,
}

impl Version {
    /// Maximum length of a version, in characters.
    pub const MAX_LEN: usize = 64;

    /// Creates a plain release version.
    pub fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self(semver::Version::new(major, minor, patch))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        if text.len() > Self::MAX_LEN {
            return Err(ParseVersionError::TooLong);
        }
        let version = semver::Version::parse(text)
            .map_err(|e| ParseVersionError::NotSemver(e.to_string()))?;
        if !version.build.is_empty() {
            return Err(ParseVersionError::BuildMetadata);
        }
        Ok(Self(version))
    }
}

impl TryFrom<String> for Version {
    type Error = ParseVersionError;
    fn try_from(text: String) -> Result<Self, ParseVersionError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_semver_orders_them() {
        let order = ["0.9.0", "1.0.0-alpha.1", "1.0.0", "1.2.0", "1.10.0"];
        let parsed: Vec<Version> = order.iter().map(|t| t.parse().unwrap()).collect();
        assert!(parsed.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn build_metadata_is_refused() {
        assert_eq!(
            "1.0.0+x".parse::<Version>(),
            Err(ParseVersionError::BuildMetadata)
        );
    }

    #[test]
    fn an_endless_version_is_refused() {
        let long = format!("1.0.0-{}", "a".repeat(100));
        assert_eq!(long.parse::<Version>(), Err(ParseVersionError::TooLong));
    }
}

//! Number of the wire format that agents and control plane share.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of the format of device requests, assignments, carried files and the agent's journal. It
/// rises whenever one of them changes in a way that the other side, or an earlier agent, would
/// misread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Format(pub u16);

impl Format {
    /// Format that this version writes and reads.
    pub const CURRENT: Self = Self(2);

    /// Format of messages that name none: they were written before formats had numbers.
    pub const fn unnamed() -> Self {
        Self(1)
    }

    /// Checks that this is the current format. The error tells which side, `theirs` or `ours`, has
    /// to be brought up to date.
    pub fn check(self, theirs: &'static str, ours: &'static str) -> Result<(), UnsupportedFormat> {
        let stale = match self.cmp(&Self::CURRENT) {
            Ordering::Equal => return Ok(()),
            Ordering::Less => theirs,
            Ordering::Greater => ours,
        };
        Err(UnsupportedFormat {
            found: self,
            theirs,
            ours,
            stale,
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Error: the two sides were built for different formats.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{theirs} uses format {found} and {ours} uses format {current}: install a newer version of {stale}",
    current = Format::CURRENT
)]
pub struct UnsupportedFormat {
    found: Format,
    theirs: &'static str,
    ours: &'static str,
    stale: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_side_is_the_one_to_update() {
        let text = |format: Format| {
            format
                .check("the agent", "this server")
                .map_err(|e| e.to_string())
        };
        assert_eq!(text(Format::CURRENT), Ok(()));
        assert_eq!(
            text(Format::unnamed()).unwrap_err(),
            "the agent uses format 1 and this server uses format 2: install a newer version of the agent"
        );
        assert!(
            text(Format(9))
                .unwrap_err()
                .ends_with("newer version of this server")
        );
    }
}

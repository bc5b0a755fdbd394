//! How images are transported.

use serde::{Deserialize, Serialize};

/// How a payload encodes its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// The image's own bytes. Needs nothing made ahead: available the moment it is uploaded.
    Raw,
    /// The image as one zstd frame.
    Full,
    /// A bsdiff control stream against the old image, as one zstd frame.
    Bsdiff,
    /// Copies and followed references against the old image, with zstd behind them: fast.
    Quick,
    /// The same with integer context mixing behind them: small.
    Dense,
}

crate::words!(Encoding("encoding") {
    Raw = "raw",
    Full = "full",
    Bsdiff = "bsdiff",
    Quick = "quick",
    Dense = "dense",
});

impl Encoding {
    /// Whether it needs the old image.
    pub fn is_delta(self) -> bool {
        matches!(self, Self::Bsdiff | Self::Quick | Self::Dense)
    }
}

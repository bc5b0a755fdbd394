//! Encodings in which images are transported.

use serde::{Deserialize, Serialize};

/// Encoding of an image in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// The image's own bytes. Needs no preparation: available as soon as the image is uploaded.
    Raw,
    /// The image as one zstd frame.
    Full,
    /// A bsdiff control stream against the old image, as one zstd frame.
    Bsdiff,
    /// Copies and followed references against the old image, compressed with zstd: fast.
    Quick,
    /// The same, compressed with integer context mixing: small.
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
    /// Returns whether decoding needs the old image.
    pub fn is_delta(self) -> bool {
        matches!(self, Self::Bsdiff | Self::Quick | Self::Dense)
    }
}

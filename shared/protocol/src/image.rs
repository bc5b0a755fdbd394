//! Bytes by content.

use serde::{Deserialize, Serialize};

use crate::Sha256;

/// What some bytes are: their digest and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// SHA-256 of the bytes.
    pub sha256: Sha256,
    /// Their number.
    pub length: u64,
}

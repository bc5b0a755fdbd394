//! Images, identified by their content.

use serde::{Deserialize, Serialize};

use crate::Sha256;

/// Identity of some bytes: their digest and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// SHA-256 of the bytes.
    pub sha256: Sha256,
    /// Length in bytes.
    pub length: u64,
}

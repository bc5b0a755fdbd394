//! A delta as one file, written and read by `tidegate delta`.
//!
//! ```text
//! "TGDELTA1"   manifest length (u32, little-endian)   manifest (JSON)   payload
//! ```
//!
//! Nothing in it is signed: it is for people and other tools. Devices get the same manifest and
//! payload under a signed assignment.

use std::io::{self, Read, Write};

use crate::{Limits, Manifest, ManifestError, sha256};

const MAGIC: &[u8; 8] = b"TGDELTA1";

/// Reason a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// It cannot be read or written.
    #[error("the file cannot be read or written")]
    Io(#[from] io::Error),
    /// It ends inside its manifest.
    #[error("the delta is truncated: it ends inside its manifest; fetch it again")]
    Cut,
    /// It is not a delta.
    #[error("not a delta file: it does not begin with TGDELTA1")]
    NotADelta,
    /// Its manifest is refused.
    #[error("its manifest is refused")]
    Manifest(#[from] ManifestError),
}

/// Writes everything before the payload.
pub fn write_head(manifest: &Manifest, mut out: impl Write) -> Result<(), ContainerError> {
    let bytes = manifest.to_bytes()?;
    let length = u32::try_from(bytes.len()).map_err(|_| ManifestError::TooLarge(bytes.len()))?;
    out.write_all(MAGIC)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&bytes)?;
    Ok(())
}

/// Reads everything before the payload; the reader is left at the payload.
pub fn read_head(mut input: impl Read, limits: &Limits) -> Result<Manifest, ContainerError> {
    let mut head = [0; 12];
    input.read_exact(&mut head).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => ContainerError::NotADelta,
        _ => ContainerError::Io(e),
    })?;
    let Some(length) = head.strip_prefix(MAGIC) else {
        return Err(ContainerError::NotADelta);
    };
    let length = length
        .iter()
        .rev()
        .fold(0usize, |n, b| n << 8 | usize::from(*b));
    if length > limits.max_manifest {
        return Err(ManifestError::TooLarge(length).into());
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => ContainerError::Cut,
        _ => ContainerError::Io(e),
    })?;
    Ok(Manifest::from_bytes(&bytes, sha256(&bytes), limits)?)
}

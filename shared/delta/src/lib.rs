//! Deltas: make them, describe them, apply them as a stream.
//!
//! An *artifact* is the bytes of one release for one platform. A *payload* is one way to
//! transport those bytes: as they are, compressed, or as a delta from another artifact. Every
//! payload is one immutable blob, cut into chunks, and a [`Manifest`] that gives the length and
//! the SHA-256 of each chunk and of the result.
//!
//! ```text
//! make:   old + new  --diff-->  payload blob + Manifest
//! apply:  Manifest + chunks (each verified before it is decoded) + old  -->  new, hashed on the way
//! ```
//!
//! Everything that arrives is hostile until verified: reads are bounded, arithmetic is checked,
//! output stops at the promised length, memory is fixed by [`Limits`] before anything is allocated.
//! The crate is useful on its own; it does no network I/O.

pub mod archive;
pub mod container;

mod apply;
mod bspatch;
mod engine;
mod limits;
mod make;
#[cfg(feature = "make")]
mod maker;
mod manifest;

pub use apply::{Applier, ApplyError, Kept, ReadAt};
pub use engine::sample::decode_sample;
pub use limits::Limits;
pub use make::{ChunkWriter, MakeError, make_bsdiff, make_full, make_raw};
#[cfg(feature = "make")]
pub use maker::{DeltaOptions, make_delta};
pub use manifest::{Chunk, Encoding, FORMAT, Manifest, ManifestError, OPENED_FORMAT};

use sha2::Digest as _;
pub use tidegate_protocol::Image;
use tidegate_protocol::Sha256;

/// SHA-256 of bytes in memory.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(bytes).into())
}

/// Incremental SHA-256 that also counts bytes.
#[derive(Clone, Default)]
pub struct Hasher {
    inner: sha2::Sha256,
    length: u64,
}

impl Hasher {
    /// Creates a hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Number of bytes hashed so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Digest and length of all bytes hashed.
    pub fn finish(self) -> Image {
        Image {
            sha256: Sha256::from_bytes(self.inner.finalize().into()),
            length: self.length,
        }
    }
}

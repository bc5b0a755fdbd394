#![doc = include_str!("../README.md")]

pub mod archive;
pub mod container;

mod apply;
mod bspatch;
mod decode;
mod engine;
mod error;
mod limits;
mod make;
#[cfg(feature = "make")]
mod maker;
mod manifest;
mod output;
mod remote;
mod sink;
mod source;

pub use apply::Applier;
pub use decode::{Decoder, Task};
pub use engine::sample::decode_sample;
pub use error::ApplyError;
pub use limits::Limits;
pub use make::{ChunkWriter, MakeError, make_bsdiff, make_full, make_raw};
#[cfg(feature = "make")]
pub use maker::{DeltaOptions, make_delta};
pub use manifest::{Chunk, Encoding, FORMAT, Manifest, ManifestError, OPENED_FORMAT};
pub use output::Kept;
pub use remote::{Conversation, Remote, serve};
pub use sink::Sink;
pub use source::ReadAt;

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

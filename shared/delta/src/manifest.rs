//! Manifest: the chunks of a payload and the image that they make.

use serde::{Deserialize, Serialize};
pub use tidegate_protocol::Encoding;
use tidegate_protocol::{Image, Sha256};

use crate::{Limits, sha256};

/// Version of the manifest and of the encodings that it names.
pub const FORMAT: u32 = 1;
/// Version of manifests whose payload unpacks the old image: [`Manifest::scratch`].
pub const OPENED_FORMAT: u32 = 2;

/// One piece of the payload blob: the pieces follow each other without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Its length in bytes.
    pub length: u32,
    /// Its SHA-256.
    pub sha256: Sha256,
}

/// Contents and result of a payload. Authenticated by its own SHA-256, which a signed assignment
/// carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`], or [`OPENED_FORMAT`].
    pub format: u32,
    /// Encoding of the payload.
    pub encoding: Encoding,
    /// The old image that a delta starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Image>,
    /// Image that the payload makes.
    pub to: Image,
    /// The payload blob as a whole.
    pub payload: Image,
    /// zstd window that decoding needs, as a power of two; 0 where none is needed.
    pub window_log: u32,
    /// Memory that decoding takes, in bytes, without the chunk that the caller holds.
    #[serde(default)]
    pub memory: u64,
    /// Cost of decoding beyond copying, in bits coded by models; a device knows how many of those
    /// it decodes per second.
    #[serde(default)]
    pub work: u64,
    /// Size in bytes of the file into which the old image is unpacked while the payload is applied;
    /// 0 if the image is read as it is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub scratch: u64,
    /// The chunks in order.
    pub chunks: Vec<Chunk>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Reason a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Larger than the limit.
    #[error("the manifest is too large: {0} bytes")]
    TooLarge(usize),
    /// Its bytes do not have the promised digest.
    #[error("the manifest does not have the expected SHA-256")]
    WrongDigest,
    /// It has no form as JSON.
    #[error("the manifest cannot be written: {0}")]
    Unwritable(String),
    /// Not valid JSON of the expected shape.
    #[error("the manifest cannot be read: {0}")]
    Malformed(String),
    /// A format that this version does not know.
    #[error("manifest format {0} is not supported: applying it needs a newer version")]
    UnknownFormat(u32),
    /// A part of it contradicts another.
    #[error("the manifest contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// The payload is to be decoded, and the limits allow none of that.
    #[error("the payload is encoded ({0}) and nothing is decoded here")]
    Encoded(Encoding),
    /// It asks for more than the limits allow.
    #[error("the manifest exceeds a limit: {0}")]
    OverLimit(&'static str),
}

impl Manifest {
    /// Returns the exact bytes that are stored and hashed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        serde_json::to_vec(self).map_err(|e| ManifestError::Unwritable(e.to_string()))
    }

    /// Reads a manifest that must have the given digest, and checks it against the limits.
    pub fn from_bytes(
        bytes: &[u8],
        expected: Sha256,
        limits: &Limits,
    ) -> Result<Self, ManifestError> {
        if bytes.len() > limits.max_manifest {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        if sha256(bytes) != expected {
            return Err(ManifestError::WrongDigest);
        }
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|e| ManifestError::Malformed(e.to_string()))?;
        manifest.check(limits)?;
        Ok(manifest)
    }

    /// Checks that the manifest is consistent and within the limits.
    pub fn check(&self, limits: &Limits) -> Result<(), ManifestError> {
        if self.format != FORMAT && self.format != OPENED_FORMAT {
            return Err(ManifestError::UnknownFormat(self.format));
        }
        if (self.scratch > 0) != (self.format == OPENED_FORMAT) {
            return Err(ManifestError::Inconsistent(
                "format 2, and only format 2, has a `scratch`",
            ));
        }
        if self.scratch > 0 && !matches!(self.encoding, Encoding::Quick | Encoding::Dense) {
            return Err(ManifestError::Inconsistent(
                "`scratch` is for `quick` and `dense`",
            ));
        }
        if self.encoding.is_delta() != self.from.is_some() {
            return Err(ManifestError::Inconsistent(
                "a delta, and only a delta, has a `from`",
            ));
        }
        if limits.raw_only && self.encoding != Encoding::Raw {
            return Err(ManifestError::Encoded(self.encoding));
        }
        if self.chunks.len() > limits.max_chunks {
            return Err(ManifestError::OverLimit("chunks"));
        }
        if self.to.length > limits.max_image {
            return Err(ManifestError::OverLimit("image length"));
        }
        if self.scratch > limits.max_image {
            return Err(ManifestError::OverLimit("scratch"));
        }
        if self.window_log > limits.max_window_log {
            return Err(ManifestError::OverLimit("zstd window"));
        }
        if self.memory > limits.max_memory {
            return Err(ManifestError::OverLimit("memory"));
        }
        if self.chunks.iter().any(|c| c.length > limits.max_chunk) {
            return Err(ManifestError::OverLimit("chunk length"));
        }
        if self.chunks.iter().any(|c| c.length == 0) {
            return Err(ManifestError::Inconsistent("a chunk is empty"));
        }
        let sum: u64 = self.chunks.iter().map(|c| u64::from(c.length)).sum();
        if sum != self.payload.length {
            return Err(ManifestError::Inconsistent(
                "chunk lengths do not add up to the payload",
            ));
        }
        if self.encoding == Encoding::Raw && self.payload != self.to {
            return Err(ManifestError::Inconsistent(
                "a raw payload is the image itself",
            ));
        }
        Ok(())
    }

    /// Offset of chunk `index` in the payload blob, in bytes.
    pub fn offset(&self, index: usize) -> u64 {
        self.chunks
            .iter()
            .take(index)
            .map(|c| u64::from(c.length))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make_raw;

    fn sample() -> Manifest {
        make_raw(&mut &b"hello"[..]).unwrap()
    }

    #[test]
    fn a_manifest_survives_being_written_and_read() {
        let manifest = sample();
        let bytes = manifest.to_bytes().unwrap();
        let read = Manifest::from_bytes(&bytes, sha256(&bytes), &Limits::default()).unwrap();
        assert_eq!(read, manifest);
    }

    #[test]
    fn one_changed_byte_is_refused_before_it_is_parsed() {
        let bytes = sample().to_bytes().unwrap();
        let digest = sha256(&bytes);
        let mut bad = bytes;
        bad[0] = b' ';
        let read = Manifest::from_bytes(&bad, digest, &Limits::default());
        assert_eq!(read, Err(ManifestError::WrongDigest));
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let mut manifest = sample();
        manifest.chunks[0].length += 1;
        assert!(matches!(
            manifest.check(&Limits::default()),
            Err(ManifestError::Inconsistent(_))
        ));
    }

    #[test]
    fn what_exceeds_the_limits_is_refused() {
        let small = Limits {
            max_image: 4,
            ..Limits::default()
        };
        assert_eq!(
            sample().check(&small),
            Err(ManifestError::OverLimit("image length"))
        );
        let small = Limits {
            max_chunk: 4,
            ..Limits::default()
        };
        assert_eq!(
            sample().check(&small),
            Err(ManifestError::OverLimit("chunk length"))
        );
    }
}

//! Reasons a payload cannot be applied.

use std::borrow::Cow;
use std::io;

use crate::ManifestError;

/// Reason a payload could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The manifest is refused.
    #[error("the manifest is refused")]
    Manifest(#[from] ManifestError),
    /// A delta needs the old image and none was given.
    #[error("the payload is a delta, but no old image was given")]
    NoOldImage,
    /// A chunk does not match the manifest. Nothing of it was decoded.
    #[error("chunk {index} does not match the manifest: wrong {what}")]
    ChunkCorrupt {
        /// Index of the chunk, from 0.
        index: usize,
        /// Property that differs: length or digest.
        what: &'static str,
    },
    /// More chunks than the manifest lists.
    #[error("there are more chunks than the manifest lists")]
    ExtraChunk,
    /// The payload ended early.
    #[error("only {got} of {wanted} chunks were given")]
    MissingChunks {
        /// Chunks given.
        got: usize,
        /// Chunks listed.
        wanted: usize,
    },
    /// The payload makes more than the promised length.
    #[error("the payload produces more bytes than the image has")]
    TooLong,
    /// The payload cannot be decoded.
    #[error("the payload cannot be decoded: {0}")]
    Decode(Cow<'static, str>),
    /// The decoder's process could not be started, or was ended from outside.
    #[error("the decoder of payloads cannot run")]
    NoDecoder(#[source] io::Error),
    /// The compressed stream is damaged or needs more memory than allowed.
    #[error("the payload cannot be decompressed")]
    Decompress(#[source] io::Error),
    /// The result is not the promised image.
    #[error("the result is not the promised image")]
    WrongImage,
    /// The payload unpacks the old image, and no file was given for that.
    #[error("the payload needs a scratch file to unpack the old image into, and none was given")]
    NoScratch,
    /// The file into which the old image is unpacked cannot be written.
    #[error("the old image cannot be unpacked into the scratch file")]
    Scratch(#[source] io::Error),
    /// The old image cannot be read.
    #[error("the old image cannot be read")]
    ReadOld(#[source] io::Error),
    /// The part written by an earlier apply cannot be read.
    #[error("the part of the new image written so far cannot be read")]
    ReadKept(#[source] io::Error),
    /// The new image cannot be written.
    #[error("the new image cannot be written")]
    Write(#[source] io::Error),
}

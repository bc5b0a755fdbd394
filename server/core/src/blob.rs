//! Blobs: immutable bytes named by their SHA-256, in a folder or in S3.

use std::io::Read;
use std::num::NonZero;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, WriteMultipart};
use tidegate_delta::{ChunkWriter, Encoding, FORMAT, Limits, Manifest};
use tidegate_protocol::{Image, Sha256};
use tidegate_store::Space;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Location of the blobs.
#[derive(Debug, Clone)]
pub enum BlobSettings {
    /// A folder.
    Folder(PathBuf),
    /// An S3 bucket; credentials come from the usual AWS environment variables.
    S3 {
        /// The bucket.
        bucket: String,
        /// A prefix for every key, without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl BlobSettings {
    /// Parses a folder's path or `s3://bucket/prefix`.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("s3://") {
            None => Self::Folder(PathBuf::from(text)),
            Some(rest) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                Self::S3 {
                    bucket: bucket.to_owned(),
                    prefix: prefix.trim_matches('/').to_owned(),
                }
            }
        }
    }
}

/// Reason a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store failed.
    #[error("the blob store failed")]
    Store(#[from] object_store::Error),
    /// The source of the bytes could not be read.
    #[error("the upload was interrupted")]
    Read(#[source] std::io::Error),
    /// The bytes do not have the announced digest.
    #[error("the bytes have the SHA-256 {got}, not {wanted}")]
    WrongDigest {
        /// Announced digest.
        wanted: Sha256,
        /// Digest of the received bytes.
        got: Sha256,
    },
    /// More bytes than allowed.
    #[error("more than {0} bytes")]
    TooLarge(u64),
    /// The disk has no more than what is kept for the database.
    #[error(
        "the server's disk has {} MiB left, of which {} are kept for orders such as a halt: make room on it, or \
         keep the blobs elsewhere (--blobs)",
        free >> 20,
        kept >> 20
    )]
    Full {
        /// Bytes that are free.
        free: u64,
        /// Bytes that are kept.
        kept: u64,
    },
    /// The folder cannot be used.
    #[error("the blob folder {0} cannot be used")]
    Folder(String, #[source] std::io::Error),
    /// The stored bytes do not match the recorded length or digest.
    #[error("a stored blob is damaged: {0}")]
    Damaged(String),
}

/// The blob store.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The folder, where it is one.
    folder: Option<PathBuf>,
    /// Whether the probe was written when the store was opened, as it is in a folder: where it is
    /// gone, so are the blobs, as with a mount that was lost and left an empty folder.
    probed: bool,
    /// Turns of reading from a disk; `None` where no thread is held for it.
    turns: Option<Arc<Semaphore>>,
}

/// Name of the object that readiness asks for.
const PROBE: &str = "readiness-probe";
/// Size of the parts of a multipart upload: at least 5 MiB for S3; an upload takes the memory of a
/// few parts.
const PART: usize = 8 << 20;
/// Parts in flight at once.
const PARTS_IN_FLIGHT: usize = 2;
/// Fewest turns of reading from a disk.
const FEWEST_TURNS: usize = 4;
/// Bytes that an upload may write before the disk is looked at again, beside those that it leaves there: the
/// database is often on the same one, and a halt is written there.
pub const NEXT_PARTS: u64 = (PART * PARTS_IN_FLIGHT) as u64;

/// Number of threads that read from a disk at once. Each takes its part of the processors from what
/// answers people: among hundreds of them a halt waited for a second.
fn turns() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    processors.saturating_mul(2).max(FEWEST_TURNS)
}

impl Blobs {
    /// Opens the store. S3 credentials, region and endpoint come from the usual AWS
    /// environment variables.
    pub fn open(settings: &BlobSettings) -> Result<Self, BlobError> {
        match settings {
            BlobSettings::Folder(folder) => {
                create_private(folder)
                    .map_err(|e| BlobError::Folder(folder.display().to_string(), e))?;
                let store =
                    object_store::local::LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
                Ok(Self {
                    store: Arc::new(store),
                    prefix: Path::default(),
                    folder: Some(folder.clone()),
                    // A folder that can only be read serves what it has.
                    probed: std::fs::write(folder.join(PROBE), "").is_ok(),
                    turns: Some(Arc::new(Semaphore::new(turns()))),
                })
            }
            BlobSettings::S3 { bucket, prefix } => {
                let store = object_store::aws::AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .build()?;
                Ok(Self {
                    store: Arc::new(store),
                    prefix: Path::from(prefix.as_str()),
                    folder: None,
                    probed: false,
                    turns: None,
                })
            }
        }
    }

    /// Checks that the next parts of an upload leave on the disk what is kept there.
    fn check_free(&self) -> Result<(), BlobError> {
        let Some(space) = self.folder.as_deref().and_then(Space::at) else {
            return Ok(());
        };
        let (free, kept) = (space.free, space.kept());
        if free < kept.saturating_add(NEXT_PARTS) {
            return Err(BlobError::Full { free, kept });
        }
        Ok(())
    }

    /// Reason that uploads are refused for; `None` while there is room for them.
    pub(crate) fn refuses(&self) -> Option<String> {
        let space = self.folder.as_deref().and_then(Space::at)?;
        if space.read_only {
            return Some("the disk of the blobs can only be read: uploads are refused".into());
        }
        Some(format!("uploads are refused: {}", self.check_free().err()?))
    }

    fn path(&self, sha256: Sha256) -> Path {
        let name = sha256.to_string();
        self.prefix.clone().join(&name[..2]).join(name)
    }

    /// Stores a stream under the digest that it must have, in constant memory. Nothing becomes
    /// visible before the digest is verified. Returns the manifest of the raw payload, built on the
    /// way.
    pub async fn put_stream<E: Into<std::io::Error>>(
        &self,
        wanted: Sha256,
        limit: u64,
        stream: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Manifest, BlobError> {
        let upload = self.store.put_multipart(&self.path(wanted)).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut chunks = ChunkWriter::new(std::io::sink(), Limits::FULL_CHUNK);
        let outcome = async {
            let (mut total, mut checked) = (0u64, 0u64);
            let mut stream = std::pin::pin!(stream);
            while let Some(piece) = stream.next().await {
                let piece = piece.map_err(|e| BlobError::Read(e.into()))?;
                total += piece.len() as u64;
                if total > limit {
                    return Err(BlobError::TooLarge(limit));
                }
                if total >= checked {
                    self.check_free()?;
                    checked = total + PART as u64;
                }
                std::io::Write::write_all(&mut chunks, &piece).map_err(BlobError::Read)?;
                upload.wait_for_capacity(PARTS_IN_FLIGHT).await?;
                upload.put(piece);
            }
            Ok(())
        }
        .await;
        let (_, whole, list) = chunks.finish();
        let outcome = outcome.and_then(|()| {
            if whole.sha256 == wanted {
                Ok(())
            } else {
                Err(BlobError::WrongDigest {
                    wanted,
                    got: whole.sha256,
                })
            }
        });
        if let Err(error) = outcome {
            // The store collects the remains of an aborted upload.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.finish().await?;
        Ok(Manifest {
            format: FORMAT,
            encoding: Encoding::Raw,
            from: None,
            to: whole,
            payload: whole,
            window_log: 0,
            memory: 0,
            work: 0,
            scratch: 0,
            chunks: list,
        })
    }

    /// Stores bytes that are in memory; returns their digest and length.
    pub async fn put_bytes(&self, bytes: Vec<u8>) -> Result<Image, BlobError> {
        let image = Image {
            sha256: tidegate_delta::sha256(&bytes),
            length: bytes.len() as u64,
        };
        self.store
            .put(&self.path(image.sha256), bytes.into())
            .await?;
        Ok(image)
    }

    /// Stores a local file under the digest that it must have.
    pub async fn put_file(&self, wanted: Sha256, file: std::fs::File) -> Result<(), BlobError> {
        let file = tokio::fs::File::from_std(file);
        let stream = tokio_util::io::ReaderStream::with_capacity(file, 1 << 20);
        self.put_stream(wanted, u64::MAX, stream).await.map(drop)
    }

    /// Waits for a turn to read from the disk.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone()?.acquire_owned().await.ok()
    }

    /// Length of a stored blob; `None` when it is missing.
    pub async fn length(&self, sha256: Sha256) -> Result<Option<u64>, BlobError> {
        let _turn = self.turn().await;
        match self.store.head(&self.path(sha256)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Streams a range of a stored blob.
    pub async fn stream(
        &self,
        sha256: Sha256,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>, BlobError> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let turn = self.turn().await;
        let found = self.store.get_opts(&self.path(sha256), options).await?;
        drop(turn);
        // A turn for each piece: whoever does not read on holds none.
        let begun = (found.into_stream(), self.clone());
        let pieces = futures::stream::unfold(begun, |(mut pieces, blobs)| async move {
            let _turn = blobs.turn().await;
            let piece = pieces.next().await?;
            Some((piece, (pieces, blobs)))
        });
        Ok(pieces.boxed())
    }

    /// Reads a range of a stored blob.
    pub async fn read(&self, sha256: Sha256, range: Range<u64>) -> Result<Bytes, BlobError> {
        Ok(self.store.get_range(&self.path(sha256), range).await?)
    }

    /// Deletes a blob; a missing one is not an error.
    pub async fn delete(&self, sha256: Sha256) -> Result<(), BlobError> {
        match self.store.delete(&self.path(sha256)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies a stored blob into a local file and checks its length.
    pub async fn fetch(&self, image: Image, into: std::fs::File) -> Result<(), BlobError> {
        let stream = self.stream(image.sha256, 0..image.length).await?;
        let mut reader = tokio_util::io::StreamReader::new(stream.map_err(std::io::Error::other));
        let mut file = tokio::fs::File::from_std(into);
        let copied = tokio::io::copy(&mut reader, &mut file)
            .await
            .map_err(BlobError::Read)?;
        tokio::io::AsyncWriteExt::flush(&mut file)
            .await
            .map_err(BlobError::Read)?;
        if copied != image.length {
            return Err(BlobError::Damaged(image.sha256.to_string()));
        }
        Ok(())
    }

    /// Returns whether the store answers.
    pub async fn is_ready(&self) -> bool {
        let probe = self.prefix.clone().join(PROBE);
        match self.store.head(&probe).await {
            Ok(_) => true,
            Err(object_store::Error::NotFound { .. }) => !self.probed,
            Err(_) => false,
        }
    }
}

/// Creates a folder, accessible to its owner only: what is in it is made with the modes that the
/// umask gives.
pub fn create_private(path: &std::path::Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}

/// Reads a whole local file and verifies its digest.
pub fn read_verified(mut file: std::fs::File, image: Image) -> Result<Vec<u8>, BlobError> {
    let capacity = usize::try_from(image.length).map_err(|_| BlobError::TooLarge(image.length))?;
    let mut bytes = Vec::with_capacity(capacity);
    std::io::Seek::rewind(&mut file).map_err(BlobError::Read)?;
    file.take(image.length + 1)
        .read_to_end(&mut bytes)
        .map_err(BlobError::Read)?;
    if tidegate_delta::sha256(&bytes) != image.sha256 {
        return Err(BlobError::Damaged(image.sha256.to_string()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_read_on_holds_no_turn_of_reading() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&BlobSettings::Folder(folder.path().join("blobs"))).unwrap();
        let image = blobs.put_bytes(vec![7; 100_000]).await.unwrap();
        let mut begun = Vec::new();
        for _ in 0..=turns() {
            let mut stream = blobs.stream(image.sha256, 0..image.length).await.unwrap();
            assert!(stream.next().await.unwrap().is_ok());
            begun.push(stream);
        }
        let stream = blobs.stream(image.sha256, 0..image.length).await.unwrap();
        let read: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(read.concat(), vec![7; 100_000]);
    }
}

//! Uploaded bytes of artifacts.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tidegate_protocol::{Image, Sha256};
use tidegate_store::artifacts::{self, Payload};

use crate::CoreError;
use crate::app::App;

impl App {
    /// Stores the bytes of an artifact from a stream, in constant memory. The manifest of the raw
    /// payload, which can be served at once, is made on the way.
    pub async fn upload_blob<E: Into<std::io::Error>>(
        &self,
        sha256: Sha256,
        stream: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Image, CoreError> {
        if let Some(known) = artifacts::blob(&mut self.db.read().await?, sha256).await? {
            // Read to the end all the same: a client cut off while it is sending sees a broken pipe
            // instead of the answer.
            let mut stream = std::pin::pin!(stream);
            let mut left = self.settings.max_upload;
            while let Some(Ok(piece)) = stream.next().await {
                left = left.saturating_sub(piece.len() as u64);
                if left == 0 {
                    break;
                }
            }
            return Ok(known);
        }
        let manifest = self
            .blobs
            .put_stream(sha256, self.settings.max_upload, stream)
            .await?;
        let payload = self.store_manifest(&manifest).await?;
        self.keep_blob(manifest.to, &payload).await?;
        Ok(manifest.to)
    }

    /// Stores a manifest as a blob; returns the payload row that names it.
    pub(crate) async fn store_manifest(
        &self,
        manifest: &tidegate_delta::Manifest,
    ) -> Result<Payload, CoreError> {
        Ok(Payload {
            to: manifest.to.sha256,
            from: manifest.from.map(|f| f.sha256),
            encoding: manifest.encoding,
            manifest: self.blobs.put_bytes(manifest.to_bytes()?).await?,
            bytes: manifest.payload.length,
            memory: manifest.memory,
            work: manifest.work,
        })
    }

    /// Length of a stored blob; `None` if there is none.
    pub async fn blob_length(&self, sha256: Sha256) -> Result<Option<u64>, CoreError> {
        Ok(self.blobs.length(sha256).await?)
    }

    /// Streams a range of a stored blob.
    pub async fn read_blob(
        &self,
        sha256: Sha256,
        range: std::ops::Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>, CoreError> {
        Ok(self.blobs.stream(sha256, range).await?)
    }
}

//! Artifacts, their blobs, and the payloads for fetching them.

use tidegate_delta::Encoding;
use tidegate_protocol::{Image, Platform, ProductName, Sha256, Timestamp, Version};

use super::row::{Row, args};
use super::{StoreError, Tx, statements};

statements! {
    INSERT_ARTIFACT = "INSERT INTO artifact (product, version, platform, sha256, length, created_at)
                       VALUES ($1, $2, $3, $4, $5, $6)
                       ON CONFLICT (product, version, platform) DO NOTHING";
    ARTIFACTS = "SELECT * FROM artifact WHERE product = $1 AND version = $2 ORDER BY platform";
    ALL_ARTIFACTS = "SELECT * FROM artifact";
    INSERT_BLOB = "INSERT INTO blob (sha256, length, created_at) VALUES ($1, $2, $3)
                   ON CONFLICT (sha256) DO NOTHING";
    BLOB = "SELECT sha256, length FROM blob WHERE sha256 = $1";
    INSERT_PAYLOAD = "INSERT INTO payload (to_sha256, from_sha256, encoding, manifest_sha256, manifest_length, bytes, memory, work, created_at)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                      ON CONFLICT (to_sha256, from_sha256, encoding) DO NOTHING";
    DELETE_PAYLOAD = "DELETE FROM payload WHERE to_sha256 = $1 AND from_sha256 = $2 AND encoding = $3";
    ALL_PAYLOADS = "SELECT * FROM payload ORDER BY bytes";
}

/// A stored artifact.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The product it belongs to.
    pub product: ProductName,
    /// Version of its release.
    pub version: Version,
    /// Platform that it runs on.
    pub platform: Platform,
    /// Its image.
    pub image: Image,
}

/// A stored payload.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Hash of the image that it produces.
    pub to: Sha256,
    /// Hash of the image that it starts from; `None` for a full payload.
    pub from: Option<Sha256>,
    /// Its encoding.
    pub encoding: Encoding,
    /// Its manifest.
    pub manifest: Image,
    /// Bytes to fetch.
    pub bytes: u64,
    /// Memory needed to decode it, in bytes.
    pub memory: u64,
    /// Bits that the decoder's models have to decode.
    pub work: u64,
}

/// Adds an artifact; returns whether it is new.
pub async fn insert_artifact(
    tx: &mut Tx,
    artifact: &Artifact,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let rows = tx
        .run(
            "store an artifact",
            INSERT_ARTIFACT,
            args![
                artifact.product.as_str(),
                artifact.version.to_string(),
                artifact.platform.as_str(),
                artifact.image.sha256.to_string(),
                length(artifact.image.length),
                now.as_micros(),
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// The artifacts of a release.
pub async fn artifacts(
    tx: &mut Tx,
    product: &ProductName,
    version: &Version,
) -> Result<Vec<Artifact>, StoreError> {
    tx.all(
        "read artifacts",
        ARTIFACTS,
        args![product.as_str(), version.to_string()],
        read_artifact,
    )
    .await
}

/// Every artifact.
pub async fn all_artifacts(tx: &mut Tx) -> Result<Vec<Artifact>, StoreError> {
    tx.all("read artifacts", ALL_ARTIFACTS, args![], read_artifact)
        .await
}

/// Records that a blob is completely stored.
pub async fn insert_blob(tx: &mut Tx, blob: Image, now: Timestamp) -> Result<(), StoreError> {
    tx.run(
        "store a blob's facts",
        INSERT_BLOB,
        args![
            blob.sha256.to_string(),
            length(blob.length),
            now.as_micros()
        ],
    )
    .await
    .map(drop)
}

/// Returns hash and length of a stored blob; `None` if it is not recorded.
pub async fn blob(tx: &mut Tx, sha256: Sha256) -> Result<Option<Image>, StoreError> {
    tx.optional(
        "read a blob's facts",
        BLOB,
        args![sha256.to_string()],
        |row| {
            Ok(Image {
                sha256: row.parse("sha256")?,
                length: row.unsigned("length")?,
            })
        },
    )
    .await
}

/// Adds a payload; returns whether it is new.
pub async fn insert_payload(
    tx: &mut Tx,
    payload: &Payload,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let rows = tx
        .run(
            "store a payload",
            INSERT_PAYLOAD,
            args![
                payload.to.to_string(),
                payload.from.map(|f| f.to_string()).unwrap_or_default(),
                payload.encoding.as_str(),
                payload.manifest.sha256.to_string(),
                length(payload.manifest.length),
                length(payload.bytes),
                length(payload.memory),
                length(payload.work),
                now.as_micros(),
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// Deletes the record of a delta.
pub async fn delete_payload(
    tx: &mut Tx,
    to: Sha256,
    from: Sha256,
    encoding: Encoding,
) -> Result<(), StoreError> {
    tx.run(
        "delete a payload",
        DELETE_PAYLOAD,
        args![to.to_string(), from.to_string(), encoding.as_str()],
    )
    .await?;
    Ok(())
}

/// Every payload, smallest first.
pub async fn all_payloads(tx: &mut Tx) -> Result<Vec<Payload>, StoreError> {
    tx.all("read payloads", ALL_PAYLOADS, args![], |row| {
        let from: String = row.get("from_sha256")?;
        Ok(Payload {
            to: row.parse("to_sha256")?,
            from: if from.is_empty() {
                None
            } else {
                Some(row.parse("from_sha256")?)
            },
            encoding: row.parse("encoding")?,
            manifest: Image {
                sha256: row.parse("manifest_sha256")?,
                length: row.unsigned("manifest_length")?,
            },
            bytes: row.unsigned("bytes")?,
            memory: row.unsigned("memory")?,
            work: row.unsigned("work")?,
        })
    })
    .await
}

/// Encodes a length for a column; no length here exceeds the 2^63 bytes that it can hold.
fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn read_artifact(row: &Row) -> Result<Artifact, StoreError> {
    Ok(Artifact {
        product: row.parse("product")?,
        version: row.parse("version")?,
        platform: row.parse("platform")?,
        image: Image {
            sha256: row.parse("sha256")?,
            length: row.unsigned("length")?,
        },
    })
}

//! Products, releases, artifacts, blobs and payloads.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tidegate_delta::Encoding;
use tidegate_protocol::{Image, Platform, ProductName, Sha256, Stage, Timestamp, Version};

use super::db::{Row, args};
use super::{StoreError, Tx, json, statements, to_json};

statements! {
    INSERT_PRODUCT = "INSERT INTO product (name, created_at) VALUES ($1, $2)
                      ON CONFLICT (name) DO NOTHING";
    PRODUCTS = "SELECT name, created_at FROM product ORDER BY name";
    PRODUCT = "SELECT name FROM product WHERE name = $1";
    INSERT_RELEASE = "INSERT INTO release (product, version, stage, notes, revision, created_at, created_by)
                      VALUES ($1, $2, $3, $4, 1, $5, $6)
                      ON CONFLICT (product, version) DO NOTHING";
    RELEASES = "SELECT * FROM release WHERE product = $1 ORDER BY created_at DESC, version";
    ALL_RELEASES = "SELECT * FROM release";
    RELEASE = "SELECT * FROM release WHERE product = $1 AND version = $2";
    SET_EOL = "UPDATE release SET eol_at = $3, eol_notice = $4, revision = revision + 1
               WHERE product = $1 AND version = $2";
    DUE_EOL = "SELECT * FROM release WHERE eol_at <= $1 AND stage NOT IN ('eol', 'withdrawn') ORDER BY eol_at";
    SETTINGS = "SELECT name, settings FROM product ORDER BY name";
    SET_SETTINGS = "UPDATE product SET settings = $2 WHERE name = $1";
    SET_STAGE = "UPDATE release SET stage = $3, reason = $4, revision = revision + 1
                 WHERE product = $1 AND version = $2 AND revision = $5";
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

/// What holds for a whole product.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProductSettings {
    /// The oldest supported version: older clients are turned away by the version gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<Version>,
    /// The oldest TLS that business servers accept, for example `TLSv1.2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tls: Option<String>,
    /// What a client must be able to do.
    pub capabilities: BTreeSet<String>,
    /// Where a person finds the way to upgrade.
    pub upgrade_url: String,
    /// How many other people must approve what widens a rollout.
    pub approvals: u32,
    /// Bytes of a chunk of deltas, in KiB; the default is a MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_chunk_kib: Option<u32>,
    /// Bytes of a chunk of full payloads, in KiB; the default is 10 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_chunk_kib: Option<u32>,
}

/// A release as it is stored.
#[derive(Debug, Clone)]
pub struct Release {
    /// Whose.
    pub product: ProductName,
    /// Which.
    pub version: Version,
    /// How far it has come.
    pub stage: Stage,
    /// What is new in it.
    pub notes: String,
    /// Why it has its stage, where a reason was given.
    pub reason: Option<String>,
    /// When its life ends or ended, and what was announced.
    pub eol: Option<(Timestamp, String)>,
    /// Rises with every change.
    pub revision: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// An artifact as it is stored.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Whose.
    pub product: ProductName,
    /// Of which release.
    pub version: Version,
    /// For what.
    pub platform: Platform,
    /// Its bytes.
    pub image: Image,
}

/// A payload as it is stored.
#[derive(Debug, Clone)]
pub struct Payload {
    /// The image that it makes.
    pub to: Sha256,
    /// The image that it starts from.
    pub from: Option<Sha256>,
    /// How it encodes.
    pub encoding: Encoding,
    /// Its manifest.
    pub manifest: Image,
    /// Bytes to fetch.
    pub bytes: u64,
    /// Memory that decoding takes, in bytes.
    pub memory: u64,
    /// Bits that models decode.
    pub work: u64,
}

/// Makes a product; whether it is new.
pub async fn insert_product(
    tx: &mut Tx,
    name: &ProductName,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let rows = tx
        .run(
            "store a product",
            INSERT_PRODUCT,
            args![name.as_str(), now.as_micros()],
        )
        .await?;
    Ok(rows == 1)
}

/// Every product with the time it was made.
pub async fn products(tx: &mut Tx) -> Result<Vec<(ProductName, Timestamp)>, StoreError> {
    tx.all("read products", PRODUCTS, args![], |row| {
        Ok((row.parse("name")?, row.time("created_at")?))
    })
    .await
}

/// Whether there is such a product.
pub async fn product_exists(tx: &mut Tx, name: &ProductName) -> Result<bool, StoreError> {
    let found = tx
        .optional("read a product", PRODUCT, args![name.as_str()], |row| {
            row.get::<String>("name")
        })
        .await?;
    Ok(found.is_some())
}

/// Makes a draft release; whether it is new.
pub async fn insert_release(
    tx: &mut Tx,
    product: &ProductName,
    version: &Version,
    notes: &str,
    by: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let rows = tx
        .run(
            "store a release",
            INSERT_RELEASE,
            args![
                product.as_str(),
                version.to_string(),
                Stage::Draft.as_str(),
                notes,
                now.as_micros(),
                by
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// A product's releases, newest first.
pub async fn releases(tx: &mut Tx, product: &ProductName) -> Result<Vec<Release>, StoreError> {
    tx.all(
        "read releases",
        RELEASES,
        args![product.as_str()],
        read_release,
    )
    .await
}

/// Every release.
pub async fn all_releases(tx: &mut Tx) -> Result<Vec<Release>, StoreError> {
    tx.all("read releases", ALL_RELEASES, args![], read_release)
        .await
}

/// One release.
pub async fn release(
    tx: &mut Tx,
    product: &ProductName,
    version: &Version,
) -> Result<Option<Release>, StoreError> {
    tx.optional(
        "read a release",
        RELEASE,
        args![product.as_str(), version.to_string()],
        read_release,
    )
    .await
}

/// Gives a release a stage, if it still has the revision; whether it had.
pub async fn set_stage(
    tx: &mut Tx,
    release: &Release,
    stage: Stage,
    reason: Option<&str>,
) -> Result<bool, StoreError> {
    let rows = tx
        .run(
            "change a release's stage",
            SET_STAGE,
            args![
                release.product.as_str(),
                release.version.to_string(),
                stage.as_str(),
                reason.map(str::to_owned),
                release.revision,
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// Announces the end of a release's life.
pub async fn set_eol(
    tx: &mut Tx,
    product: &ProductName,
    version: &Version,
    at: Timestamp,
    notice: &str,
) -> Result<(), StoreError> {
    let args = args![
        product.as_str(),
        version.to_string(),
        at.as_micros(),
        notice
    ];
    tx.run_one("announce an end of life", SET_EOL, args).await
}

/// Releases whose announced end of life has come.
pub async fn due_eol(tx: &mut Tx, now: Timestamp) -> Result<Vec<Release>, StoreError> {
    tx.all(
        "read releases",
        DUE_EOL,
        args![now.as_micros()],
        read_release,
    )
    .await
}

/// The settings of each product, as JSON.
pub async fn all_settings(tx: &mut Tx) -> Result<Vec<(ProductName, ProductSettings)>, StoreError> {
    tx.all("read settings", SETTINGS, args![], |row| {
        let text: String = row.get("settings")?;
        Ok((row.parse("name")?, json("settings", &text)?))
    })
    .await
}

/// Writes a product's settings; whether there is such a product.
pub async fn set_settings(
    tx: &mut Tx,
    product: &ProductName,
    settings: &ProductSettings,
) -> Result<bool, StoreError> {
    let text = to_json("settings", settings)?;
    let args = args![product.as_str(), text];
    Ok(tx.run("write settings", SET_SETTINGS, args).await? == 1)
}

/// Adds an artifact; whether it is new.
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

/// Remembers that a blob is stored whole.
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

/// The facts of a stored blob.
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

/// Adds a payload; whether it is new.
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

/// Takes a delta out of the books.
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

/// A length as a column; nothing here is larger than the 2^63 bytes that it can hold.
fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn read_release(row: &Row) -> Result<Release, StoreError> {
    let notice: String = row.get("eol_notice")?;
    Ok(Release {
        product: row.parse("product")?,
        version: row.parse("version")?,
        stage: row.parse("stage")?,
        notes: row.get("notes")?,
        reason: row.get("reason")?,
        eol: row.time_opt("eol_at")?.map(|at| (at, notice)),
        revision: row.get("revision")?,
        created_at: row.time("created_at")?,
        created_by: row.get("created_by")?,
    })
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

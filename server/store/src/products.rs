//! Products, releases, artifacts, blobs and payloads.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tidegate_protocol::{ProductName, Stage, Timestamp, Version};

use super::row::{Row, args};
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
}

/// Settings of a whole product.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProductSettings {
    /// The oldest supported version: older clients are turned away by the version gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<Version>,
    /// The oldest TLS version that business servers accept, for example `TLSv1.2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tls: Option<String>,
    /// Capabilities that a client must have.
    pub capabilities: BTreeSet<String>,
    /// Address of the upgrade instructions for people.
    pub upgrade_url: String,
    /// Number of other people who must approve a change that widens a rollout.
    pub approvals: u32,
    /// Chunk size of deltas, in KiB; the default is 1 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_chunk_kib: Option<u32>,
    /// Chunk size of full payloads, in KiB; the default is 10 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_chunk_kib: Option<u32>,
}

/// A stored release.
#[derive(Debug, Clone)]
pub struct Release {
    /// The product it belongs to.
    pub product: ProductName,
    /// Its version.
    pub version: Version,
    /// Its stage.
    pub stage: Stage,
    /// Release notes.
    pub notes: String,
    /// Reason for its stage, if one was given.
    pub reason: Option<String>,
    /// Announced end of life, past or future, with the notice.
    pub eol: Option<(Timestamp, String)>,
    /// Raised by every change, for optimistic locking.
    pub revision: i64,
    /// Time it was created.
    pub created_at: Timestamp,
    /// The person who created it.
    pub created_by: String,
}

/// Creates a product; returns whether it is new.
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

/// Returns whether a product exists.
pub async fn product_exists(tx: &mut Tx, name: &ProductName) -> Result<bool, StoreError> {
    let found = tx
        .optional("read a product", PRODUCT, args![name.as_str()], |row| {
            row.get::<String>("name")
        })
        .await?;
    Ok(found.is_some())
}

/// Creates a draft release; returns whether it is new.
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

/// Sets the stage of a release if it still has its revision; returns whether it had.
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

/// Announces the end of life of a release.
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

/// Returns the settings of every product.
pub async fn all_settings(tx: &mut Tx) -> Result<Vec<(ProductName, ProductSettings)>, StoreError> {
    tx.all("read settings", SETTINGS, args![], |row| {
        let text: String = row.get("settings")?;
        Ok((row.parse("name")?, json("settings", &text)?))
    })
    .await
}

/// Writes a product's settings; returns whether the product exists.
pub async fn set_settings(
    tx: &mut Tx,
    product: &ProductName,
    settings: &ProductSettings,
) -> Result<bool, StoreError> {
    let text = to_json("settings", settings)?;
    let args = args![product.as_str(), text];
    Ok(tx.run("write settings", SET_SETTINGS, args).await? == 1)
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

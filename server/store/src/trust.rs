//! Signed metadata files and join tokens.

use std::collections::BTreeMap;

use tidegate_protocol::{Channel, JoinTokenId, ProductName, Region, Sha256, Timestamp};

use super::row::{Row, args};
use super::{StoreError, Tx, json, statements, to_json};

statements! {
    LOCK = "UPDATE counter SET value = value + 1 WHERE name = 'trust'";
    INSERT = "INSERT INTO metadata (role, version, sha256, body, created_at) VALUES ($1, $2, $3, $4, $5)";
    CURRENT = "SELECT m.role, m.version, m.sha256, m.body FROM metadata m
               JOIN (SELECT role, MAX(version) AS newest FROM metadata GROUP BY role) n
                 ON n.role = m.role AND n.newest = m.version";
    FILE = "SELECT role, version, sha256, body FROM metadata WHERE role = $1 AND version = $2";
    ROOT_BY_HASH = "SELECT role, version, sha256, body FROM metadata WHERE role = 'root' AND sha256 = $1";
    PRUNE = "DELETE FROM metadata WHERE role = $1 AND version < $2";
    PUT_DRAFT = "INSERT INTO metadata_draft (role, version, body, purpose, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (role) DO UPDATE SET version = $2, body = $3, purpose = $4, created_at = $5, created_by = $6";
    DRAFTS = "SELECT role, version, body, purpose, created_at, created_by FROM metadata_draft ORDER BY role";
    DROP_DRAFT = "DELETE FROM metadata_draft WHERE role = $1 AND version <= $2";
    INSERT_JOIN = "INSERT INTO join_token (id, secret_sha256, root_sha256, product, region, channel, labels, uses_left, expires_at, created_at, created_by)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    JOIN_TOKEN = "SELECT * FROM join_token WHERE id = $1";
    USE_JOIN = "UPDATE join_token SET uses_left = uses_left - 1 WHERE id = $1 AND uses_left > 0";
}

/// A signed file.
#[derive(Debug, Clone)]
pub struct MetadataFile {
    /// Its role.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 of its bytes.
    pub sha256: Sha256,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// A join token; only the hash of its secret is stored.
#[derive(Debug, Clone)]
pub struct JoinRow {
    /// Its id.
    pub id: JoinTokenId,
    /// SHA-256 of the secret.
    pub secret_sha256: Sha256,
    /// The root that it pins.
    pub root_sha256: Sha256,
    /// Product of the devices that join.
    pub product: ProductName,
    /// Region of the devices, if the token fixes it.
    pub region: Option<Region>,
    /// Channel of the devices, if the token fixes it.
    pub channel: Option<Channel>,
    /// Labels that they are given.
    pub labels: BTreeMap<String, String>,
    /// Number of devices that may still join.
    pub uses_left: i64,
    /// Time it expires.
    pub expires_at: Timestamp,
}

/// Locks the metadata against other changes until the transaction ends.
pub async fn lock(tx: &mut Tx) -> Result<(), StoreError> {
    tx.run_one("lock the metadata", LOCK, args![]).await
}

/// Stores a file.
pub async fn insert(tx: &mut Tx, file: &MetadataFile, now: Timestamp) -> Result<(), StoreError> {
    tx.run_one(
        "store metadata",
        INSERT,
        args![
            file.role.as_str(),
            i64::try_from(file.version).unwrap_or(i64::MAX),
            file.sha256.to_string(),
            file.body.clone(),
            now.as_micros(),
        ],
    )
    .await
}

/// The newest file of every role.
pub async fn current(tx: &mut Tx) -> Result<Vec<MetadataFile>, StoreError> {
    tx.all("read metadata", CURRENT, args![], read_file).await
}

/// One version of one role.
pub async fn file(
    tx: &mut Tx,
    role: &str,
    version: u64,
) -> Result<Option<MetadataFile>, StoreError> {
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    tx.optional("read metadata", FILE, args![role, version], read_file)
        .await
}

/// The root with this hash.
pub async fn root_by_hash(tx: &mut Tx, sha256: Sha256) -> Result<Option<MetadataFile>, StoreError> {
    tx.optional(
        "read a root",
        ROOT_BY_HASH,
        args![sha256.to_string()],
        read_file,
    )
    .await
}

/// Deletes the versions of an online role below `before`: nobody asks for them any more.
pub async fn prune(tx: &mut Tx, role: &str, before: u64) -> Result<(), StoreError> {
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    tx.run("prune metadata", PRUNE, args![role, before])
        .await
        .map(drop)
}

/// A metadata file that still lacks signatures.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its role.
    pub role: String,
    /// Version that it will have.
    pub version: u64,
    /// The file with the signatures so far.
    pub body: Vec<u8>,
    /// Purpose, in a person's words.
    pub purpose: String,
    /// Time of its newest signature.
    pub created_at: Timestamp,
    /// Owner of the token that submitted it.
    pub created_by: String,
}

/// Stores the draft of a role, replacing an older one.
pub async fn put_draft(tx: &mut Tx, draft: &Draft) -> Result<(), StoreError> {
    let version = i64::try_from(draft.version).unwrap_or(i64::MAX);
    let args = args![
        draft.role.as_str(),
        version,
        draft.body.clone(),
        draft.purpose.as_str(),
        draft.created_at.as_micros(),
        draft.created_by.as_str(),
    ];
    tx.run_one("store a draft", PUT_DRAFT, args).await
}

/// Every draft, by role.
pub async fn drafts(tx: &mut Tx) -> Result<Vec<Draft>, StoreError> {
    tx.all("read drafts", DRAFTS, args![], |row| {
        Ok(Draft {
            role: row.get("role")?,
            version: row.unsigned("version")?,
            body: row.get("body")?,
            purpose: row.get("purpose")?,
            created_at: Timestamp::from_micros(row.get("created_at")?),
            created_by: row.get("created_by")?,
        })
    })
    .await
}

/// Deletes the draft of a role up to a version: it is complete, or overtaken.
pub async fn drop_draft(tx: &mut Tx, role: &str, version: u64) -> Result<(), StoreError> {
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    tx.run("drop a draft", DROP_DRAFT, args![role, version])
        .await
        .map(drop)
}

/// Stores a join token.
pub async fn insert_join(
    tx: &mut Tx,
    join: &JoinRow,
    by: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.run_one(
        "store a join token",
        INSERT_JOIN,
        args![
            join.id.to_string(),
            join.secret_sha256.to_string(),
            join.root_sha256.to_string(),
            join.product.as_str(),
            join.region.as_ref().map(ToString::to_string),
            join.channel.map(|c| c.to_string()),
            to_json("labels", &join.labels)?,
            join.uses_left,
            join.expires_at.as_micros(),
            now.as_micros(),
            by,
        ],
    )
    .await
}

/// One join token.
pub async fn join_token(tx: &mut Tx, id: JoinTokenId) -> Result<Option<JoinRow>, StoreError> {
    tx.optional(
        "read a join token",
        JOIN_TOKEN,
        args![id.to_string()],
        |row| {
            let labels: String = row.get("labels")?;
            Ok(JoinRow {
                id: row.parse("id")?,
                secret_sha256: row.parse("secret_sha256")?,
                root_sha256: row.parse("root_sha256")?,
                product: row.parse("product")?,
                region: row.parse_opt("region")?,
                channel: row.parse_opt("channel")?,
                labels: json("labels", &labels)?,
                uses_left: row.get("uses_left")?,
                expires_at: row.time("expires_at")?,
            })
        },
    )
    .await
}

/// Uses a join token once; returns whether it had a use left.
pub async fn use_join(tx: &mut Tx, id: JoinTokenId) -> Result<bool, StoreError> {
    Ok(tx
        .run("use a join token", USE_JOIN, args![id.to_string()])
        .await?
        == 1)
}

fn read_file(row: &Row) -> Result<MetadataFile, StoreError> {
    Ok(MetadataFile {
        role: row.get("role")?,
        version: row.unsigned("version")?,
        sha256: row.parse("sha256")?,
        body: row.get("body")?,
    })
}

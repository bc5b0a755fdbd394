//! Signed metadata files.

use tidegate_protocol::{Sha256, Timestamp};

use super::row::{Row, args};
use super::{StoreError, Tx, statements};

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

fn read_file(row: &Row) -> Result<MetadataFile, StoreError> {
    Ok(MetadataFile {
        role: row.get("role")?,
        version: row.unsigned("version")?,
        sha256: row.parse("sha256")?,
        body: row.get("body")?,
    })
}

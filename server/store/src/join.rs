//! Join tokens.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_protocol::{Channel, JoinTokenId, ProductName, Region, Sha256, Timestamp};

use super::row::{Row, args};
use super::{StoreError, Tx, json, statements, to_json};

statements! {
    INSERT = "INSERT INTO join_token (id, secret_sha256, root_sha256, product, region, channel, labels, uses_left, uses, approve, keys, expires_at, created_at, created_by)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9, $10, $11, $12, $13)";
    ONE = "SELECT * FROM join_token WHERE id = $1";
    LIVE = "SELECT * FROM join_token WHERE uses_left > 0 AND expires_at > $1 AND ($2 = '' OR product = $2) AND id > $3
            ORDER BY id LIMIT $4";
    USE = "UPDATE join_token SET uses_left = uses_left - 1 WHERE id = $1 AND uses_left > 0 AND revoked_at IS NULL";
    // A version before this one knows nothing of revoked tokens, but does of used-up ones.
    REVOKE = "UPDATE join_token SET revoked_at = $2, uses_left = 0 WHERE id = $1 AND revoked_at IS NULL";
    REVOKE_ALL = "UPDATE join_token SET revoked_at = $1, uses_left = 0
                  WHERE revoked_at IS NULL AND uses_left > 0 AND expires_at > $1 AND ($2 = '' OR product = $2)";
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
    /// Number of devices that may join in all; `None` for a token made before that was kept.
    pub uses: Option<i64>,
    /// Whether a device that joins waits for a person to accept it.
    pub approve: bool,
    /// Fingerprints of the only keys that may join; empty for any.
    pub keys: BTreeSet<Sha256>,
    /// Time it expires.
    pub expires_at: Timestamp,
    /// Time it was created.
    pub created_at: Timestamp,
    /// Name of the operator who created it.
    pub created_by: String,
    /// Time it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// Stores a join token.
pub async fn insert(tx: &mut Tx, join: &JoinRow) -> Result<(), StoreError> {
    let keys: Vec<String> = join.keys.iter().map(ToString::to_string).collect();
    tx.run_one(
        "store a join token",
        INSERT,
        args![
            join.id.to_string(),
            join.secret_sha256.to_string(),
            join.root_sha256.to_string(),
            join.product.as_str(),
            join.region.as_ref().map(ToString::to_string),
            join.channel.map(|c| c.to_string()),
            to_json("labels", &join.labels)?,
            join.uses_left,
            join.approve,
            keys.join(" "),
            join.expires_at.as_micros(),
            join.created_at.as_micros(),
            join.created_by.as_str(),
        ],
    )
    .await
}

/// One join token.
pub async fn one(tx: &mut Tx, id: JoinTokenId) -> Result<Option<JoinRow>, StoreError> {
    tx.optional("read a join token", ONE, args![id.to_string()], read)
        .await
}

/// Returns the tokens with which a device can join now, after a position, by id; an empty `product`
/// selects all.
pub async fn live(
    tx: &mut Tx,
    now: Timestamp,
    product: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<JoinRow>, StoreError> {
    let args = args![now.as_micros(), product, after, limit];
    tx.all("read join tokens", LIVE, args, read).await
}

/// Uses a join token once; returns whether it had a use left.
pub async fn use_once(tx: &mut Tx, id: JoinTokenId) -> Result<bool, StoreError> {
    Ok(tx
        .run("use a join token", USE, args![id.to_string()])
        .await?
        == 1)
}

/// Revokes a token; returns whether there was one that was not revoked.
pub async fn revoke(tx: &mut Tx, id: JoinTokenId, now: Timestamp) -> Result<bool, StoreError> {
    let args = args![id.to_string(), now.as_micros()];
    Ok(tx.run("revoke a join token", REVOKE, args).await? == 1)
}

/// Revokes every token with which a device can join, of one product or, if that is empty, of all;
/// returns their number.
pub async fn revoke_all(tx: &mut Tx, now: Timestamp, product: &str) -> Result<u64, StoreError> {
    let args = args![now.as_micros(), product];
    tx.run("revoke join tokens", REVOKE_ALL, args).await
}

fn read(row: &Row) -> Result<JoinRow, StoreError> {
    let labels: String = row.get("labels")?;
    let keys: String = row.get("keys")?;
    let keys = keys.split_whitespace().map(|key| {
        key.parse().map_err(|_| StoreError::BadRow {
            column: "keys",
            what: format!("{key:?} is not a fingerprint"),
        })
    });
    Ok(JoinRow {
        id: row.parse("id")?,
        secret_sha256: row.parse("secret_sha256")?,
        root_sha256: row.parse("root_sha256")?,
        product: row.parse("product")?,
        region: row.parse_opt("region")?,
        channel: row.parse_opt("channel")?,
        labels: json("labels", &labels)?,
        uses_left: row.get("uses_left")?,
        uses: row.get("uses")?,
        approve: row.get::<i64>("approve")? == 1,
        keys: keys.collect::<Result<_, _>>()?,
        expires_at: row.time("expires_at")?,
        created_at: row.time("created_at")?,
        created_by: row.get("created_by")?,
        revoked_at: row.time_opt("revoked_at")?,
    })
}

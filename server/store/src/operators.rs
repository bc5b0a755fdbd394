//! Operator tokens, shared secrets, idempotency keys.

use tidegate_domain::access::Role;
use tidegate_protocol::{Sha256, Timestamp, TokenId};

use super::row::{Row, args};
use super::{StoreError, Tx, statements};

statements! {
    INSERT_TOKEN = "INSERT INTO operator_token
                    (id, name, role, secret_sha256, created_at, expires_at, made_by, break_glass)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    CLAIM_NAME = "INSERT INTO operator_name (name, token_id) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    TOKENS = "SELECT * FROM operator_token ORDER BY created_at, id";
    CONFIRM = "UPDATE operator_token SET confirmed_by = $2 WHERE id = $1 AND confirmed_by IS NULL";
    REVOKE = "UPDATE operator_token SET revoked = 1 WHERE id = $1 AND revoked = 0";
    INSERT_SECRET = "INSERT INTO secret (name, value, created_at) VALUES ($1, $2, $3)
                     ON CONFLICT (name) DO NOTHING";
    SECRET = "SELECT value FROM secret WHERE name = $1";
    SECRETS = "SELECT name, value FROM secret";
    PUT_SECRET = "UPDATE secret SET value = $2, created_at = $3 WHERE name = $1";
    IDEMPOTENT = "SELECT request_sha256, response FROM idempotency WHERE key = $1";
    REMEMBER = "INSERT INTO idempotency (key, request_sha256, response, created_at)
                VALUES ($1, $2, $3, $4)";
    FORGET = "DELETE FROM idempotency WHERE created_at < $1";
}

/// An operator's token; only the hash of its secret is stored.
#[derive(Debug, Clone)]
pub struct OperatorToken {
    /// Its id.
    pub id: TokenId,
    /// Name of its owner.
    pub name: String,
    /// Role that it grants.
    pub role: Role,
    /// SHA-256 of the secret.
    pub secret_sha256: Sha256,
    /// Time it was created.
    pub created_at: Timestamp,
    /// Time it expires; `None` if never.
    pub expires_at: Option<Timestamp>,
    /// Token that made it; `None` if it was made on the server's host, or before that was kept.
    pub made_by: Option<TokenId>,
    /// Token of the administrator who confirmed that it belongs to a person of its own.
    pub confirmed_by: Option<TokenId>,
    /// Whether it is for emergencies alone: without an expiry, and alarmed at each use.
    pub break_glass: bool,
    /// Whether it was revoked.
    pub revoked: bool,
}

impl OperatorToken {
    /// Returns whether it can be used.
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.revoked && self.expires_at.is_none_or(|expiry| expiry > now)
    }
}

/// Stores a token; returns `false` if its name has been another token's, in small or capital letters.
pub async fn insert_token(tx: &mut Tx, token: &OperatorToken) -> Result<bool, StoreError> {
    let folded = token.name.to_lowercase();
    // Names of tokens that were made before names were claimed.
    let had = tokens(tx).await?;
    if had.iter().any(|t| t.name.to_lowercase() == folded) {
        return Ok(false);
    }
    tx.run_one(
        "store a token",
        INSERT_TOKEN,
        args![
            token.id.to_string(),
            token.name.as_str(),
            token.role.as_str(),
            token.secret_sha256.to_string(),
            token.created_at.as_micros(),
            token.expires_at.map(Timestamp::as_micros),
            token.made_by.map(|id| id.to_string()),
            token.break_glass,
        ],
    )
    .await?;
    // Of two that are made at the same time, the second waits here for the first.
    let args = args![folded, token.id.to_string()];
    Ok(tx.run("claim a token's name", CLAIM_NAME, args).await? == 1)
}

/// Every token that was ever made, oldest first.
pub async fn tokens(tx: &mut Tx) -> Result<Vec<OperatorToken>, StoreError> {
    tx.all("read tokens", TOKENS, args![], read_token).await
}

/// Revokes a token; returns whether there was one.
pub async fn revoke(tx: &mut Tx, id: TokenId) -> Result<bool, StoreError> {
    Ok(tx
        .run("revoke a token", REVOKE, args![id.to_string()])
        .await?
        == 1)
}

/// Notes who confirmed a token; returns whether it was not confirmed before.
pub async fn confirm(tx: &mut Tx, id: TokenId, by: TokenId) -> Result<bool, StoreError> {
    let args = args![id.to_string(), by.to_string()];
    Ok(tx.run("confirm a token", CONFIRM, args).await? == 1)
}

fn read_token(row: &Row) -> Result<OperatorToken, StoreError> {
    Ok(OperatorToken {
        id: row.parse("id")?,
        name: row.get("name")?,
        role: row.parse("role")?,
        secret_sha256: row.parse("secret_sha256")?,
        created_at: row.time("created_at")?,
        expires_at: row.time_opt("expires_at")?,
        made_by: row.parse_opt("made_by")?,
        confirmed_by: row.parse_opt("confirmed_by")?,
        break_glass: row.get::<i64>("break_glass")? != 0,
        revoked: row.get::<i64>("revoked")? != 0,
    })
}

/// Returns the secret of a name and whether it is new: `fresh` is stored if there is none yet.
/// Replicas that start together end up with the same one.
pub async fn secret_or_insert(
    tx: &mut Tx,
    name: &str,
    fresh: &str,
    now: Timestamp,
) -> Result<(String, bool), StoreError> {
    let inserted = tx
        .run(
            "store a secret",
            INSERT_SECRET,
            args![name, fresh, now.as_micros()],
        )
        .await?
        == 1;
    let value = tx
        .optional("read a secret", SECRET, args![name], |row| row.get("value"))
        .await?
        .ok_or(StoreError::RowCount {
            operation: "read a secret",
            count: 0,
        })?;
    Ok((value, inserted))
}

/// Every secret with its name.
pub async fn secrets(tx: &mut Tx) -> Result<Vec<(String, String)>, StoreError> {
    tx.all("read secrets", SECRETS, args![], |row| {
        Ok((row.get("name")?, row.get("value")?))
    })
    .await
}

/// Replaces an existing secret.
pub async fn put_secret(
    tx: &mut Tx,
    name: &str,
    value: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let args = args![name, value, now.as_micros()];
    tx.run_one("replace a secret", PUT_SECRET, args).await
}

/// Returns the answer to an earlier create with this key: hash of the request, response.
pub async fn idempotent(tx: &mut Tx, key: &str) -> Result<Option<(Sha256, String)>, StoreError> {
    tx.optional("read an idempotency key", IDEMPOTENT, args![key], |row| {
        Ok((row.parse("request_sha256")?, row.get("response")?))
    })
    .await
}

/// Stores the answer to a create, in the same transaction as its effect.
pub async fn remember(
    tx: &mut Tx,
    key: &str,
    request: Sha256,
    response: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.run_one(
        "store an idempotency key",
        REMEMBER,
        args![key, request.to_string(), response, now.as_micros()],
    )
    .await
}

/// Deletes idempotency keys older than `at`; returns their number.
pub async fn forget_before(tx: &mut Tx, at: Timestamp) -> Result<u64, StoreError> {
    tx.run("forget idempotency keys", FORGET, args![at.as_micros()])
        .await
}

//! Changes of a product's settings that weaken its guard, and the approvals that they wait for.

use std::collections::BTreeSet;

use tidegate_protocol::{ChangeId, ProductName, Timestamp};

use super::changes::ChangeState;
use super::products::ProductSettings;
use super::row::{Row, args};
use super::{StoreError, Tx, json, statements, to_json};

statements! {
    LOCK = "UPDATE product SET settings = settings WHERE name = $1";
    INSERT = "INSERT INTO settings_change (id, product, body, plan_sha256, asked_by, asked_at, state)
              VALUES ($1, $2, $3, $4, $5, $6, 'waiting')";
    WAITING = "SELECT * FROM settings_change WHERE product = $1 AND state = 'waiting'";
    END = "UPDATE settings_change SET state = $2 WHERE id = $1 AND state = 'waiting'";
    VOID = "UPDATE settings_change SET state = 'void' WHERE product = $1 AND state = 'waiting'";
    APPROVE = "INSERT INTO settings_approval (change_id, plan_sha256, given_by, given_at)
               VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    APPROVALS = "SELECT given_by FROM settings_approval WHERE change_id = $1 AND plan_sha256 = $2
                 AND given_by NOT IN (SELECT name FROM operator_token WHERE revoked = 1)";
}

/// A stored change of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsChange {
    /// Its id.
    pub id: ChangeId,
    /// Product that it belongs to.
    pub product: ProductName,
    /// Settings that it leads to.
    pub settings: ProductSettings,
    /// Hash of the settings before and after it.
    pub plan: String,
    /// The person who asked.
    pub asked_by: String,
    /// Time of the request.
    pub asked_at: Timestamp,
}

/// Keeps others from changing a product's settings, and from agreeing to that, until the transaction
/// ends; returns whether the product exists.
pub async fn lock(tx: &mut Tx, product: &ProductName) -> Result<bool, StoreError> {
    let args = args![product.as_str()];
    Ok(tx.run("lock a product's settings", LOCK, args).await? == 1)
}

/// Stores a change that waits for approvals; voids the one that waited before.
pub async fn insert(tx: &mut Tx, change: &SettingsChange) -> Result<(), StoreError> {
    void(tx, &change.product).await?;
    let args = args![
        change.id.to_string(),
        change.product.as_str(),
        to_json("body", &change.settings)?,
        change.plan.as_str(),
        change.asked_by.as_str(),
        change.asked_at.as_micros(),
    ];
    tx.run_one("store a change of settings", INSERT, args).await
}

/// Returns the change of a product that waits for approvals, if any.
pub async fn waiting(
    tx: &mut Tx,
    product: &ProductName,
) -> Result<Option<SettingsChange>, StoreError> {
    let args = args![product.as_str()];
    tx.optional("read a change of settings", WAITING, args, read)
        .await
}

/// Notes that a change took effect.
pub async fn end(tx: &mut Tx, id: ChangeId) -> Result<(), StoreError> {
    let args = args![id.to_string(), ChangeState::Applied.as_str()];
    tx.run_one("end a change of settings", END, args).await
}

/// Voids the waiting change of a product: its settings were changed.
pub async fn void(tx: &mut Tx, product: &ProductName) -> Result<(), StoreError> {
    let args = args![product.as_str()];
    tx.run("void changes of settings", VOID, args)
        .await
        .map(drop)
}

/// Records a person's approval; idempotent.
pub async fn approve(
    tx: &mut Tx,
    change: &SettingsChange,
    by: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let args = args![
        change.id.to_string(),
        change.plan.as_str(),
        by,
        now.as_micros()
    ];
    tx.run("store an approval of settings", APPROVE, args)
        .await
        .map(drop)
}

/// Returns the people who approved a change.
pub async fn approvals(
    tx: &mut Tx,
    change: &SettingsChange,
) -> Result<BTreeSet<String>, StoreError> {
    let args = args![change.id.to_string(), change.plan.as_str()];
    let list = tx
        .all("read approvals of settings", APPROVALS, args, |row| {
            row.get::<String>("given_by")
        })
        .await?;
    Ok(list.into_iter().collect())
}

fn read(row: &Row) -> Result<SettingsChange, StoreError> {
    let body: String = row.get("body")?;
    Ok(SettingsChange {
        id: row.parse("id")?,
        product: row.parse("product")?,
        settings: json("body", &body)?,
        plan: row.get("plan_sha256")?,
        asked_by: row.get("asked_by")?,
        asked_at: row.time("asked_at")?,
    })
}

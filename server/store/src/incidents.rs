//! Incidents.

use tidegate_domain::selector::Selector;
use tidegate_protocol::{IncidentId, ProductName, RolloutId, Timestamp, Version};

use super::row::{Row, args};
use super::{StoreError, Tx, statements};

statements! {
    INSERT = "INSERT INTO incident (id, product, release, selector, rollouts, reason, opened_at, opened_by)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    ONE = "SELECT * FROM incident WHERE id = $1";
    PAGE = "SELECT * FROM incident WHERE opened_at < $1 OR (opened_at = $1 AND id < $2)
            ORDER BY opened_at DESC, id DESC LIMIT $3";
    OPEN_OF = "SELECT * FROM incident
               WHERE closed_at IS NULL AND ',' || rollouts || ',' LIKE '%,' || $1 || ',%'
               ORDER BY opened_at DESC, id";
    CLOSE = "UPDATE incident SET closed_at = $2 WHERE id = $1 AND closed_at IS NULL";
}

/// A stored incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Its id.
    pub id: IncidentId,
    /// Product of the release.
    pub product: ProductName,
    /// The release that caused it.
    pub release: Version,
    /// Devices to send back; all of them if empty.
    pub selector: Selector,
    /// Rollouts that installed the release.
    pub rollouts: Vec<RolloutId>,
    /// The reason.
    pub reason: String,
    /// Time it was opened.
    pub opened_at: Timestamp,
    /// The person who opened it.
    pub opened_by: String,
    /// Time it was closed; `None` while it is open.
    pub closed_at: Option<Timestamp>,
}

/// Stores a new incident.
pub async fn insert(tx: &mut Tx, incident: &Incident) -> Result<(), StoreError> {
    let rollouts: Vec<String> = incident.rollouts.iter().map(ToString::to_string).collect();
    let args = args![
        incident.id.to_string(),
        incident.product.as_str(),
        incident.release.to_string(),
        incident.selector.to_string(),
        rollouts.join(","),
        incident.reason.as_str(),
        incident.opened_at.as_micros(),
        incident.opened_by.as_str(),
    ];
    tx.run_one("store an incident", INSERT, args).await
}

/// One incident.
pub async fn one(tx: &mut Tx, id: IncidentId) -> Result<Option<Incident>, StoreError> {
    tx.optional("read an incident", ONE, args![id.to_string()], read)
        .await
}

/// A page of incidents, newest first, before a position.
pub async fn page(
    tx: &mut Tx,
    before: Timestamp,
    before_id: &str,
    limit: i64,
) -> Result<Vec<Incident>, StoreError> {
    tx.all(
        "read incidents",
        PAGE,
        args![before.as_micros(), before_id, limit],
        read,
    )
    .await
}

/// The open incident of a rollout, if there is one.
pub async fn open_of(tx: &mut Tx, rollout: RolloutId) -> Result<Option<Incident>, StoreError> {
    tx.optional(
        "read an incident",
        OPEN_OF,
        args![rollout.to_string()],
        read,
    )
    .await
}

/// Closes an incident; returns whether it was open.
pub async fn close(tx: &mut Tx, id: IncidentId, now: Timestamp) -> Result<bool, StoreError> {
    let args = args![id.to_string(), now.as_micros()];
    Ok(tx.run("close an incident", CLOSE, args).await? == 1)
}

fn read(row: &Row) -> Result<Incident, StoreError> {
    let rollouts: String = row.get("rollouts")?;
    let rollouts = rollouts
        .split(',')
        .filter(|id| !id.is_empty())
        .map(|id| {
            id.parse().map_err(|e| StoreError::BadRow {
                column: "rollouts",
                what: format!("{e}"),
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Incident {
        id: row.parse("id")?,
        product: row.parse("product")?,
        release: row.parse("release")?,
        selector: row.parse("selector")?,
        rollouts,
        reason: row.get("reason")?,
        opened_at: row.time("opened_at")?,
        opened_by: row.get("opened_by")?,
        closed_at: row.time_opt("closed_at")?,
    })
}

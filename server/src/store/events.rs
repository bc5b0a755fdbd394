//! Events: what happened, in commit order.

use tidegate_protocol::{DeviceId, ProductName, RolloutId, Timestamp};

use super::db::{Row, args};
use super::{StoreError, Tx, statements};

statements! {
    NEXT = "UPDATE counter SET value = value + 1 WHERE name = 'event' RETURNING value";
    APPEND = "INSERT INTO event (seq, at, kind, origin, actor, product, rollout_id, device_id, text)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    HEAD = "SELECT value FROM counter WHERE name = 'event'";
    AFTER = "SELECT * FROM event WHERE seq > $1 ORDER BY seq LIMIT $2";
    OF_ROLLOUT = "SELECT * FROM event WHERE rollout_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    OF_DEVICE = "SELECT * FROM event WHERE device_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A product, release, artifact or payload changed.
    Release,
    /// A rollout or one of its waves changed.
    Rollout,
    /// More or fewer devices of a rollout may be exposed.
    Pace,
    /// A device's deployment changed.
    Deployment,
    /// A device was enrolled or changed by a person.
    Device,
    /// Signed metadata changed.
    Trust,
    /// A token was made or revoked.
    Access,
}

tidegate_protocol::words!(EventKind("event kind") {
    Release = "release",
    Rollout = "rollout",
    Pace = "pace",
    Deployment = "deployment",
    Device = "device",
    Trust = "trust",
    Access = "access",
});

/// An event to be written.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What kind.
    pub kind: EventKind,
    /// Who did it: `operator <name>`, `device <id>`, `planner`.
    pub actor: String,
    /// Of which product.
    pub product: Option<ProductName>,
    /// In which rollout.
    pub rollout: Option<RolloutId>,
    /// On which device.
    pub device: Option<DeviceId>,
    /// What happened, for people.
    pub text: String,
}

/// An event as it is stored.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// Which replica wrote it.
    pub origin: String,
    /// The rest.
    pub event: NewEvent,
}

/// Appends an event. The row lock of the counter is held until the transaction ends: append
/// last.
pub async fn append(
    tx: &mut Tx,
    origin: &str,
    at: Timestamp,
    event: &NewEvent,
) -> Result<i64, StoreError> {
    let seq = tx
        .optional("number an event", NEXT, args![], |row| row.get("value"))
        .await?
        .ok_or(StoreError::RowCount {
            operation: "number an event",
            count: 0,
        })?;
    tx.run_one(
        "append an event",
        APPEND,
        args![
            seq,
            at.as_micros(),
            event.kind.as_str(),
            origin,
            event.actor.as_str(),
            event.product.as_ref().map(ToString::to_string),
            event.rollout.map(|r| r.to_string()),
            event.device.map(|d| d.to_string()),
            event.text.as_str(),
        ],
    )
    .await?;
    tx.notify().await?;
    Ok(seq)
}

/// The number of the newest event.
pub async fn head(tx: &mut Tx) -> Result<i64, StoreError> {
    let value = tx
        .optional("read the event counter", HEAD, args![], |row| {
            row.get("value")
        })
        .await?;
    Ok(value.unwrap_or(0))
}

/// Events after a number, oldest first.
pub async fn after(tx: &mut Tx, seq: i64, limit: i64) -> Result<Vec<Event>, StoreError> {
    tx.all("read events", AFTER, args![seq, limit], read).await
}

/// Events of one rollout after a number, oldest first.
pub async fn of_rollout(
    tx: &mut Tx,
    rollout: RolloutId,
    seq: i64,
    limit: i64,
) -> Result<Vec<Event>, StoreError> {
    tx.all(
        "read events",
        OF_ROLLOUT,
        args![rollout.to_string(), seq, limit],
        read,
    )
    .await
}

/// Events of one device after a number, oldest first.
pub async fn of_device(
    tx: &mut Tx,
    device: DeviceId,
    seq: i64,
    limit: i64,
) -> Result<Vec<Event>, StoreError> {
    tx.all(
        "read events",
        OF_DEVICE,
        args![device.to_string(), seq, limit],
        read,
    )
    .await
}

fn read(row: &Row) -> Result<Event, StoreError> {
    Ok(Event {
        seq: row.get("seq")?,
        at: row.time("at")?,
        origin: row.get("origin")?,
        event: NewEvent {
            kind: row.parse("kind")?,
            actor: row.get("actor")?,
            product: row.parse_opt("product")?,
            rollout: row.parse_opt("rollout_id")?,
            device: row.parse_opt("device_id")?,
            text: row.get("text")?,
        },
    })
}

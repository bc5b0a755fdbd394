//! Events, in commit order.

use std::ops::Range;

use serde_json::{Map, Value};
use tidegate_domain::event::{self, Actor, Event, Fields, Scalar, Topic};
use tidegate_protocol::{DeviceId, RolloutId, Timestamp};

use super::row::{Row, args};
use super::{StoreError, Tx, json, statements, to_json};

statements! {
    NEXT = "UPDATE counter SET value = value + $1 WHERE name = 'event' RETURNING value";
    APPEND = "INSERT INTO event (seq, at, origin, topic, kind, version, actor_kind, actor_id, actor, product, rollout_id, device_id, body, said, text)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    HEAD = "SELECT value FROM counter WHERE name = 'event'";
    AFTER = "SELECT * FROM event WHERE seq > $1 ORDER BY seq LIMIT $2";
    OF_ROLLOUT = "SELECT * FROM event WHERE rollout_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    COUNT_OF = "SELECT COUNT(*) AS found FROM event WHERE device_id = $1 AND kind = $2 AND at > $3";
    OF_DEVICE = "SELECT * FROM event WHERE device_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";
}

/// A stored event. Its kind is a string, since another replica may be newer than this one.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Number, without gaps, in commit order.
    pub seq: i64,
    /// Time of the transaction.
    pub at: Timestamp,
    /// Replica that wrote it.
    pub origin: String,
    /// Part of the system; `None` for one that this version does not know.
    pub topic: Option<Topic>,
    /// Word for the kind of event.
    pub kind: String,
    /// Version of the field format.
    pub version: u32,
    /// Word for the kind of actor.
    pub actor_kind: String,
    /// Operator's token or device that caused it.
    pub actor_id: Option<String>,
    /// The actor, for people.
    pub actor: String,
    /// Product it is about, if any.
    pub product: Option<String>,
    /// Rollout it is about, if any.
    pub rollout: Option<String>,
    /// Device it is about, if any.
    pub device: Option<DeviceId>,
    /// Ids, numbers and words from closed sets.
    pub body: Map<String, Value>,
    /// Free text, and names.
    pub said: Map<String, Value>,
    /// The sentence for people.
    pub text: String,
}

/// Encodes the fields as JSON: sorted keys, no floats, no spaces. The audit log takes these bytes
/// as they are.
fn object(fields: Fields) -> Value {
    fn value(scalar: Scalar) -> Value {
        match scalar {
            Scalar::Number(number) => number.into(),
            Scalar::Text(text) => text.into(),
            Scalar::Flag(flag) => flag.into(),
            Scalar::List(list) => list.into_iter().map(value).collect(),
        }
    }
    let fields = fields
        .into_iter()
        .map(|(name, v)| (name.to_owned(), value(v)));
    Value::Object(fields.collect())
}

/// Appends events and returns their numbers. The counter's row lock is held until the transaction
/// ends, so appending must be its last step.
pub async fn append(
    tx: &mut Tx,
    origin: &str,
    at: Timestamp,
    events: &[(Actor, Event)],
) -> Result<Range<i64>, StoreError> {
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let last: i64 = tx
        .optional("number events", NEXT, args![count], |row| row.get("value"))
        .await?
        .ok_or(StoreError::RowCount {
            operation: "number events",
            count: 0,
        })?;
    let numbers = last - count + 1..last + 1;
    for (seq, (actor, event)) in numbers.clone().zip(events) {
        let body = event.body();
        let subject = |name: &str| match body.get(name) {
            Some(Scalar::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let args = args![
            seq,
            at.as_micros(),
            origin,
            event.topic().as_str(),
            event.kind(),
            i64::from(event::VERSION),
            actor.kind(),
            actor.id(),
            actor.to_string(),
            subject("product"),
            subject("rollout"),
            subject("device"),
            to_json("body", &object(body))?,
            to_json("said", &object(event.said()))?,
            event.to_string(),
        ];
        tx.run_one("append an event", APPEND, args).await?;
    }
    tx.notify().await?;
    Ok(numbers)
}

/// Returns the number of the newest event; 0 if there is none.
pub async fn head(tx: &mut Tx) -> Result<i64, StoreError> {
    let value = tx
        .optional("read the event counter", HEAD, args![], |row| {
            row.get("value")
        })
        .await?;
    Ok(value.unwrap_or(0))
}

/// Events after a number, oldest first.
pub async fn after(tx: &mut Tx, seq: i64, limit: i64) -> Result<Vec<StoredEvent>, StoreError> {
    tx.all("read events", AFTER, args![seq, limit], read).await
}

/// Events of one rollout after a number, oldest first.
pub async fn of_rollout(
    tx: &mut Tx,
    rollout: RolloutId,
    seq: i64,
    limit: i64,
) -> Result<Vec<StoredEvent>, StoreError> {
    let args = args![rollout.to_string(), seq, limit];
    tx.all("read events", OF_ROLLOUT, args, read).await
}

/// Events of one device after a number, oldest first.
pub async fn of_device(
    tx: &mut Tx,
    device: DeviceId,
    seq: i64,
    limit: i64,
) -> Result<Vec<StoredEvent>, StoreError> {
    let args = args![device.to_string(), seq, limit];
    tx.all("read events", OF_DEVICE, args, read).await
}

/// Number of events of one kind that a device has had since a time.
pub async fn count_of(
    tx: &mut Tx,
    device: DeviceId,
    kind: &str,
    since: Timestamp,
) -> Result<u64, StoreError> {
    let args = args![device.to_string(), kind, since.as_micros()];
    let found = tx.optional("count events", COUNT_OF, args, |row| row.unsigned("found"));
    Ok(found.await?.unwrap_or(0))
}

fn read(row: &Row) -> Result<StoredEvent, StoreError> {
    let topic: String = row.get("topic")?;
    Ok(StoredEvent {
        seq: row.get("seq")?,
        at: row.time("at")?,
        origin: row.get("origin")?,
        topic: topic.parse().ok(),
        kind: row.get("kind")?,
        version: row.unsigned("version")?,
        actor_kind: row.get("actor_kind")?,
        actor_id: row.get("actor_id")?,
        actor: row.get("actor")?,
        product: row.get("product")?,
        rollout: row.get("rollout_id")?,
        device: row.parse_opt("device_id")?,
        body: json("body", &row.get::<String>("body")?)?,
        said: json("said", &row.get::<String>("said")?)?,
        text: row.get("text")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_body_have_one_form() {
        let event = Event::RolloutMade {
            product: "app".parse().unwrap(),
            rollout: RolloutId::from_random([1; 16]),
            release: "1.0.0".parse().unwrap(),
            waves: 3,
        };
        let text = to_json("body", &object(event.body())).unwrap();
        let rollout = RolloutId::from_random([1; 16]);
        assert_eq!(
            text,
            format!(r#"{{"product":"app","release":"1.0.0","rollout":"{rollout}","waves":3}}"#)
        );
    }
}

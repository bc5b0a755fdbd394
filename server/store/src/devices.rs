//! Devices.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_domain::contact::Contact;
use tidegate_domain::ring::Ring;
use tidegate_protocol::{
    Battery, Channel, DeviceId, Platform, ProductName, Region, Sha256, Timestamp, Version,
};

use super::row::{Row, args};
use super::{StoreError, Tx, json, statements, to_json};

statements! {
    INSERT = "INSERT INTO device (id, name, product, platform, region, channel, labels, ring, public_key, active, awaiting, release, image, agent_version, battery_percent, power, report_seq, enrolled_at, last_seen, flushed_at)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $13, $14, $10, $11, '', NULL, 'unknown', 0, $12, $12, $12)
              ON CONFLICT DO NOTHING";
    ALL = "SELECT * FROM device ORDER BY id";
    ONE = "SELECT * FROM device WHERE id = $1";
    BY_KEY = "SELECT * FROM device WHERE public_key = $1";
    PAGE = "SELECT * FROM device
            WHERE id > $1 AND ($2 = '' OR product = $2) AND ($3 = '' OR region = $3)
            ORDER BY id LIMIT $4";
    // Only the columns that decide which devices a wave takes, in ring order, through an index.
    ALONG_RING = "SELECT d.ring, d.platform, d.region, d.channel, d.labels, d.release, d.claimed, d.active,
                         CASE WHEN EXISTS (SELECT 1 FROM quarantine q WHERE q.device_id = d.id AND q.version = $4)
                              THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END AS barred
                  FROM device d WHERE d.product = $1 AND d.ring >= $2 AND d.ring <= $3 ORDER BY d.ring LIMIT $5";
    ALONG_RING_OF = "SELECT d.ring, d.platform, d.region, d.channel, d.labels, d.release, d.claimed, d.active,
                            CASE WHEN EXISTS (SELECT 1 FROM quarantine q WHERE q.device_id = d.id AND q.version = $4)
                                 THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END AS barred
                     FROM device d WHERE d.product = $1 AND d.region = $6 AND d.ring >= $2 AND d.ring <= $3 ORDER BY d.ring LIMIT $5";
    FLUSHED = "SELECT * FROM device WHERE flushed_at > $1";
    HEARTBEAT = "UPDATE device SET last_seen = $2, agent_version = $3, battery_percent = $4, power = $5, flushed_at = $6, metered = $7, low_since = $8, unhealthy_at = $9, contact = $10
                 WHERE id = $1 AND last_seen <= $2";
    REVOKE = "UPDATE device SET active = 0, awaiting = 0 WHERE id = $1";
    SET_ISOLATED = "UPDATE device SET isolated = $2 WHERE id = $1";
    READMIT = "UPDATE device SET active = 1, isolated = '', requests = 0, recent_requests = '', contact = '' WHERE id = $1 AND awaiting = 0";
    WANT_KEY = "UPDATE device SET new_key = 1 WHERE id = $1 AND active = 1";
    SET_KEY = "UPDATE device SET public_key = $3, new_key = 0 WHERE id = $1 AND public_key = $2";
    TAKE_REPORT = "UPDATE device SET report_seq = $2 WHERE id = $1 AND report_seq < $2 AND active = 1";
    REPORT_SEQ = "SELECT report_seq FROM device WHERE id = $1";
    SET_RUNS = "UPDATE device SET release = $2, image = $3, claimed = $4 WHERE id = $1";
}

/// A stored device.
#[expect(clippy::struct_excessive_bools, reason = "each is a column of its own")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Its name for people.
    pub name: String,
    /// Its product.
    pub product: ProductName,
    /// Its platform.
    pub platform: Platform,
    /// Its region.
    pub region: Region,
    /// Its channel.
    pub channel: Channel,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its position on the ring.
    pub ring: Ring,
    /// Its public key, in hexadecimal.
    pub public_key: String,
    /// Whether it may take part.
    pub active: bool,
    /// Whether it has joined and waits for a person to accept it; it is not active then.
    pub awaiting: bool,
    /// Reason for its isolation; empty when it is not isolated.
    pub isolated: String,
    /// Whether it is asked to make a new key.
    pub new_key: bool,
    /// Releases that failed on it and that a person allows again.
    pub lifted: BTreeSet<Version>,
    /// The release that it runs, if any.
    pub release: Option<Version>,
    /// Image of the release that it runs, if known.
    pub image: Option<Sha256>,
    /// Whether a check-in said so, and no signed report.
    pub claimed: bool,
    /// The agent's own version.
    pub agent_version: String,
    /// Its battery.
    pub battery: Battery,
    /// Whether its link costs by the byte.
    pub metered: bool,
    /// Time since which its battery has been low without interruption; `None` if it is not low.
    pub low_since: Option<Timestamp>,
    /// Time the running release was last found unhealthy after it had been healthy.
    pub unhealthy_at: Option<Timestamp>,
    /// Number of the newest report accepted from it.
    pub report_seq: u64,
    /// Time it enrolled.
    pub enrolled_at: Timestamp,
    /// Time it was last heard from; written behind, up to a few seconds late.
    pub last_seen: Timestamp,
    /// Time its heartbeat was last written.
    pub flushed_at: Timestamp,
    /// Its latest check-in, by which a copy beside it is found; `None` while it is isolated.
    pub contact: Option<Contact>,
}

/// Stores a new device; returns whether its id and key are new.
pub async fn insert(tx: &mut Tx, device: &Device) -> Result<bool, StoreError> {
    let rows = tx
        .run(
            "store a device",
            INSERT,
            args![
                device.id.to_string(),
                device.name.as_str(),
                device.product.as_str(),
                device.platform.as_str(),
                device.region.as_str(),
                device.channel.as_str(),
                to_json("labels", &device.labels)?,
                i64::try_from(device.ring.get()).unwrap_or(i64::MAX),
                device.public_key.as_str(),
                device.release.as_ref().map(ToString::to_string),
                device.image.map(|i| i.to_string()),
                device.enrolled_at.as_micros(),
                device.active,
                device.awaiting,
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// Every device.
pub async fn all(tx: &mut Tx) -> Result<Vec<Device>, StoreError> {
    tx.all("read devices", ALL, args![], read).await
}

/// One device.
pub async fn one(tx: &mut Tx, id: DeviceId) -> Result<Option<Device>, StoreError> {
    tx.optional("read a device", ONE, args![id.to_string()], read)
        .await
}

/// The device with a key.
pub async fn by_key(tx: &mut Tx, public_key: &str) -> Result<Option<Device>, StoreError> {
    tx.optional("read a device", BY_KEY, args![public_key], read)
        .await
}

/// A page of devices in the order of their ids; empty filters select all.
pub async fn page(
    tx: &mut Tx,
    after: &str,
    product: &str,
    region: &str,
    limit: i64,
) -> Result<Vec<Device>, StoreError> {
    tx.all(
        "read devices",
        PAGE,
        args![after, product, region, limit],
        read,
    )
    .await
}

/// Facts about a device that decide whether a wave takes it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its position on the ring.
    pub ring: Ring,
    /// Its platform.
    pub platform: Platform,
    /// Its region.
    pub region: Region,
    /// Its channel.
    pub channel: Channel,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The release that it runs, if any.
    pub release: Option<Version>,
    /// Whether that is only what a check-in says.
    pub claimed: bool,
    /// Whether it may take part.
    pub active: bool,
    /// Whether the release in question is quarantined for it.
    pub barred: bool,
}

/// Returns the next devices of a product, or of one of its regions, on a stretch of the ring.
pub async fn along_ring(
    tx: &mut Tx,
    product: &ProductName,
    region: Option<&Region>,
    (first, last): (u64, u64),
    goal: &Version,
    limit: i64,
) -> Result<Vec<Candidate>, StoreError> {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut args = args![
        product.as_str(),
        signed(first),
        signed(last),
        goal.to_string(),
        limit
    ];
    let sql = match region {
        None => ALONG_RING,
        Some(region) => {
            args.push(super::row::Value::from(region.as_str()));
            ALONG_RING_OF
        }
    };
    tx.all("walk along the ring", sql, args, |row| {
        let labels: String = row.get("labels")?;
        Ok(Candidate {
            ring: Ring::from_random(row.unsigned("ring")?),
            platform: row.parse("platform")?,
            region: row.parse("region")?,
            channel: row.parse("channel")?,
            labels: json("labels", &labels)?,
            release: row.parse_opt("release")?,
            claimed: row.get::<i64>("claimed")? == 1,
            active: row.get::<i64>("active")? == 1,
            barred: row.get::<i64>("barred")? == 1,
        })
    })
    .await
}

/// Returns the devices whose heartbeat was written after a time, by other replicas too.
pub async fn flushed_after(tx: &mut Tx, at: Timestamp) -> Result<Vec<Device>, StoreError> {
    tx.all("read heartbeats", FLUSHED, args![at.as_micros()], read)
        .await
}

/// Writes the facts of a check-in; an older one never overwrites a newer one.
pub async fn heartbeat(tx: &mut Tx, device: &Device, now: Timestamp) -> Result<(), StoreError> {
    tx.run(
        "write a heartbeat",
        HEARTBEAT,
        args![
            device.id.to_string(),
            device.last_seen.as_micros(),
            device.agent_version.as_str(),
            device.battery.percent.map(i64::from),
            device.battery.power.as_str(),
            now.as_micros(),
            device.metered,
            device.low_since.map(Timestamp::as_micros),
            device.unhealthy_at.map(Timestamp::as_micros),
            device
                .contact
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        ],
    )
    .await
    .map(drop)
}

/// Revokes a device; returns whether it exists.
pub async fn revoke(tx: &mut Tx, id: DeviceId) -> Result<bool, StoreError> {
    let args = args![id.to_string()];
    Ok(tx.run("revoke a device", REVOKE, args).await? == 1)
}

/// Isolates a device, with a reason: it gets nothing but the way back. Returns whether it exists.
pub async fn set_isolated(tx: &mut Tx, id: DeviceId, why: &str) -> Result<bool, StoreError> {
    let args = args![id.to_string(), why];
    Ok(tx.run("isolate a device", SET_ISOLATED, args).await? == 1)
}

/// Readmits a device and restarts the numbering of its signed requests; returns whether it exists
/// and does not wait to be accepted.
pub async fn readmit(tx: &mut Tx, id: DeviceId) -> Result<bool, StoreError> {
    let args = args![id.to_string()];
    Ok(tx.run("readmit a device", READMIT, args).await? == 1)
}

/// Asks a device to make a new key; returns whether there is such an active device.
pub async fn want_new_key(tx: &mut Tx, id: DeviceId) -> Result<bool, StoreError> {
    let args = args![id.to_string()];
    Ok(tx.run("ask for a new key", WANT_KEY, args).await? == 1)
}

/// Replaces a device's key; returns whether `old` was its current key.
pub async fn set_key(tx: &mut Tx, id: DeviceId, old: &str, new: &str) -> Result<bool, StoreError> {
    let args = args![id.to_string(), old, new];
    Ok(tx.run("change a device's key", SET_KEY, args).await? == 1)
}

/// Records a report's number; returns whether it is new. Locks the device's row until the
/// transaction ends.
pub async fn take_report(tx: &mut Tx, id: DeviceId, seq: u64) -> Result<bool, StoreError> {
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    Ok(tx
        .run("take a report", TAKE_REPORT, args![id.to_string(), seq])
        .await?
        == 1)
}

/// Returns the number of the newest report accepted from a device.
pub async fn report_seq(tx: &mut Tx, id: DeviceId) -> Result<Option<u64>, StoreError> {
    tx.optional(
        "read a report number",
        REPORT_SEQ,
        args![id.to_string()],
        |row| row.unsigned("report_seq"),
    )
    .await
}

/// Writes the release and the image that a device runs now, and whether that is a mere claim.
pub async fn set_runs(
    tx: &mut Tx,
    id: DeviceId,
    release: Option<&Version>,
    image: Option<Sha256>,
    claimed: bool,
) -> Result<(), StoreError> {
    let release = release.map(ToString::to_string);
    let image = image.map(|i| i.to_string());
    tx.run_one(
        "write what a device runs",
        SET_RUNS,
        args![id.to_string(), release, image, claimed],
    )
    .await
}

fn read(row: &Row) -> Result<Device, StoreError> {
    let labels: String = row.get("labels")?;
    let percent: Option<i64> = row.get("battery_percent")?;
    Ok(Device {
        id: row.parse("id")?,
        name: row.get("name")?,
        product: row.parse("product")?,
        platform: row.parse("platform")?,
        region: row.parse("region")?,
        channel: row.parse("channel")?,
        labels: json("labels", &labels)?,
        ring: Ring::from_random(row.unsigned("ring")?),
        public_key: row.get("public_key")?,
        active: row.get::<i64>("active")? == 1,
        awaiting: row.get::<i64>("awaiting")? == 1,
        isolated: row.get("isolated")?,
        new_key: row.get::<i64>("new_key")? == 1,
        lifted: super::quarantine::versions(&row.get::<String>("lifted")?),
        release: row.parse_opt("release")?,
        image: row.parse_opt("image")?,
        claimed: row.get::<i64>("claimed")? == 1,
        agent_version: row.get("agent_version")?,
        battery: Battery {
            percent: percent.and_then(|p| u8::try_from(p).ok()),
            power: row.parse("power")?,
        },
        metered: row.get::<i64>("metered")? == 1,
        low_since: row.time_opt("low_since")?,
        unhealthy_at: row.time_opt("unhealthy_at")?,
        report_seq: row.unsigned("report_seq")?,
        enrolled_at: row.time("enrolled_at")?,
        last_seen: row.time("last_seen")?,
        flushed_at: row.time("flushed_at")?,
        // Only a hint: a text of a later version stops nothing.
        contact: row.get::<String>("contact")?.parse().ok(),
    })
}

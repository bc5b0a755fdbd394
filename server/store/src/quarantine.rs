//! Releases that a device will not have again until a person lifts it.

use std::collections::BTreeSet;

use tidegate_protocol::{DeviceId, Timestamp, Version};

use super::row::args;
use super::{StoreError, Tx, statements};

statements! {
    QUARANTINE = "INSERT INTO quarantine (device_id, version, reason, created_at) VALUES ($1, $2, $3, $4)
                  ON CONFLICT (device_id, version) DO NOTHING";
    LIFTED = "SELECT lifted FROM device WHERE id = $1";
    SET_LIFTED = "UPDATE device SET lifted = $2 WHERE id = $1";
    LIFT = "DELETE FROM quarantine WHERE device_id = $1 AND version = $2";
    ALL_QUARANTINED = "SELECT device_id, version FROM quarantine";
    QUARANTINED = "SELECT device_id, version FROM quarantine WHERE device_id = $1";
}

/// Quarantines a release for a device.
pub async fn quarantine(
    tx: &mut Tx,
    id: DeviceId,
    version: &Version,
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let args = args![id.to_string(), version.to_string(), reason, now.as_micros()];
    tx.run("quarantine a device", QUARANTINE, args).await?;
    change_lifted(tx, id, |lifted| lifted.remove(version)).await
}

pub(super) fn versions(text: &str) -> BTreeSet<Version> {
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Lifts the quarantine of a release for a device; returns whether there was one.
pub async fn lift(tx: &mut Tx, id: DeviceId, version: &Version) -> Result<bool, StoreError> {
    let args = args![id.to_string(), version.to_string()];
    if tx.run("lift a quarantine", LIFT, args).await? == 0 {
        return Ok(false);
    }
    change_lifted(tx, id, |lifted| lifted.insert(version.clone())).await?;
    Ok(true)
}

/// Returns every quarantine as a device and a release.
pub async fn all_quarantined(tx: &mut Tx) -> Result<Vec<(DeviceId, Version)>, StoreError> {
    tx.all("read quarantines", ALL_QUARANTINED, args![], |row| {
        Ok((row.parse("device_id")?, row.parse("version")?))
    })
    .await
}

/// Returns the releases that are quarantined for a device.
pub async fn quarantined(tx: &mut Tx, id: DeviceId) -> Result<Vec<Version>, StoreError> {
    tx.all(
        "read quarantines",
        QUARANTINED,
        args![id.to_string()],
        |row| row.parse("version"),
    )
    .await
}

/// Changes the set of releases that a device may have again; writes only if it changes.
async fn change_lifted(
    tx: &mut Tx,
    id: DeviceId,
    change: impl FnOnce(&mut BTreeSet<Version>) -> bool,
) -> Result<(), StoreError> {
    let args = args![id.to_string()];
    let text = tx
        .optional("read lifted releases", LIFTED, args, |row| {
            row.get::<String>("lifted")
        })
        .await?;
    let mut lifted = versions(&text.unwrap_or_default());
    if !change(&mut lifted) {
        return Ok(());
    }
    let words: Vec<String> = lifted.iter().map(ToString::to_string).collect();
    let args = args![id.to_string(), words.join(" ")];
    tx.run_one("write lifted releases", SET_LIFTED, args).await
}

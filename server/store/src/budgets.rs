//! Events of each device in its hour.

use tidegate_domain::event::budget::Budget;
use tidegate_protocol::{DeviceId, Timestamp};

use super::row::args;
use super::{StoreError, Tx, statements};

statements! {
    // It changes nothing of a row that is there, but holds it until the transaction ends.
    LOCK = "INSERT INTO device_budget (device_id, since, written, withheld) VALUES ($1, $2, 0, 0)
            ON CONFLICT (device_id) DO UPDATE SET written = device_budget.written
            RETURNING since, written, withheld";
    SET = "UPDATE device_budget SET since = $2, written = $3, withheld = $4 WHERE device_id = $1";
    DUE = "SELECT device_id FROM device_budget WHERE withheld > 0 AND since <= $1 ORDER BY since LIMIT $2";
}

/// Reads the budget of a device and holds it until the transaction ends; a new one begins now.
pub async fn hold(tx: &mut Tx, device: DeviceId, now: Timestamp) -> Result<Budget, StoreError> {
    let args = args![device.to_string(), now.as_micros()];
    let found = tx
        .optional("hold a device's budget", LOCK, args, |row| {
            Ok(Budget {
                since: row.time("since")?,
                written: row.unsigned("written")?,
                withheld: row.unsigned("withheld")?,
            })
        })
        .await?;
    Ok(found.unwrap_or_else(|| Budget::new(now)))
}

/// Writes the budget of a device that is held.
pub async fn set(tx: &mut Tx, device: DeviceId, budget: &Budget) -> Result<(), StoreError> {
    let args = args![
        device.to_string(),
        budget.since.as_micros(),
        i64::from(budget.written),
        i64::try_from(budget.withheld).unwrap_or(i64::MAX),
    ];
    tx.run_one("write a device's budget", SET, args).await
}

/// Returns devices whose hour began before a time and has events that were counted alone.
pub async fn due(tx: &mut Tx, began: Timestamp, limit: i64) -> Result<Vec<DeviceId>, StoreError> {
    let args = args![began.as_micros(), limit];
    tx.all("read devices' budgets", DUE, args, |row| {
        row.parse("device_id")
    })
    .await
}

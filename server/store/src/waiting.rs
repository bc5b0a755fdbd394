//! Devices that have joined and wait for a person to accept them.

use tidegate_protocol::DeviceId;

use super::row::args;
use super::{StoreError, Tx, statements};

statements! {
    PAGE = "SELECT id FROM device WHERE awaiting = 1 AND id > $1 AND ($2 = '' OR product = $2) ORDER BY id LIMIT $3";
    ACCEPT = "UPDATE device SET active = 1, awaiting = 0 WHERE id = $1 AND awaiting = 1";
    REJECT = "UPDATE device SET awaiting = 0 WHERE id = $1 AND awaiting = 1";
}

/// Returns devices that wait for a person to accept them, after a position, by id; an empty
/// `product` selects all.
pub async fn page(
    tx: &mut Tx,
    after: &str,
    product: &str,
    limit: i64,
) -> Result<Vec<DeviceId>, StoreError> {
    let args = args![after, product, limit];
    tx.all("read waiting devices", PAGE, args, |row| row.parse("id"))
        .await
}

/// Accepts a device that waits; returns whether it did.
pub async fn accept(tx: &mut Tx, id: DeviceId) -> Result<bool, StoreError> {
    let args = args![id.to_string()];
    Ok(tx.run("accept a device", ACCEPT, args).await? == 1)
}

/// Rejects a device that waits: it stays known and inactive. Returns whether it waited.
pub async fn reject(tx: &mut Tx, id: DeviceId) -> Result<bool, StoreError> {
    let args = args![id.to_string()];
    Ok(tx.run("reject a device", REJECT, args).await? == 1)
}

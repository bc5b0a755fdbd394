//! Numbers of devices' signed requests.

use tidegate_domain::requests::{Numbered, Recent, Unreadable};
use tidegate_protocol::DeviceId;

use super::row::args;
use super::{StoreError, Tx, statements};

statements! {
    TAKE_REQUEST = "UPDATE device SET requests = $2, recent_requests = $3 WHERE id = $1 AND recent_requests = $4 AND (active = 1 OR awaiting = 1)";
    REQUESTS = "SELECT recent_requests FROM device WHERE id = $1 AND (active = 1 OR awaiting = 1)";
}

/// Records the number of a signed request; returns the verdict. `None` for a device that may not
/// take part, or when its other requests keep coming in between.
pub async fn take(
    tx: &mut Tx,
    id: DeviceId,
    number: u64,
    nonce: &str,
) -> Result<Option<Numbered>, StoreError> {
    // The row may change between read and write: then the request is judged again.
    for _ in 0..8 {
        let known = tx
            .optional("read requests", REQUESTS, args![id.to_string()], |row| {
                row.get::<String>("recent_requests")
            })
            .await?;
        let Some(known) = known else {
            return Ok(None);
        };
        let mut recent: Recent = known.parse().map_err(|e: Unreadable| StoreError::BadRow {
            column: "recent_requests",
            what: e.to_string(),
        })?;
        let verdict = recent.take(number, nonce);
        let highest = i64::try_from(recent.highest()).unwrap_or(i64::MAX);
        let args = args![id.to_string(), highest, recent.to_string(), known];
        if tx.run("take a request", TAKE_REQUEST, args).await? == 1 {
            return Ok(Some(verdict));
        }
    }
    Ok(None)
}

//! Holds.

use tidegate_domain::hold::Hold;
use tidegate_protocol::{HoldId, ProductName, Timestamp};

use super::row::{Row, args};
use super::{StoreError, Tx, statements};

statements! {
    INSERT = "INSERT INTO hold (id, product, version, selector, reason, link, created_at, created_by)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    OPEN = "SELECT * FROM hold WHERE lifted_at IS NULL ORDER BY created_at, id";
    PAGE = "SELECT * FROM hold WHERE id > $1 AND ($2 = '' OR product = $2) AND lifted_at IS NULL
            ORDER BY id LIMIT $3";
    LIFT = "UPDATE hold SET lifted_at = $2, lifted_by = $3 WHERE id = $1 AND lifted_at IS NULL";
}

/// A stored hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRow {
    /// The product it belongs to.
    pub product: ProductName,
    /// The hold as decisions use it.
    pub hold: Hold,
    /// Time it was created.
    pub created_at: Timestamp,
    /// The person who created it.
    pub created_by: String,
}

/// Stores a new hold.
pub async fn insert(tx: &mut Tx, row: &HoldRow) -> Result<(), StoreError> {
    let hold = &row.hold;
    let version = hold.release.as_ref().map(ToString::to_string);
    let args = args![
        hold.id.to_string(),
        row.product.as_str(),
        version.unwrap_or_default(),
        hold.selector.to_string(),
        hold.reason.as_str(),
        hold.link.as_str(),
        row.created_at.as_micros(),
        row.created_by.as_str(),
    ];
    tx.run_one("store a hold", INSERT, args).await
}

/// Returns the holds in force.
pub async fn open(tx: &mut Tx) -> Result<Vec<HoldRow>, StoreError> {
    tx.all("read holds", OPEN, args![], read).await
}

/// A page of the holds in force, in the order of their ids; an empty product selects all.
pub async fn page(
    tx: &mut Tx,
    after: &str,
    product: &str,
    limit: i64,
) -> Result<Vec<HoldRow>, StoreError> {
    tx.all("read holds", PAGE, args![after, product, limit], read)
        .await
}

/// Lifts a hold; returns whether it was in force.
pub async fn lift(tx: &mut Tx, id: HoldId, by: &str, now: Timestamp) -> Result<bool, StoreError> {
    let args = args![id.to_string(), now.as_micros(), by];
    Ok(tx.run("lift a hold", LIFT, args).await? == 1)
}

fn read(row: &Row) -> Result<HoldRow, StoreError> {
    let version: String = row.get("version")?;
    Ok(HoldRow {
        product: row.parse("product")?,
        hold: Hold {
            id: row.parse("id")?,
            release: if version.is_empty() {
                None
            } else {
                Some(row.parse("version")?)
            },
            selector: row.parse("selector")?,
            reason: row.get("reason")?,
            link: row.get("link")?,
        },
        created_at: row.time("created_at")?,
        created_by: row.get("created_by")?,
    })
}

//! Join tokens.

use tidegate_api::{JoinTokenItem, time};
use tidegate_core::rows::JoinRow;

use super::View;

impl View<JoinRow> for JoinTokenItem {
    fn view(row: JoinRow) -> Self {
        Self {
            id: row.id.to_string(),
            product: row.product.to_string(),
            region: row.region.map(|region| region.to_string()),
            channel: row.channel.map(|channel| channel.to_string()),
            labels: row.labels,
            uses_left: u32::try_from(row.uses_left).unwrap_or(0),
            uses: row.uses.and_then(|uses| u32::try_from(uses).ok()),
            approve: row.approve,
            keys: row.keys.iter().map(ToString::to_string).collect(),
            created_at: time(row.created_at),
            created_by: row.created_by,
            expires_at: time(row.expires_at),
        }
    }
}

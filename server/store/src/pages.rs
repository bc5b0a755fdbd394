//! A page of rollouts with all that a standing needs: a fixed number of statements, whatever the
//! number of rollouts.

use std::collections::BTreeMap;

use tidegate_domain::rollout::{Progress, Stratum};
use tidegate_protocol::{ChangeId, RolloutId, Timestamp};

use super::aggregates::{self, Counted};
use super::changes::{self, Change};
use super::rollouts::{self, Rollout};
use super::row::{Value, args};
use super::waves::{self, WaveRow};
use super::{StoreError, Tx, statements};

/// Ids of the rollouts on a page, as a subquery.
macro_rules! on_page {
    () => {
        "(SELECT id FROM rollout
          WHERE (created_at < $1 OR (created_at = $1 AND id < $2)) AND ($3 = '' OR product = $3)
          ORDER BY created_at DESC, id DESC LIMIT $4)"
    };
}

statements! {
    PAGE = concat!("SELECT * FROM rollout WHERE id IN ", on_page!(), " ORDER BY created_at DESC, id DESC");
    WAVES = concat!("SELECT * FROM wave WHERE rollout_id IN ", on_page!(), " ORDER BY rollout_id, idx");
    TALLIES = concat!("SELECT rollout_id, wave, outcome, CAST(SUM(count) AS BIGINT) AS n FROM tally
                       WHERE rollout_id IN ", on_page!(), " GROUP BY rollout_id, wave, outcome");
    PROGRESS = concat!("SELECT * FROM progress WHERE rollout_id IN ", on_page!());
    STRATA = concat!("SELECT * FROM stratum WHERE rollout_id IN ", on_page!(), " ORDER BY rollout_id, at");
    CHANGES = concat!("SELECT * FROM change WHERE rollout_id IN ", on_page!(), " ORDER BY asked_at DESC, id");
    APPROVALS = concat!("SELECT a.change_id, a.plan_sha256, a.given_by FROM approval a JOIN change c ON c.id = a.change_id
                         WHERE c.state = 'waiting' AND c.rollout_id IN ", on_page!());
}

/// Page of rollouts, newest first.
#[derive(Debug, Clone, Copy)]
pub struct RolloutPage<'a> {
    /// Rollouts created before this time,
    pub before: Timestamp,
    /// or at it, with a smaller id.
    pub before_id: &'a str,
    /// Only those of this product; all if empty.
    pub product: &'a str,
    /// Maximum number of rollouts.
    pub limit: i64,
}

impl RolloutPage<'_> {
    fn args(&self) -> Vec<Value> {
        args![
            self.before.as_micros(),
            self.before_id,
            self.product,
            self.limit
        ]
    }
}

/// Rows that belong to the rollouts of a page.
#[derive(Debug, Default)]
pub struct PageRows {
    /// The rollouts, newest first.
    pub rollouts: Vec<Rollout>,
    /// Waves of each, in order.
    pub waves: BTreeMap<RolloutId, Vec<WaveRow>>,
    /// Counts of their deployments.
    pub tallies: Vec<Counted>,
    /// Progress of each.
    pub progress: BTreeMap<RolloutId, Progress>,
    /// Observations of the comparison of each.
    pub strata: BTreeMap<RolloutId, Vec<Stratum>>,
    /// Changes of each, newest first.
    pub changes: BTreeMap<RolloutId, Vec<Change>>,
    /// Approvals of waiting changes: the change, the plan's hash, and who gave it.
    pub approvals: Vec<(ChangeId, String, String)>,
}

/// Reads a page of rollouts and what belongs to them.
pub async fn rollouts(tx: &mut Tx, page: &RolloutPage<'_>) -> Result<PageRows, StoreError> {
    let mut rows = PageRows {
        rollouts: tx
            .all("read rollouts", PAGE, page.args(), rollouts::read)
            .await?,
        ..PageRows::default()
    };
    if rows.rollouts.is_empty() {
        return Ok(rows);
    }
    let waves = tx
        .all("read waves", WAVES, page.args(), |row| {
            Ok((row.parse("rollout_id")?, waves::read_wave(row)?))
        })
        .await?;
    rows.waves = grouped(waves);
    rows.tallies = tx
        .all(
            "read tallies",
            TALLIES,
            page.args(),
            aggregates::read_counted,
        )
        .await?;
    let progress = tx
        .all(
            "read progress",
            PROGRESS,
            page.args(),
            aggregates::read_progress,
        )
        .await?;
    rows.progress = progress.into_iter().collect();
    let strata = tx
        .all("read comparisons", STRATA, page.args(), |row| {
            Ok((row.parse("rollout_id")?, aggregates::read_stratum(row)?))
        })
        .await?;
    rows.strata = grouped(strata);
    let changes = tx
        .all("read changes", CHANGES, page.args(), changes::read)
        .await?;
    rows.changes = grouped(changes.into_iter().map(|c| (c.rollout, c)).collect());
    rows.approvals = tx
        .all("read approvals", APPROVALS, page.args(), |row| {
            Ok((
                row.parse("change_id")?,
                row.get("plan_sha256")?,
                row.get("given_by")?,
            ))
        })
        .await?;
    Ok(rows)
}

/// Groups rows by rollout; keeps their order.
fn grouped<T>(rows: Vec<(RolloutId, T)>) -> BTreeMap<RolloutId, Vec<T>> {
    let mut groups: BTreeMap<RolloutId, Vec<T>> = BTreeMap::new();
    for (id, row) in rows {
        groups.entry(id).or_default().push(row);
    }
    groups
}

//! Running aggregates: tallies, progress, and the observations of the comparison. The planner's
//! tick reads these and never a device's row.

use std::collections::BTreeMap;

use tidegate_domain::rollout::{Outcome, Progress, Sample, Stratum};
use tidegate_protocol::{ProductName, Reason, RolloutId, Timestamp};

use super::row::{Row, args};
use super::{StoreError, Tx, statements};

statements! {
    BUMP = "INSERT INTO tally (rollout_id, wave, region, platform, model, from_release, outcome, reason, count)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT (rollout_id, wave, region, platform, model, from_release, outcome, reason)
            DO UPDATE SET count = tally.count + excluded.count";
    TALLIES = "SELECT rollout_id, wave, outcome, CAST(SUM(count) AS BIGINT) AS n FROM tally
               WHERE rollout_id IN (SELECT id FROM rollout WHERE state IN ('running', 'completed', 'rolling_back'))
               GROUP BY rollout_id, wave, outcome";
    TALLIES_OF = "SELECT rollout_id, wave, outcome, CAST(SUM(count) AS BIGINT) AS n FROM tally
                  WHERE rollout_id = $1 GROUP BY rollout_id, wave, outcome";
    KNOWN = "SELECT region, platform, model, from_release, outcome, reason, CAST(SUM(count) AS BIGINT) AS n FROM tally
             WHERE rollout_id = $1 AND outcome IN ('probation', 'succeeded', 'failed')
             GROUP BY region, platform, model, from_release, outcome, reason";
    BEGIN = "INSERT INTO progress (rollout_id, exposed, granted, granted_at, last_offer_at, done, done_s)
             VALUES ($1, 0, 0, NULL, NULL, 0, 0)";
    PROGRESS = "SELECT p.* FROM progress p JOIN rollout r ON r.id = p.rollout_id
                WHERE r.state IN ('running', 'paused', 'halted', 'completed', 'rolling_back')";
    PROGRESS_OF = "SELECT * FROM progress WHERE rollout_id = $1";
    EXPOSE = "UPDATE progress SET exposed = exposed + 1, last_offer_at = $2
              WHERE rollout_id = $1 AND exposed < granted";
    DONE = "UPDATE progress SET done = done + $2, done_s = done_s + $3 WHERE rollout_id = $1";
    GRANT = "UPDATE progress SET granted = $3, granted_at = $4 WHERE rollout_id = $1 AND granted = $2";
    ADD_STRATUM = "INSERT INTO stratum (rollout_id, at, risk_new, risk_old, bad_new, bad_old)
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    STRATA = "SELECT * FROM stratum WHERE rollout_id = $1 ORDER BY at";
    BAD_NEW = "SELECT COUNT(*) AS n FROM device v JOIN deployment d ON d.device_id = v.id AND d.rollout_id = $2
               WHERE v.product = $1 AND v.unhealthy_at > $3 AND v.unhealthy_at <= $4
                 AND d.outcome IN ('probation', 'succeeded')";
    BAD_OLD = "SELECT COUNT(*) AS n FROM device v
               WHERE v.product = $1 AND v.unhealthy_at > $3 AND v.unhealthy_at <= $4
                 AND NOT EXISTS (SELECT 1 FROM deployment d WHERE d.device_id = v.id AND d.rollout_id = $2)";
}

/// Key under which a deployment is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TallyKey {
    /// The rollout it belongs to.
    pub rollout: RolloutId,
    /// Index of its wave.
    pub wave: u32,
    /// Region of its device.
    pub region: String,
    /// Platform of its device.
    pub platform: String,
    /// Its device's label `model`.
    pub model: String,
    /// Release it ran before; empty if none.
    pub from: String,
    /// Outcome it counts as.
    pub outcome: Outcome,
    /// Reason it failed; empty for other outcomes.
    pub reason: String,
}

/// Tally changes, gathered so that a batch writes each row once and all batches write in the same
/// order.
#[derive(Debug, Default)]
pub struct Tallies(BTreeMap<TallyKey, i64>);

impl Tallies {
    /// Moves one deployment from one key to another.
    pub fn moved(&mut self, from: Option<TallyKey>, to: TallyKey) {
        if let Some(from) = from {
            *self.0.entry(from).or_default() -= 1;
        }
        *self.0.entry(to).or_default() += 1;
    }

    /// Writes the gathered changes.
    pub async fn flush(self, tx: &mut Tx) -> Result<(), StoreError> {
        for (key, change) in self.0.into_iter().filter(|(_, change)| *change != 0) {
            let args = args![
                key.rollout.to_string(),
                i64::from(key.wave),
                key.region,
                key.platform,
                key.model,
                key.from,
                key.outcome.as_str(),
                key.reason,
                change,
            ];
            tx.run_one("count a deployment", BUMP, args).await?;
        }
        Ok(())
    }
}

/// One count of a tally.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// The rollout it belongs to.
    pub rollout: RolloutId,
    /// Index of its wave.
    pub wave: u32,
    /// The outcome.
    pub outcome: Outcome,
    /// Number of deployments.
    pub count: u64,
}

pub(crate) fn read_counted(row: &Row) -> Result<Counted, StoreError> {
    Ok(Counted {
        rollout: row.parse("rollout_id")?,
        wave: row.unsigned("wave")?,
        outcome: row.parse("outcome")?,
        count: row.unsigned("n")?,
    })
}

/// Returns the tallies of all rollouts that may still move by themselves.
pub async fn tallies(tx: &mut Tx) -> Result<Vec<Counted>, StoreError> {
    tx.all("read tallies", TALLIES, args![], read_counted).await
}

/// The tallies of one rollout.
pub async fn tallies_of(tx: &mut Tx, rollout: RolloutId) -> Result<Vec<Counted>, StoreError> {
    tx.all(
        "read tallies",
        TALLIES_OF,
        args![rollout.to_string()],
        read_counted,
    )
    .await
}

/// Returns the known outcomes of a rollout by every property that devices may share.
pub async fn samples(tx: &mut Tx, rollout: RolloutId) -> Result<Vec<Sample>, StoreError> {
    tx.all("read outcomes", KNOWN, args![rollout.to_string()], |row| {
        let outcome: Outcome = row.parse("outcome")?;
        let reason: String = row.get("reason")?;
        let from: String = row.get("from_release")?;
        Ok(Sample {
            region: row.parse("region")?,
            platform: row.get("platform")?,
            model: row.get("model")?,
            from: from.parse().ok(),
            // A failure with an unknown reason still counts as a failure.
            reason: (outcome == Outcome::Failed)
                .then(|| reason.parse().unwrap_or(Reason::HealthFailed)),
            count: row.unsigned("n")?,
        })
    })
    .await
}

/// Creates a rollout's progress, with nothing exposed and nothing granted.
pub async fn begin(tx: &mut Tx, rollout: RolloutId) -> Result<(), StoreError> {
    tx.run_one(
        "begin a rollout's progress",
        BEGIN,
        args![rollout.to_string()],
    )
    .await
}

pub(crate) fn read_progress(row: &Row) -> Result<(RolloutId, Progress), StoreError> {
    let progress = Progress {
        exposed: row.unsigned("exposed")?,
        granted: row.unsigned("granted")?,
        granted_at: row.time_opt("granted_at")?,
        last_offer: row.time_opt("last_offer_at")?,
        done: row.unsigned("done")?,
        done_s: row.unsigned("done_s")?,
    };
    Ok((row.parse("rollout_id")?, progress))
}

/// The progress of all rollouts that concern devices.
pub async fn progress(tx: &mut Tx) -> Result<BTreeMap<RolloutId, Progress>, StoreError> {
    let list = tx
        .all("read progress", PROGRESS, args![], read_progress)
        .await?;
    Ok(list.into_iter().collect())
}

/// The progress of one rollout.
pub async fn progress_of(tx: &mut Tx, rollout: RolloutId) -> Result<Progress, StoreError> {
    let args = args![rollout.to_string()];
    let found = tx
        .optional("read progress", PROGRESS_OF, args, read_progress)
        .await?;
    Ok(found.map(|(_, progress)| progress).unwrap_or_default())
}

/// Exposes one device within the grant; returns whether there was room.
pub async fn expose(tx: &mut Tx, rollout: RolloutId, now: Timestamp) -> Result<bool, StoreError> {
    let args = args![rollout.to_string(), now.as_micros()];
    Ok(tx.run("expose a device", EXPOSE, args).await? == 1)
}

/// Adds `count` devices whose outcome became known, and their total time in `seconds`.
pub async fn done(
    tx: &mut Tx,
    rollout: RolloutId,
    count: u64,
    seconds: u64,
) -> Result<(), StoreError> {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let args = args![rollout.to_string(), signed(count), signed(seconds)];
    tx.run("count what is done", DONE, args).await.map(drop)
}

/// Sets the grant if it still is `was`; returns whether it was.
pub async fn grant(
    tx: &mut Tx,
    rollout: RolloutId,
    was: u64,
    granted: u64,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let args = args![
        rollout.to_string(),
        signed(was),
        signed(granted),
        at.as_micros()
    ];
    Ok(tx.run("set a grant", GRANT, args).await? == 1)
}

/// Stores the comparison's observations between two looks.
pub async fn add_stratum(
    tx: &mut Tx,
    rollout: RolloutId,
    at: Timestamp,
    stratum: Stratum,
) -> Result<(), StoreError> {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let args = args![
        rollout.to_string(),
        at.as_micros(),
        signed(stratum.risk_new),
        signed(stratum.risk_old),
        signed(stratum.bad_new),
        signed(stratum.bad_old),
    ];
    tx.run("remember a comparison", ADD_STRATUM, args)
        .await
        .map(drop)
}

/// Returns the observations of a rollout's comparison.
pub async fn strata(tx: &mut Tx, rollout: RolloutId) -> Result<Vec<Stratum>, StoreError> {
    tx.all(
        "read comparisons",
        STRATA,
        args![rollout.to_string()],
        read_stratum,
    )
    .await
}

pub(crate) fn read_stratum(row: &Row) -> Result<Stratum, StoreError> {
    Ok(Stratum {
        risk_new: row.unsigned("risk_new")?,
        risk_old: row.unsigned("risk_old")?,
        bad_new: row.unsigned("bad_new")?,
        bad_old: row.unsigned("bad_old")?,
    })
}

/// Counts the devices that turned unhealthy in a span of time: those on the rollout's release, and
/// those that the rollout has not exposed.
pub async fn turned_bad(
    tx: &mut Tx,
    product: &ProductName,
    rollout: RolloutId,
    after: Timestamp,
    until: Timestamp,
) -> Result<(u64, u64), StoreError> {
    let mut counts = [0; 2];
    for (count, sql) in counts.iter_mut().zip([BAD_NEW, BAD_OLD]) {
        let args = args![
            product.as_str(),
            rollout.to_string(),
            after.as_micros(),
            until.as_micros()
        ];
        let found = tx
            .optional("count the unhealthy", sql, args, |row| row.unsigned("n"))
            .await?;
        *count = found.unwrap_or(0);
    }
    Ok((counts[0], counts[1]))
}

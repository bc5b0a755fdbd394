//! Waves of rollouts.

use tidegate_domain::ring::Frontier;
use tidegate_domain::rollout::{Wave, WaveProgress, WaveState};
use tidegate_protocol::RolloutId;

use super::row::{Row, args};
use super::{StoreError, Tx, statements};

statements! {
    INSERT_WAVE = "INSERT INTO wave (rollout_id, idx, name, selector, size, state, frontier, quota)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    WAVES = "SELECT * FROM wave WHERE rollout_id = $1 ORDER BY idx";
    SET_WAVE = "UPDATE wave SET state = $3, frontier = $4, started_at = $5, soak_started_at = $6, ended_at = $7, quota = $8
                WHERE rollout_id = $1 AND idx = $2 AND frontier <= $4";
}

/// A stored wave.
#[derive(Debug, Clone, PartialEq)]
pub struct WaveRow {
    /// The wave as planned.
    pub wave: Wave,
    /// Its progress.
    pub progress: WaveProgress,
}

/// Encodes a frontier for its column. 2^63 does not fit, so "everybody" is stored as the largest
/// number and read back as such.
fn frontier_column(frontier: Frontier) -> i64 {
    i64::try_from(frontier.get()).unwrap_or(i64::MAX)
}

fn read_frontier(row: &Row) -> Result<Frontier, StoreError> {
    let value: i64 = row.get("frontier")?;
    Ok(match u64::try_from(value) {
        Ok(_) if value == i64::MAX => Frontier::ALL,
        Ok(value) => Frontier::from_stored(value),
        Err(_) => Frontier::NONE,
    })
}

/// The waves of a rollout.
pub async fn waves(tx: &mut Tx, id: RolloutId) -> Result<Vec<WaveRow>, StoreError> {
    tx.all("read waves", WAVES, args![id.to_string()], read_wave)
        .await
}

pub(crate) fn read_wave(row: &Row) -> Result<WaveRow, StoreError> {
    Ok(WaveRow {
        wave: Wave {
            name: row.get("name")?,
            selector: row.parse("selector")?,
            size: row.parse("size")?,
        },
        progress: WaveProgress {
            state: row.parse("state")?,
            frontier: read_frontier(row)?,
            quota: row.unsigned("quota")?,
            started_at: row.time_opt("started_at")?,
            soak_started: row.time_opt("soak_started_at")?,
            ended_at: row.time_opt("ended_at")?,
        },
    })
}

/// Writes a wave; its frontier never falls.
pub async fn set_wave(
    tx: &mut Tx,
    rollout: RolloutId,
    index: usize,
    wave: &WaveProgress,
) -> Result<(), StoreError> {
    tx.run_one(
        "change a wave",
        SET_WAVE,
        args![
            rollout.to_string(),
            i64::try_from(index).unwrap_or(i64::MAX),
            wave.state.as_str(),
            frontier_column(wave.frontier),
            wave.started_at,
            wave.soak_started,
            wave.ended_at,
            i64::try_from(wave.quota).unwrap_or(i64::MAX),
        ],
    )
    .await
}

/// Stores the waves of a new rollout.
pub(super) async fn insert(
    tx: &mut Tx,
    rollout: RolloutId,
    waves: &[WaveRow],
) -> Result<(), StoreError> {
    for (idx, row) in (0i64..).zip(waves) {
        tx.run_one(
            "store a wave",
            INSERT_WAVE,
            args![
                rollout.to_string(),
                idx,
                row.wave.name.as_str(),
                row.wave.selector.to_string(),
                row.wave.size.to_string(),
                WaveState::Pending.as_str(),
                0i64,
                i64::try_from(row.progress.quota).unwrap_or(i64::MAX),
            ],
        )
        .await?;
    }
    Ok(())
}

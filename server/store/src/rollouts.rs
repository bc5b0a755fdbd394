//! Rollouts and their waves.

use std::collections::BTreeMap;

use tidegate_domain::ring::Ring;
use tidegate_domain::rollout::RolloutState;
use tidegate_domain::rollout::policy::Policy;
use tidegate_protocol::{Explained, ProductName, RolloutId, Timestamp, Version};

use super::policy;
use super::row::{Row, args};
use super::{StoreError, Tx, json, statements, to_json};

statements! {
    INSERT = "INSERT INTO rollout (id, product, release, state, reason, generation, revision, salt, rollback_window_s, max_attempts, timeout_s,
                                   created_at, created_by, policy, approvals)
              VALUES ($1, $2, $3, $4, $5, 1, 1, $6, $7, $8, $9, $10, $11, $12, $13)";
    ONE = "SELECT * FROM rollout WHERE id = $1";
    // Live rollouts, completed ones that still update late devices, and others that still have
    // an active deployment.
    PLANNED = "SELECT * FROM rollout r
               WHERE state IN ('running', 'paused', 'halted', 'rolling_back', 'completed', 'awaiting_approval', 'scheduled')
                  OR EXISTS (SELECT 1 FROM deployment d WHERE d.rollout_id = r.id AND d.active = 1)
               ORDER BY created_at DESC, id";
    OF_RELEASE = "SELECT * FROM rollout WHERE product = $1 AND release = $2 ORDER BY created_at, id";
    MOVE = "UPDATE rollout SET state = $3, reason = $4, generation = generation + $5, revision = revision + 1,
                   started_at = COALESCE(started_at, $6), halted_at = $7, ended_at = $8, left_behind_at = $9,
                   completed_as = $10, completed_as_at = $11
            WHERE id = $1 AND revision = $2";
    TOUCH = "UPDATE rollout SET reason = $3, revision = revision + 1 WHERE id = $1 AND revision = $2";
    DUE = "SELECT * FROM rollout WHERE state = 'scheduled' AND starts_at <= $1 ORDER BY starts_at, id";
    SET_STARTS = "UPDATE rollout SET starts_at = $2, starts_by = $3 WHERE id = $1";
    REQUIRE = "UPDATE rollout SET approvals = $2 WHERE id = $1 AND approvals < $2";
    SET_POLICY = "UPDATE rollout SET policy = $3, revision = revision + 1 WHERE id = $1 AND revision = $2";
    RELEASE_WAVE = "UPDATE rollout SET released = released + 1, revision = revision + 1 WHERE id = $1 AND revision = $2";
    EXCUSE = "UPDATE rollout SET excused = $2 WHERE id = $1";
    KEEP = "UPDATE rollout SET extended_s = extended_s + $2, frozen = $3, revision = revision + 1 WHERE id = $1";
    ACCEPT = "UPDATE rollout SET accepted_no_way_back = $2 WHERE id = $1";
    FENCE = "SELECT state, generation FROM rollout WHERE id = $1";
    FENCE_LOCKED = "SELECT state, generation FROM rollout WHERE id = $1 FOR SHARE";
}

/// A stored rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// The product it belongs to.
    pub product: ProductName,
    /// The release that it installs.
    pub release: Version,
    /// Current state.
    pub state: RolloutState,
    /// Reason for that state.
    pub reason: Explained,
    /// Generation that offers name; withdrawing the permission to offer raises it.
    pub generation: i64,
    /// Raised by every change, for optimistic locking.
    pub revision: i64,
    /// Its salt.
    pub salt: Ring,
    /// Rules by which it goes on and stops.
    pub policy: Policy,
    /// Number of waves after the first that a person has released, where that is required.
    pub released: u32,
    /// Time by which an incident extended its rollback windows, in seconds.
    pub extended_s: u32,
    /// Whether an incident froze pruning: the previous version is kept until it is unfrozen.
    pub frozen: bool,
    /// Time at which it starts by itself, if scheduled.
    pub starts_at: Option<Timestamp>,
    /// Name of the token that scheduled its start, if known.
    pub starts_by: Option<String>,
    /// Most approvals that its product needed when it was created, scheduled or asked to start.
    pub approvals: u32,
    /// Numbers of failed and silent devices, by wave, that a person has accepted.
    pub excused: BTreeMap<u32, (u64, u64)>,
    /// The rollback window after a healthy start, in seconds.
    pub rollback_window_s: u32,
    /// Maximum number of attempts per device.
    pub max_attempts: u32,
    /// Number of devices without a way back that its start accepted; `None` if there were none.
    pub accepted_no_way_back: Option<u64>,
    /// Seconds that a device may be silent before its deployment times out.
    pub timeout_s: u32,
    /// Time it was created.
    pub created_at: Timestamp,
    /// The person who created it.
    pub created_by: String,
    /// Time it first started.
    pub started_at: Option<Timestamp>,
    /// Time it was last halted or began to roll back.
    pub halted_at: Option<Timestamp>,
    /// Time it ended.
    pub ended_at: Option<Timestamp>,
}

/// Stores a new rollout with its waves.
pub async fn insert(
    tx: &mut Tx,
    rollout: &Rollout,
    waves: &[super::waves::WaveRow],
) -> Result<(), StoreError> {
    tx.run_one(
        "store a rollout",
        INSERT,
        args![
            rollout.id.to_string(),
            rollout.product.as_str(),
            rollout.release.to_string(),
            rollout.state.as_str(),
            reason_column(&rollout.reason)?,
            i64::try_from(rollout.salt.get()).unwrap_or(i64::MAX),
            i64::from(rollout.rollback_window_s),
            i64::from(rollout.max_attempts),
            i64::from(rollout.timeout_s),
            rollout.created_at.as_micros(),
            rollout.created_by.as_str(),
            policy::to_column(&rollout.policy)?,
            i64::from(rollout.approvals),
        ],
    )
    .await?;
    super::aggregates::begin(tx, rollout.id).await?;
    super::waves::insert(tx, rollout.id, waves).await
}

fn reason_column(reason: &Explained) -> Result<String, StoreError> {
    to_json("reason", reason)
}

/// One rollout.
pub async fn one(tx: &mut Tx, id: RolloutId) -> Result<Option<Rollout>, StoreError> {
    tx.optional("read a rollout", ONE, args![id.to_string()], read)
        .await
}

/// Returns the rollouts that decisions are based on.
pub async fn planned(tx: &mut Tx) -> Result<Vec<Rollout>, StoreError> {
    tx.all("read rollouts", PLANNED, args![], read).await
}

/// The rollouts of a release.
pub async fn of_release(
    tx: &mut Tx,
    product: &ProductName,
    version: &Version,
) -> Result<Vec<Rollout>, StoreError> {
    let args = args![product.as_str(), version.to_string()];
    tx.all("read rollouts", OF_RELEASE, args, read).await
}

/// Moves a rollout to a state if it still has its revision; returns whether it had. A state that
/// withdraws the permission to offer raises the generation: from then on every offer being written
/// under the old one is refused.
pub async fn set_state(
    tx: &mut Tx,
    rollout: &Rollout,
    state: RolloutState,
    reason: &Explained,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let started = (state == RolloutState::Running).then_some(now);
    let halted = if matches!(state, RolloutState::Halted | RolloutState::RollingBack) {
        // People measure from the first halt.
        rollout
            .halted_at
            .filter(|_| rollout.state != RolloutState::Running)
            .or(Some(now))
    } else {
        rollout.halted_at
    };
    let ended = state.is_final().then_some(now);
    // The version before knows no partial end: to it the rollout is rolled back, or completed. The time says whose end
    // it was, should that version move the rollout afterwards.
    let (stored, left_behind) = match state {
        RolloutState::RolledBackPartly => (RolloutState::RolledBack, ended),
        RolloutState::CompletedPartly | RolloutState::NothingToDo => {
            (RolloutState::Completed, None)
        }
        other => (other, None),
    };
    let completed_as = (stored != state && left_behind.is_none()).then(|| state.to_string());
    let completed_as_at = completed_as.as_ref().and(ended);
    let rows = tx
        .run(
            "change a rollout's state",
            MOVE,
            args![
                rollout.id.to_string(),
                rollout.revision,
                stored.as_str(),
                reason_column(reason)?,
                i64::from(state.fences_offers()),
                started,
                halted,
                ended,
                left_behind,
                completed_as,
                completed_as_at,
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// Writes the reason for a rollout's state if it still has its revision; returns whether it had.
pub async fn set_reason(
    tx: &mut Tx,
    rollout: &Rollout,
    reason: &Explained,
) -> Result<bool, StoreError> {
    let args = args![
        rollout.id.to_string(),
        rollout.revision,
        reason_column(reason)?
    ];
    Ok(tx.run("write a rollout's reason", TOUCH, args).await? == 1)
}

/// Returns the scheduled rollouts whose start is due.
pub async fn due(tx: &mut Tx, now: Timestamp) -> Result<Vec<Rollout>, StoreError> {
    tx.all("read scheduled rollouts", DUE, args![now.as_micros()], read)
        .await
}

/// Sets the time at which a rollout starts by itself, and who said so.
pub async fn set_starts(
    tx: &mut Tx,
    id: RolloutId,
    at: Timestamp,
    by: &str,
) -> Result<(), StoreError> {
    tx.run_one(
        "schedule a rollout",
        SET_STARTS,
        args![id.to_string(), at.as_micros(), by],
    )
    .await
}

/// Notes that a rollout was planned while its product needed this many approvals; never lowers the
/// number.
pub async fn require(tx: &mut Tx, id: RolloutId, approvals: u32) -> Result<(), StoreError> {
    let args = args![id.to_string(), i64::from(approvals)];
    tx.run("note the approvals of a plan", REQUIRE, args)
        .await
        .map(drop)
}

/// Stores the numbers of failed and silent devices, by wave, that a person has accepted.
pub async fn excuse(
    tx: &mut Tx,
    id: RolloutId,
    excused: &BTreeMap<u32, (u64, u64)>,
) -> Result<(), StoreError> {
    let text = to_json("excused", excused)?;
    tx.run_one("excuse failures", EXCUSE, args![id.to_string(), text])
        .await
}

/// Notes the number of devices without a way back that the start of a rollout accepts.
pub async fn accept_no_way_back(
    tx: &mut Tx,
    id: RolloutId,
    devices: u64,
) -> Result<(), StoreError> {
    let devices = i64::try_from(devices).unwrap_or(i64::MAX);
    let args = args![id.to_string(), devices];
    tx.run_one("accept devices without a way back", ACCEPT, args)
        .await
}

/// Replaces a rollout's policy if it still has its revision; returns whether it had.
pub async fn set_policy(
    tx: &mut Tx,
    rollout: &Rollout,
    policy: &Policy,
) -> Result<bool, StoreError> {
    let args = args![
        rollout.id.to_string(),
        rollout.revision,
        policy::to_column(policy)?
    ];
    Ok(tx.run("edit a rollout", SET_POLICY, args).await? == 1)
}

/// Releases one more wave if the rollout still has its revision; returns whether it had.
pub async fn release_wave(tx: &mut Tx, rollout: &Rollout) -> Result<bool, StoreError> {
    let args = args![rollout.id.to_string(), rollout.revision];
    Ok(tx.run("release a wave", RELEASE_WAVE, args).await? == 1)
}

/// Extends the rollback windows of a rollout, and freezes or unfreezes pruning.
pub async fn keep_longer(
    tx: &mut Tx,
    id: RolloutId,
    seconds: u32,
    frozen: bool,
) -> Result<(), StoreError> {
    let args = args![id.to_string(), i64::from(seconds), frozen];
    tx.run_one("extend rollback windows", KEEP, args).await
}

/// Reads the state and generation of a rollout and locks them until the transaction ends: a halt
/// acknowledged earlier is seen, a later one waits for the offer.
pub async fn fence(tx: &mut Tx, id: RolloutId) -> Result<Option<(RolloutState, i64)>, StoreError> {
    let sql = tx.pick(FENCE, FENCE_LOCKED);
    tx.optional(
        "read a rollout's generation",
        sql,
        args![id.to_string()],
        |row| Ok((row.parse("state")?, row.get("generation")?)),
    )
    .await
}

pub(crate) fn read(row: &Row) -> Result<Rollout, StoreError> {
    let reason: String = row.get("reason")?;
    let policy: String = row.get("policy")?;
    let excused: String = row.get("excused")?;
    let (ended_at, left_behind_at) = (row.time_opt("ended_at")?, row.time_opt("left_behind_at")?);
    let state = match row.parse("state")? {
        RolloutState::RolledBack if left_behind_at.is_some() && left_behind_at == ended_at => {
            RolloutState::RolledBackPartly
        }
        RolloutState::Completed
            if ended_at.is_some() && row.time_opt("completed_as_at")? == ended_at =>
        {
            row.parse("completed_as")?
        }
        other => other,
    };
    Ok(Rollout {
        id: row.parse("id")?,
        product: row.parse("product")?,
        release: row.parse("release")?,
        state,
        reason: json("reason", &reason)?,
        generation: row.get("generation")?,
        revision: row.get("revision")?,
        salt: Ring::from_random(row.unsigned("salt")?),
        policy: policy::from_column(&policy)?,
        released: row.unsigned("released")?,
        extended_s: row.unsigned("extended_s")?,
        frozen: row.get::<i64>("frozen")? == 1,
        starts_at: row.time_opt("starts_at")?,
        starts_by: row.get("starts_by")?,
        approvals: row.unsigned("approvals")?,
        excused: json("excused", &excused)?,
        rollback_window_s: row.unsigned("rollback_window_s")?,
        max_attempts: row.unsigned("max_attempts")?,
        accepted_no_way_back: row
            .get::<Option<i64>>("accepted_no_way_back")?
            .map(i64::unsigned_abs),
        timeout_s: row.unsigned("timeout_s")?,
        created_at: row.time("created_at")?,
        created_by: row.get("created_by")?,
        started_at: row.time_opt("started_at")?,
        halted_at: row.time_opt("halted_at")?,
        ended_at,
    })
}

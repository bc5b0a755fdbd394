//! Changes that widen a rollout, and the approvals that they wait for.

use std::collections::BTreeSet;

use tidegate_protocol::{ChangeId, RolloutId, Timestamp};

use super::row::{Row, args};
use super::{StoreError, Tx, statements};

pub use tidegate_domain::approval::ChangeKind;

statements! {
    INSERT = "INSERT INTO change (id, rollout_id, kind, body, plan_sha256, asked_by, asked_at, state)
              VALUES ($1, $2, $3, $4, $5, $6, $7, 'waiting')";
    WAITING = "SELECT * FROM change WHERE rollout_id = $1 AND state = 'waiting' ORDER BY asked_at DESC, id";
    OF_ROLLOUT = "SELECT * FROM change WHERE rollout_id = $1 ORDER BY asked_at, id";
    END = "UPDATE change SET state = $2 WHERE id = $1 AND state = 'waiting'";
    VOID = "UPDATE change SET state = 'void' WHERE rollout_id = $1 AND state = 'waiting'";
    APPROVE = "INSERT INTO approval (change_id, plan_sha256, given_by, given_at) VALUES ($1, $2, $3, $4)
               ON CONFLICT DO NOTHING";
    APPROVALS = "SELECT given_by FROM approval WHERE change_id = $1 AND plan_sha256 = $2
                 AND given_by NOT IN (SELECT name FROM operator_token WHERE revoked = 1)";
}

/// State of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeState {
    /// Waits for approvals.
    Waiting,
    /// Took effect.
    Applied,
    /// The plan was edited in the meantime, or somebody made a newer request.
    Void,
}

tidegate_protocol::words!(ChangeState("state of a change") {
    Waiting = "waiting",
    Applied = "applied",
    Void = "void",
});

/// A stored change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its id.
    pub id: ChangeId,
    /// The rollout it belongs to.
    pub rollout: RolloutId,
    /// Kind of the change.
    pub kind: ChangeKind,
    /// The new policy of an edit, as JSON; empty for other kinds.
    pub body: String,
    /// Hash of the plan that it leads to.
    pub plan: String,
    /// The person who asked.
    pub asked_by: String,
    /// Time of the request.
    pub asked_at: Timestamp,
    /// Current state.
    pub state: ChangeState,
}

/// Stores a change that waits for approvals; voids those that waited before.
pub async fn insert(tx: &mut Tx, change: &Change) -> Result<(), StoreError> {
    void(tx, change.rollout).await?;
    let args = args![
        change.id.to_string(),
        change.rollout.to_string(),
        change.kind.as_str(),
        change.body.as_str(),
        change.plan.as_str(),
        change.asked_by.as_str(),
        change.asked_at.as_micros(),
    ];
    tx.run_one("store a change", INSERT, args).await
}

/// Returns the change of a rollout that waits for approvals, if any.
pub async fn waiting(tx: &mut Tx, rollout: RolloutId) -> Result<Option<Change>, StoreError> {
    tx.optional("read a change", WAITING, args![rollout.to_string()], read)
        .await
}

/// Every change of a rollout, oldest first.
pub async fn of_rollout(tx: &mut Tx, rollout: RolloutId) -> Result<Vec<Change>, StoreError> {
    tx.all("read changes", OF_ROLLOUT, args![rollout.to_string()], read)
        .await
}

/// Ends a change; returns whether it was waiting.
pub async fn end(tx: &mut Tx, id: ChangeId, state: ChangeState) -> Result<bool, StoreError> {
    let args = args![id.to_string(), state.as_str()];
    Ok(tx.run("end a change", END, args).await? == 1)
}

/// Voids the waiting changes of a rollout: the plan was edited.
pub async fn void(tx: &mut Tx, rollout: RolloutId) -> Result<(), StoreError> {
    tx.run("void changes", VOID, args![rollout.to_string()])
        .await
        .map(drop)
}

/// Records a person's approval of a change with this plan; idempotent.
pub async fn approve(
    tx: &mut Tx,
    id: ChangeId,
    plan: &str,
    by: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let args = args![id.to_string(), plan, by, now.as_micros()];
    tx.run("store an approval", APPROVE, args).await.map(drop)
}

/// Returns the people who approved a change with this plan.
pub async fn approvals(
    tx: &mut Tx,
    id: ChangeId,
    plan: &str,
) -> Result<BTreeSet<String>, StoreError> {
    let list = tx
        .all(
            "read approvals",
            APPROVALS,
            args![id.to_string(), plan],
            |row| row.get::<String>("given_by"),
        )
        .await?;
    Ok(list.into_iter().collect())
}

pub(crate) fn read(row: &Row) -> Result<Change, StoreError> {
    Ok(Change {
        id: row.parse("id")?,
        rollout: row.parse("rollout_id")?,
        kind: row.parse("kind")?,
        body: row.get("body")?,
        plan: row.get("plan_sha256")?,
        asked_by: row.get("asked_by")?,
        asked_at: row.time("asked_at")?,
        state: row.parse("state")?,
    })
}

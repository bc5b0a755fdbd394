//! Leases and the job queue.

use std::time::Duration;

use tidegate_protocol::{JobId, Timestamp};

use super::row::{Row, args};
use super::{StoreError, Tx, statements};

statements! {
    CLAIM_LEASE = "INSERT INTO lease (name, owner, until, epoch) VALUES ($1, $2, $3, 1)
                   ON CONFLICT (name) DO UPDATE SET owner = $2, until = $3,
                       epoch = CASE WHEN lease.owner = $2 THEN lease.epoch ELSE lease.epoch + 1 END
                   WHERE lease.owner = $2 OR lease.until < $4";
    RELEASE_LEASE = "UPDATE lease SET until = 0 WHERE name = $1 AND owner = $2";
    ENQUEUE = "INSERT INTO job (id, kind, subject, payload, state, run_at, lease_until, owner, attempts, error, created_at)
               VALUES ($1, $2, $3, $4, 'ready', $5, 0, '', 0, '', $5)
               ON CONFLICT (kind, subject) DO NOTHING";
    READY = "SELECT * FROM job WHERE (state = 'ready' AND run_at <= $1) OR (state = 'running' AND lease_until < $1)
             ORDER BY run_at, id LIMIT 1";
    READY_LOCKED = "SELECT * FROM job WHERE (state = 'ready' AND run_at <= $1) OR (state = 'running' AND lease_until < $1)
                    ORDER BY run_at, id LIMIT 1 FOR UPDATE SKIP LOCKED";
    TAKE = "UPDATE job SET state = 'running', owner = $2, lease_until = $3, attempts = attempts + 1 WHERE id = $1";
    EXTEND = "UPDATE job SET lease_until = $3 WHERE id = $1 AND owner = $2 AND state = 'running'";
    FINISH = "UPDATE job SET state = $3, error = $4, run_at = $5 WHERE id = $1 AND owner = $2 AND state = 'running'";
    OF_KIND = "SELECT * FROM job WHERE kind = $1 ORDER BY created_at, id";
}

/// A background job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Kind of work.
    pub kind: String,
    /// Object of the work; there is one job for each kind and subject.
    pub subject: String,
    /// Parameters, as JSON.
    pub payload: String,
    /// `ready`, `running`, `done` or `failed`.
    pub state: String,
    /// Number of attempts begun.
    pub attempts: u32,
    /// The last error; empty if there was none.
    pub error: String,
}

/// Claims or renews a lease; returns whether this owner holds it now.
pub async fn claim_lease(
    tx: &mut Tx,
    name: &str,
    owner: &str,
    now: Timestamp,
    term: Duration,
) -> Result<bool, StoreError> {
    let args = args![name, owner, now.plus(term).as_micros(), now.as_micros()];
    Ok(tx.run("claim a lease", CLAIM_LEASE, args).await? == 1)
}

/// Releases a lease, so that another replica need not wait for it to expire.
pub async fn release_lease(tx: &mut Tx, name: &str, owner: &str) -> Result<(), StoreError> {
    tx.run("release a lease", RELEASE_LEASE, args![name, owner])
        .await
        .map(drop)
}

/// Adds a job unless there is one for the same kind and subject; returns whether it was added.
pub async fn enqueue(
    tx: &mut Tx,
    id: JobId,
    kind: &str,
    subject: &str,
    payload: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let args = args![id.to_string(), kind, subject, payload, now.as_micros()];
    Ok(tx.run("enqueue a job", ENQUEUE, args).await? == 1)
}

/// Takes the next job that is ready, or whose worker let its lease expire.
pub async fn take(
    tx: &mut Tx,
    owner: &str,
    now: Timestamp,
    lease: Duration,
) -> Result<Option<Job>, StoreError> {
    let sql = tx.pick(READY, READY_LOCKED);
    let Some(job) = tx
        .optional("find a job", sql, args![now.as_micros()], read)
        .await?
    else {
        return Ok(None);
    };
    let args = args![job.id.to_string(), owner, now.plus(lease).as_micros()];
    tx.run_one("take a job", TAKE, args).await?;
    Ok(Some(Job {
        attempts: job.attempts + 1,
        ..job
    }))
}

/// Extends the lease on a job; returns false when another worker has taken it over.
pub async fn extend(
    tx: &mut Tx,
    id: JobId,
    owner: &str,
    until: Timestamp,
) -> Result<bool, StoreError> {
    let args = args![id.to_string(), owner, until.as_micros()];
    Ok(tx.run("keep a job", EXTEND, args).await? == 1)
}

/// Result of a job.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It failed and is retried at this time.
    Again(String, Timestamp),
    /// It failed for good.
    Failed(String),
}

/// Ends a job, if this owner still holds it.
pub async fn finish(
    tx: &mut Tx,
    id: JobId,
    owner: &str,
    outcome: &Outcome,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (state, error, run_at) = match outcome {
        Outcome::Done => ("done", "", now),
        Outcome::Again(error, at) => ("ready", error.as_str(), *at),
        Outcome::Failed(error) => ("failed", error.as_str(), now),
    };
    let args = args![id.to_string(), owner, state, error, run_at.as_micros()];
    tx.run("finish a job", FINISH, args).await.map(drop)
}

/// Every job of a kind.
pub async fn of_kind(tx: &mut Tx, kind: &str) -> Result<Vec<Job>, StoreError> {
    tx.all("read jobs", OF_KIND, args![kind], read).await
}

fn read(row: &Row) -> Result<Job, StoreError> {
    Ok(Job {
        id: row.parse("id")?,
        kind: row.get("kind")?,
        subject: row.get("subject")?,
        payload: row.get("payload")?,
        state: row.get("state")?,
        attempts: row.unsigned("attempts")?,
        error: row.get("error")?,
    })
}

//! Deployments: one device in one rollout.

use tidegate_domain::admission::DeploymentFacts;
use tidegate_domain::rollout::Outcome;
use tidegate_protocol::{
    DeploymentId, DeploymentState, DeviceId, Explained, Reason, RolloutId, Timestamp, Version,
};

use super::aggregates::TallyKey;
use super::row::{Row, args};
use super::{StoreError, Tx, json, statements, to_json};

statements! {
    INSERT = "INSERT INTO deployment (id, rollout_id, device_id, wave, state, active, from_release, leg, reason, detail, attempts, generation, bytes_downloaded, created_at, updated_at, region, platform, model, outcome)
              VALUES ($1, $2, $3, $4, 'offered', 1, $5, $6, NULL, '', 1, $7, 0, $8, $8, $9, $10, $11, 'waiting')
              ON CONFLICT DO NOTHING";
    UNDO_OFFER = "DELETE FROM deployment WHERE id = $1 AND state = 'offered'";
    RETRY = "UPDATE deployment SET state = 'offered', active = 1, leg = $3, reason = NULL, detail = '', attempts = attempts + 1, generation = $4, updated_at = $5, took = 0, outcome = 'waiting'
             WHERE id = $1 AND state = $2
               AND NOT EXISTS (SELECT 1 FROM deployment o WHERE o.device_id = deployment.device_id AND o.active = 1)";
    UPDATE = "UPDATE deployment SET state = $3, active = $4, leg = $5, reason = $6, detail = $7, bytes_downloaded = $8, updated_at = $9, took = $10, failures = $11, outcome = $12, downtime_ms = $13
              WHERE id = $1 AND state = $2";
    SET_STATEMENT = "UPDATE deployment SET statement = $3 WHERE id = $1 AND device_id = $2";
    STATEMENT = "SELECT statement FROM deployment WHERE id = $1";
    ONE = "SELECT * FROM deployment WHERE id = $1";
    OF_DEVICE = "SELECT * FROM deployment WHERE device_id = $1 ORDER BY updated_at DESC";
    PAGE = "SELECT * FROM deployment
            WHERE rollout_id = $1 AND id > $2 AND ($3 = '' OR state = $3) ORDER BY id LIMIT $4";
    ALL = "SELECT * FROM deployment";
    SWITCHED = "SELECT * FROM deployment
                WHERE rollout_id = $1 AND id > $2 AND outcome IN ('taking', 'probation', 'succeeded', 'silent', 'stuck')
                ORDER BY id LIMIT $3";
    STUCK = "SELECT * FROM deployment WHERE rollout_id = $1 AND id > $2 AND outcome = 'stuck' ORDER BY id LIMIT $3";
    // Silent before the switch: these time out.
    SILENT = "SELECT d.* FROM deployment d
              JOIN rollout r ON r.id = d.rollout_id JOIN device v ON v.id = d.device_id
              WHERE d.active = 1 AND d.state IN ('offered', 'deferred', 'downloading', 'installing')
                AND d.updated_at < $1 - r.timeout_s * 1000000 AND v.last_seen < $1 - r.timeout_s * 1000000
              ORDER BY d.updated_at LIMIT $2";
}

/// A stored deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The rollout it belongs to.
    pub rollout: RolloutId,
    /// The device.
    pub device: DeviceId,
    /// Facts that decisions are based on.
    pub facts: DeploymentFacts,
    /// Bytes that the device fetched.
    pub bytes_downloaded: u64,
    /// Downtime that it caused on the device, in milliseconds; `None` if not reported.
    pub downtime_ms: Option<u64>,
    /// Time of the first offer.
    pub created_at: Timestamp,
    /// Region of its device at the time of the offer.
    pub region: String,
    /// Platform of its device.
    pub platform: String,
    /// Its device's label `model`; empty without one.
    pub model: String,
    /// Outcome it counts as.
    pub outcome: Outcome,
}

impl Deployment {
    /// Returns whether the device is busy with it: a succeeded one may be ordered back, but is not busy.
    fn is_active(&self) -> bool {
        !self.facts.state.is_final()
    }

    /// Returns the key under which it is counted.
    pub fn key(&self) -> TallyKey {
        let failed = self.outcome == Outcome::Failed;
        let reason = self.facts.reason.as_ref().filter(|_| failed);
        TallyKey {
            rollout: self.rollout,
            wave: self.facts.wave,
            region: self.region.clone(),
            platform: self.platform.clone(),
            model: self.model.clone(),
            from: self
                .facts
                .from
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            outcome: self.outcome,
            reason: reason.map(|r| r.code.to_string()).unwrap_or_default(),
        }
    }
}

/// Stores a first offer; returns false when the device is already in a deployment.
pub async fn insert(
    tx: &mut Tx,
    deployment: &Deployment,
    generation: i64,
) -> Result<bool, StoreError> {
    let facts = &deployment.facts;
    let rows = tx
        .run(
            "store an offer",
            INSERT,
            args![
                facts.id.to_string(),
                deployment.rollout.to_string(),
                deployment.device.to_string(),
                i64::from(facts.wave),
                facts.from.as_ref().map(ToString::to_string),
                facts.leg.to_string(),
                generation,
                facts.updated_at.as_micros(),
                deployment.region.as_str(),
                deployment.platform.as_str(),
                deployment.model.as_str(),
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// Undoes a first offer in the transaction that stored it: there was no room for it.
pub async fn undo_offer(tx: &mut Tx, id: DeploymentId) -> Result<(), StoreError> {
    tx.run_one("take an offer back", UNDO_OFFER, args![id.to_string()])
        .await
}

/// Offers a deployment again if it still has the state and its device is in no other one; returns
/// whether it did.
pub async fn retry(
    tx: &mut Tx,
    id: DeploymentId,
    state: DeploymentState,
    leg: &Version,
    generation: i64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let args = args![
        id.to_string(),
        state.as_str(),
        leg.to_string(),
        generation,
        now.as_micros()
    ];
    Ok(tx.run("store a repeated offer", RETRY, args).await? == 1)
}

/// Writes a deployment if it still has the state that it was read with; returns whether it had.
pub async fn update(
    tx: &mut Tx,
    deployment: &Deployment,
    was: DeploymentState,
) -> Result<bool, StoreError> {
    let facts = &deployment.facts;
    let rows = tx
        .run(
            "change a deployment",
            UPDATE,
            args![
                facts.id.to_string(),
                was.as_str(),
                facts.state.as_str(),
                deployment.is_active(),
                facts.leg.to_string(),
                facts.reason.as_ref().map(|r| r.code.to_string()),
                facts
                    .reason
                    .as_ref()
                    .map(|r| r.detail.clone())
                    .unwrap_or_default(),
                i64::try_from(deployment.bytes_downloaded).unwrap_or(i64::MAX),
                facts.updated_at.as_micros(),
                facts.took,
                to_json("failures", &facts.failures)?,
                deployment.outcome.as_str(),
                deployment
                    .downtime_ms
                    .map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            ],
        )
        .await?;
    Ok(rows == 1)
}

/// One deployment.
pub async fn one(tx: &mut Tx, id: DeploymentId) -> Result<Option<Deployment>, StoreError> {
    tx.optional("read a deployment", ONE, args![id.to_string()], read)
        .await
}

/// The deployments of a device, newest first.
pub async fn of_device(tx: &mut Tx, device: DeviceId) -> Result<Vec<Deployment>, StoreError> {
    tx.all(
        "read deployments",
        OF_DEVICE,
        args![device.to_string()],
        read,
    )
    .await
}

/// A page of a rollout's deployments in the order of their ids; an empty state selects all.
pub async fn page(
    tx: &mut Tx,
    rollout: RolloutId,
    after: &str,
    state: &str,
    limit: i64,
) -> Result<Vec<Deployment>, StoreError> {
    tx.all(
        "read deployments",
        PAGE,
        args![rollout.to_string(), after, state, limit],
        read,
    )
    .await
}

/// A page of a rollout's deployments whose device runs the release, or may: those that an earlier order
/// has left behind included.
pub async fn switched(
    tx: &mut Tx,
    rollout: RolloutId,
    after: &str,
    limit: i64,
) -> Result<Vec<Deployment>, StoreError> {
    let args = args![rollout.to_string(), after, limit];
    tx.all("read deployments", SWITCHED, args, read).await
}

/// A page of a rollout's deployments whose device was ordered back and could not go.
pub async fn stuck(
    tx: &mut Tx,
    rollout: RolloutId,
    after: &str,
    limit: i64,
) -> Result<Vec<Deployment>, StoreError> {
    let args = args![rollout.to_string(), after, limit];
    tx.all("read deployments left behind", STUCK, args, read)
        .await
}

/// Returns every deployment: decisions need those of live rollouts, and the figures of ended
/// rollouts are counted from theirs.
pub async fn all(tx: &mut Tx) -> Result<Vec<Deployment>, StoreError> {
    tx.all("read deployments", ALL, args![], read).await
}

/// Deployments whose device has been silent for longer than the rollout allows, oldest first.
pub async fn silent(
    tx: &mut Tx,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Deployment>, StoreError> {
    tx.all(
        "read silent deployments",
        SILENT,
        args![now.as_micros(), limit],
        read,
    )
    .await
}

/// Stores a device's signed statement about a deployment of its own.
pub async fn set_statement(
    tx: &mut Tx,
    id: DeploymentId,
    device: DeviceId,
    statement: &str,
) -> Result<(), StoreError> {
    let args = args![id.to_string(), device.to_string(), statement];
    tx.run("keep a statement", SET_STATEMENT, args)
        .await
        .map(drop)
}

/// Returns the device's signed statement about a deployment; empty when it has not reported.
pub async fn statement(tx: &mut Tx, id: DeploymentId) -> Result<Option<String>, StoreError> {
    tx.optional(
        "read a statement",
        STATEMENT,
        args![id.to_string()],
        |row| row.get("statement"),
    )
    .await
}

fn read(row: &Row) -> Result<Deployment, StoreError> {
    let reason: Option<Reason> = row.parse_opt("reason")?;
    let detail: String = row.get("detail")?;
    let failures: String = row.get("failures")?;
    Ok(Deployment {
        rollout: row.parse("rollout_id")?,
        device: row.parse("device_id")?,
        facts: DeploymentFacts {
            id: row.parse("id")?,
            wave: row.unsigned("wave")?,
            state: row.parse("state")?,
            from: row.parse_opt("from_release")?,
            leg: row.parse("leg")?,
            reason: reason.map(|code| Explained::new(code, detail)),
            attempts: row.unsigned("attempts")?,
            took: row.get::<i64>("took")? == 1,
            failures: json("failures", &failures)?,
            updated_at: row.time("updated_at")?,
        },
        bytes_downloaded: row.unsigned("bytes_downloaded")?,
        downtime_ms: row
            .get::<Option<i64>>("downtime_ms")?
            .and_then(|ms| u64::try_from(ms).ok()),
        created_at: row.time("created_at")?,
        region: row.get("region")?,
        platform: row.get("platform")?,
        model: row.get("model")?,
        outcome: row.parse("outcome")?,
    })
}

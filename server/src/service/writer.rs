//! Group commit: what devices cause to be written goes through one task, which puts what has
//! gathered into one transaction. A device is answered after its commit.

use tidegate_domain::admission::{DeploymentFacts, Offer};
use tidegate_domain::deployment::{DeploymentEvent, apply};
use tidegate_protocol::{
    DeploymentId, DeploymentState, DeviceId, Explained, Report, RolloutId, Sha256, Timestamp,
    Version,
};
use tokio::sync::{mpsc, oneshot};

use super::{ServiceError, event};
use crate::app::App;
use crate::random;
use crate::store::deployments::{self, Deployment};
use crate::store::events::{self, EventKind, NewEvent};
use crate::store::{StoreError, Tx, devices, rollouts};

/// Most operations in one transaction.
const MAX_BATCH: usize = 256;

/// Something to be written for a device.
#[derive(Debug, Clone)]
pub enum Write {
    /// An offer, if the rollout still has the generation.
    Offer(Box<Offer>),
    /// Reports in order.
    Reports(Vec<Report>),
    /// What runs on the device, when it is not what we thought.
    Runs(Option<Version>, Option<Sha256>),
    /// A deployment is called off or called back.
    Order(DeploymentId, DeploymentEvent, Explained),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The offer stands.
    Offered(DeploymentId),
    /// Someone was faster, or the rollout has moved on: look again.
    Outdated,
    /// Reports up to this number are committed.
    Acknowledged(u64),
    /// It is so.
    Done,
}

struct Operation {
    device: DeviceId,
    write: Write,
    answer: oneshot::Sender<Result<Written, StoreError>>,
}

/// Hands operations to the writing task.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Operation>,
}

/// The other end, until the task is started.
pub struct Queue(mpsc::Receiver<Operation>);

/// A writer and its queue. A full queue makes devices wait, which is what should happen.
pub fn channel() -> (Writer, Queue) {
    let (queue, receiver) = mpsc::channel(4 * MAX_BATCH);
    (Writer { queue }, Queue(receiver))
}

impl Writer {
    /// Writes and waits for the commit.
    pub async fn write(&self, device: DeviceId, write: Write) -> Result<Written, ServiceError> {
        let (answer, result) = oneshot::channel();
        let gone = || {
            ServiceError::refuse(
                tidegate_protocol::ProblemCode::Unavailable,
                "the server is stopping",
            )
        };
        self.queue
            .send(Operation {
                device,
                write,
                answer,
            })
            .await
            .map_err(|_| gone())?;
        Ok(result.await.map_err(|_| gone())??)
    }
}

/// Runs until every writer is gone.
pub async fn run(app: std::sync::Arc<App>, mut queue: Queue) {
    let mut batch = Vec::new();
    while queue.0.recv_many(&mut batch, MAX_BATCH).await > 0 {
        // Rows are locked in one order on every replica, so that two batches never wait for
        // each other in a circle.
        batch.sort_by_key(|op| op.device);
        match write_all(&app, &batch).await {
            Ok(results) => {
                for (op, result) in batch.drain(..).zip(results) {
                    let _ = op.answer.send(Ok(result));
                }
            }
            // One bad operation must not spoil the others: each on its own.
            Err(_) => {
                for op in batch.drain(..) {
                    let single = [op];
                    let result = write_all(&app, &single).await;
                    let [op] = single;
                    let _ = op
                        .answer
                        .send(result.map(|mut r| r.pop().unwrap_or(Written::Done)));
                }
            }
        }
        app.wake_planner();
    }
}

async fn write_all(app: &App, batch: &[Operation]) -> Result<Vec<Written>, StoreError> {
    let now = app.now();
    let mut tx = app.db.write().await?;
    let mut results = Vec::with_capacity(batch.len());
    let mut pending = Vec::new();
    for op in batch {
        results.push(write_one(&mut tx, op.device, &op.write, now, &mut pending).await?);
    }
    // Events last: their counter is the one lock that all writers share.
    for event in &mut pending {
        name_device(app, event);
        events::append(&mut tx, &app.origin, now, event).await?;
    }
    tx.commit().await?;
    // The commit is the truth; memory follows it before anyone is answered.
    let mut changed: Vec<DeviceId> = pending.iter().filter_map(|e| e.device).collect();
    changed.dedup();
    for device in changed {
        app.fleet.reload_device(&app.db, device).await?;
    }
    Ok(results)
}

/// People read names; the id stands beside it in the event.
fn name_device(app: &App, event: &mut NewEvent) {
    if let Some(device) = event.device
        && event.actor.starts_with("device ")
        && let Some(entry) = app.fleet.device(device)
    {
        event.actor = format!("device {}", entry.lock().device.name);
    }
}

async fn write_one(
    tx: &mut Tx,
    device: DeviceId,
    write: &Write,
    now: Timestamp,
    pending: &mut Vec<NewEvent>,
) -> Result<Written, StoreError> {
    match write {
        Write::Offer(offer) => write_offer(tx, device, offer, now, pending).await,
        Write::Reports(reports) => write_reports(tx, device, reports, now, pending).await,
        Write::Runs(release, image) => {
            devices::set_runs(tx, device, release.as_ref(), *image).await?;
            let runs = release
                .as_ref()
                .map_or_else(|| "nothing".into(), ToString::to_string);
            pending.push(NewEvent {
                device: Some(device),
                ..event(
                    EventKind::Device,
                    format!("device {device}"),
                    format!("runs {runs}"),
                )
            });
            Ok(Written::Done)
        }
        Write::Order(id, order, reason) => {
            write_order(tx, device, *id, *order, reason, now, pending).await
        }
    }
}

async fn write_offer(
    tx: &mut Tx,
    device: DeviceId,
    offer: &Offer,
    now: Timestamp,
    pending: &mut Vec<NewEvent>,
) -> Result<Written, StoreError> {
    // The fence: whoever halted before us is seen here, whoever halts after us waits for us.
    let fence = rollouts::fence(tx, offer.rollout).await?;
    if fence.is_none_or(|(_, generation)| generation != offer.generation) {
        return Ok(Written::Outdated);
    }
    let Some(row) = devices::one(tx, device).await?.filter(|d| d.active) else {
        return Ok(Written::Outdated);
    };
    let previous = match offer.retry_of {
        Some(id) => deployments::one(tx, id).await?,
        None => None,
    };
    let id = if let Some(previous) = previous {
        let facts = &previous.facts;
        if !facts.state.is_final()
            || !deployments::retry(tx, facts.id, facts.state, &offer.leg, offer.generation, now)
                .await?
        {
            return Ok(Written::Outdated);
        }
        facts.id
    } else {
        let deployment = Deployment {
            rollout: offer.rollout,
            device,
            facts: DeploymentFacts {
                id: DeploymentId::from_random(random::bytes()),
                wave: offer.wave,
                state: DeploymentState::Offered,
                from: row.release.clone(),
                leg: offer.leg.clone(),
                reason: None,
                attempts: 1,
                updated_at: now,
            },
            bytes_downloaded: 0,
            created_at: now,
        };
        if !deployments::insert(tx, &deployment, offer.generation).await? {
            return Ok(Written::Outdated);
        }
        deployment.facts.id
    };
    pending.push(deployment_event(
        offer.rollout,
        device,
        "planner",
        format!("{} offered {}", row.name, offer.leg),
    ));
    Ok(Written::Offered(id))
}

fn deployment_event(
    rollout: RolloutId,
    device: DeviceId,
    actor: impl Into<String>,
    text: String,
) -> NewEvent {
    NewEvent {
        rollout: Some(rollout),
        device: Some(device),
        ..event(EventKind::Deployment, actor, text)
    }
}

async fn write_order(
    tx: &mut Tx,
    device: DeviceId,
    id: DeploymentId,
    order: DeploymentEvent,
    reason: &Explained,
    now: Timestamp,
    pending: &mut Vec<NewEvent>,
) -> Result<Written, StoreError> {
    let Some(mut deployment) = deployments::one(tx, id).await? else {
        return Ok(Written::Outdated);
    };
    let was = deployment.facts.state;
    let Ok(state) = apply(was, order) else {
        return Ok(Written::Outdated);
    };
    deployment.facts.state = state;
    deployment.facts.reason = Some(reason.clone());
    deployment.facts.updated_at = now;
    if !deployments::update(tx, &deployment, was).await? {
        return Ok(Written::Outdated);
    }
    let text = format!("{} is {state}: {reason}", deployment.facts.leg);
    pending.push(deployment_event(
        deployment.rollout,
        device,
        "planner",
        text,
    ));
    Ok(Written::Done)
}

async fn write_reports(
    tx: &mut Tx,
    device: DeviceId,
    reports: &[Report],
    now: Timestamp,
    pending: &mut Vec<NewEvent>,
) -> Result<Written, StoreError> {
    for report in reports {
        // Each number is taken once: a report whose acknowledgement was lost comes again.
        if devices::take_report(tx, device, report.seq).await? {
            write_report(tx, device, report, now, pending).await?;
        }
    }
    Ok(Written::Acknowledged(
        devices::report_seq(tx, device).await?.unwrap_or(0),
    ))
}

async fn write_report(
    tx: &mut Tx,
    device: DeviceId,
    report: &Report,
    now: Timestamp,
    pending: &mut Vec<NewEvent>,
) -> Result<(), StoreError> {
    devices::set_runs(tx, device, report.release.as_ref(), report.image).await?;
    let actor = format!("device {device}");
    let found = deployments::one(tx, report.deployment)
        .await?
        .filter(|d| d.device == device);
    let Some(mut deployment) = found else {
        // What runs has changed all the same, and other replicas must know.
        pending.push(NewEvent {
            device: Some(device),
            ..event(
                EventKind::Device,
                actor,
                "reported on a deployment that is not known",
            )
        });
        return Ok(());
    };
    let was = deployment.facts.state;
    let goal = rollouts::one(tx, deployment.rollout)
        .await?
        .map(|r| r.version);
    let leg_done = report.state == DeploymentState::Succeeded
        && report.release.is_some()
        && report.release != goal;
    let happened = if leg_done {
        DeploymentEvent::LegDone
    } else {
        DeploymentEvent::Reported(report.state)
    };
    let reason = report.reason.clone().map(Explained::bounded);
    let text = reason
        .as_ref()
        .map(|r| format!(": {r}"))
        .unwrap_or_default();
    let mut text = format!("{} {}{text}", deployment.facts.leg, report.state);
    match apply(was, happened) {
        Ok(state) => {
            deployment.facts.state = state;
            deployment.facts.reason = keep_cause(&deployment.facts, report.state, reason);
            deployment.facts.updated_at = now;
            deployment.bytes_downloaded = deployment.bytes_downloaded.max(report.bytes_downloaded);
            if !deployments::update(tx, &deployment, was).await? {
                return Err(StoreError::RowCount {
                    operation: "change a deployment",
                    count: 0,
                });
            }
            if state == DeploymentState::RolledBack {
                let why = deployment
                    .facts
                    .reason
                    .as_ref()
                    .map_or("rolled_back", |r| r.code.as_str());
                // Kept from the leg that it came back from; that is what was bad.
                devices::quarantine(tx, device, &deployment.facts.leg, why, now).await?;
            }
        }
        // Not an error: progress on the way back, or a late word on something that is over.
        Err(_) if was == DeploymentState::RollingBack => text.push_str(" (on the way back)"),
        Err(_) => text = format!("{text} (not taken: it is {was})"),
    }
    pending.push(deployment_event(deployment.rollout, device, actor, text));
    Ok(())
}

/// A device that goes back says first why, and then that it is back: the cause is kept.
fn keep_cause(
    facts: &DeploymentFacts,
    state: DeploymentState,
    reason: Option<Explained>,
) -> Option<Explained> {
    match (state, reason) {
        (_, Some(reason)) => Some(reason),
        (DeploymentState::RolledBack | DeploymentState::Failed, None) => facts.reason.clone(),
        (_, None) => None,
    }
}

//! Group commit: what devices cause to be written goes through one task, which puts what has
//! gathered into one transaction. A device is answered after its commit.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_domain::admission::{DeploymentFacts, Offer};
use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::rollout::Outcome;
use tidegate_protocol::{
    DeploymentId, DeploymentState, DeviceId, Explained, Report, RolloutId, Sha256, Timestamp,
    Version,
};
use tokio::sync::{mpsc, oneshot};

use super::{ServiceError, event};
use crate::app::App;
use crate::random;
use crate::store::aggregates::{self, Tallies};
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
    /// The rollout may expose nobody more for now.
    NoRoom,
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

/// What a batch gathers, to be written once and in one order at its end.
#[derive(Default)]
struct Gathered {
    events: Vec<NewEvent>,
    tallies: Tallies,
    /// Outcomes that became known: how many, and the seconds that they took.
    done: BTreeMap<RolloutId, (u64, u64)>,
    /// Who has switched to what, and how many bytes were fetched for it.
    switched: Vec<(DeviceId, Version, u64)>,
}

impl Gathered {
    /// Counts a deployment as what it is now.
    fn count(&mut self, was: Option<&Deployment>, is: &Deployment, now: Timestamp) {
        self.tallies.moved(was.map(Deployment::key), is.key());
        if is.outcome.is_known() && was.is_none_or(|w| !w.outcome.is_known()) {
            let took = now.since(is.created_at).as_secs();
            let done = self.done.entry(is.rollout).or_default();
            *done = (done.0 + 1, done.1 + took);
        }
    }
}

/// One transaction for a whole batch. Rows that several batches may want are locked in one order
/// everywhere: devices and deployments by device; then, rollout by rollout, its row and its
/// progress; then tallies; the event counter last.
async fn write_all(app: &App, batch: &[Operation]) -> Result<Vec<Written>, StoreError> {
    let now = app.now();
    let plan = app.fleet.plan();
    let mut tx = app.db.write().await?;
    let mut results = vec![Written::Done; batch.len()];
    let mut gathered = Gathered::default();
    let mut offers: BTreeMap<RolloutId, Vec<usize>> = BTreeMap::new();
    for (index, op) in batch.iter().enumerate() {
        match &op.write {
            Write::Offer(offer) => offers.entry(offer.rollout).or_default().push(index),
            Write::Reports(reports) => {
                let limits = |id| plan.rollouts.get(&id).map(|(r, _)| r.max_attempts);
                results[index] =
                    write_reports(&mut tx, op.device, reports, now, &limits, &mut gathered).await?;
            }
            Write::Runs(release, image) => {
                devices::set_runs(&mut tx, op.device, release.as_ref(), *image).await?;
                let runs = release
                    .as_ref()
                    .map_or_else(|| "nothing".into(), ToString::to_string);
                gathered.events.push(NewEvent {
                    device: Some(op.device),
                    ..event(
                        EventKind::Device,
                        format!("device {}", op.device),
                        format!("runs {runs}"),
                    )
                });
            }
            Write::Order(id, order, reason) => {
                results[index] =
                    write_order(&mut tx, op.device, *id, *order, reason, now, &mut gathered)
                        .await?;
            }
        }
    }
    let rollouts: BTreeSet<RolloutId> =
        offers.keys().chain(gathered.done.keys()).copied().collect();
    for rollout in rollouts {
        let waiting = offers.remove(&rollout).unwrap_or_default();
        // The fence: whoever halted before us is seen here, whoever halts after us waits for us.
        let fence = if waiting.is_empty() {
            None
        } else {
            rollouts::fence(&mut tx, rollout).await?
        };
        if let Some((count, seconds)) = gathered.done.remove(&rollout) {
            aggregates::done(&mut tx, rollout, count, seconds).await?;
        }
        for index in waiting {
            if let Write::Offer(offer) = &batch[index].write {
                let generation = fence.as_ref().map(|(_, generation)| *generation);
                results[index] = if generation == Some(offer.generation) {
                    write_offer(&mut tx, batch[index].device, offer, now, &mut gathered).await?
                } else {
                    Written::Outdated
                };
            }
        }
    }
    gathered.tallies.flush(&mut tx).await?;
    // Events last: their counter is the one lock that all writers share.
    for event in &mut gathered.events {
        name_device(app, event);
        events::append(&mut tx, &app.origin, now, event).await?;
    }
    tx.commit().await?;
    // The commit is the truth; memory follows it before anyone is answered.
    let mut changed: Vec<DeviceId> = gathered.events.iter().filter_map(|e| e.device).collect();
    changed.sort_unstable();
    changed.dedup();
    for device in changed {
        app.fleet.reload_device(&app.db, device).await?;
    }
    for (device, release, bytes) in &gathered.switched {
        app.count_transfer(*device, release, *bytes);
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

async fn write_offer(
    tx: &mut Tx,
    device: DeviceId,
    offer: &Offer,
    now: Timestamp,
    gathered: &mut Gathered,
) -> Result<Written, StoreError> {
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
        let again = Deployment {
            facts: facts.again(offer.leg.clone(), now),
            outcome: Outcome::Waiting,
            ..previous.clone()
        };
        gathered.count(Some(&previous), &again, now);
        again.facts.id
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
                took: false,
                failures: BTreeMap::new(),
                updated_at: now,
            },
            bytes_downloaded: 0,
            downtime_ms: None,
            created_at: now,
            region: row.region.to_string(),
            platform: row.platform.to_string(),
            model: row.labels.get("model").cloned().unwrap_or_default(),
            outcome: Outcome::Waiting,
        };
        if !deployments::insert(tx, &deployment, offer.generation).await? {
            return Ok(Written::Outdated);
        }
        if !aggregates::expose(tx, offer.rollout, now).await? {
            deployments::take_back(tx, deployment.facts.id).await?;
            return Ok(Written::NoRoom);
        }
        gathered.count(None, &deployment, now);
        deployment.facts.id
    };
    gathered.events.push(deployment_event(
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
    gathered: &mut Gathered,
) -> Result<Written, StoreError> {
    let Some(was) = deployments::one(tx, id).await? else {
        return Ok(Written::Outdated);
    };
    let Ok(facts) = was.facts.after(order, Some(reason.clone()), now) else {
        return Ok(Written::Outdated);
    };
    // None of these orders ends in a failure that is repeated, so the number of attempts that
    // the rollout allows does not matter.
    let is = Deployment {
        outcome: Outcome::of(&facts, 0),
        facts,
        ..was.clone()
    };
    if !deployments::update(tx, &is, was.facts.state).await? {
        return Ok(Written::Outdated);
    }
    gathered.count(Some(&was), &is, now);
    let text = format!("{} is {}: {reason}", is.facts.leg, is.facts.state);
    gathered
        .events
        .push(deployment_event(is.rollout, device, "planner", text));
    Ok(Written::Done)
}

async fn write_reports(
    tx: &mut Tx,
    device: DeviceId,
    reports: &[Report],
    now: Timestamp,
    max_attempts: &impl Fn(RolloutId) -> Option<u32>,
    gathered: &mut Gathered,
) -> Result<Written, StoreError> {
    for report in reports {
        // Each number is taken once: a report whose acknowledgement was lost comes again.
        if devices::take_report(tx, device, report.seq).await? {
            write_report(tx, device, report, now, max_attempts, gathered).await?;
            let statement = serde_json::to_string(report).unwrap_or_default();
            deployments::set_statement(tx, report.deployment, device, &statement).await?;
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
    max_attempts: &impl Fn(RolloutId) -> Option<u32>,
    gathered: &mut Gathered,
) -> Result<(), StoreError> {
    devices::set_runs(tx, device, report.release.as_ref(), report.image).await?;
    let actor = format!("device {device}");
    let found = deployments::one(tx, report.deployment)
        .await?
        .filter(|d| d.device == device);
    let Some(was) = found else {
        // What runs has changed all the same, and other replicas must know.
        gathered.events.push(NewEvent {
            device: Some(device),
            ..event(
                EventKind::Device,
                actor,
                "reported on a deployment that is not known",
            )
        });
        return Ok(());
    };
    let rollout = rollouts::one(tx, was.rollout).await?;
    let max_attempts = max_attempts(was.rollout)
        .or(rollout.as_ref().map(|r| r.max_attempts))
        .unwrap_or(1);
    let leg_done = report.state == DeploymentState::Succeeded
        && report.release.is_some()
        && report.release != rollout.map(|r| r.version);
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
    let mut text = format!("{} {}{text}", was.facts.leg, report.state);
    match was.facts.after(happened, reason, now) {
        Ok(facts) => {
            let is = Deployment {
                outcome: Outcome::of(&facts, max_attempts),
                bytes_downloaded: was.bytes_downloaded.max(report.bytes_downloaded),
                downtime_ms: report.downtime_ms.or(was.downtime_ms),
                facts,
                ..was.clone()
            };
            if !deployments::update(tx, &is, was.facts.state).await? {
                return Err(StoreError::RowCount {
                    operation: "change a deployment",
                    count: 0,
                });
            }
            gathered.count(Some(&was), &is, now);
            if is.facts.state.has_switched() && !was.facts.state.has_switched() {
                let leg = is.facts.leg.clone();
                gathered
                    .switched
                    .push((device, leg, report.bytes_downloaded));
            }
            if is.facts.state == DeploymentState::RolledBack {
                let why = is
                    .facts
                    .reason
                    .as_ref()
                    .map_or("rolled_back", |r| r.code.as_str());
                // Kept from the leg that it came back from; that is what was bad.
                devices::quarantine(tx, device, &is.facts.leg, why, now).await?;
            }
        }
        // Not an error: progress on the way back, or a late word on something that is over.
        Err(_) if was.facts.state == DeploymentState::RollingBack => {
            text.push_str(" (on the way back)");
        }
        Err(_) => text = format!("{text} (not taken: it is {})", was.facts.state),
    }
    gathered
        .events
        .push(deployment_event(was.rollout, device, actor, text));
    Ok(())
}

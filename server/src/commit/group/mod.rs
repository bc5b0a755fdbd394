//! Group commit: writes caused by devices go through one task, which puts all pending ones into one
//! transaction. A device is answered after its commit.

mod offer;
mod order;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_domain::admission::Offer;
use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::event::{Actor, Event};
use tidegate_protocol::{
    DeploymentId, DeviceId, Explained, Report, RolloutId, Sha256, Timestamp, Version, error_chain,
};
use tokio::sync::{mpsc, oneshot};

use crate::app::App;
use crate::service::ServiceError;
use crate::service::plan::PlanSnapshot;
use crate::store::aggregates::{self, Tallies};
use crate::store::deployments::Deployment;
use crate::store::{StoreError, Tx, devices, rollouts};

/// Maximum number of operations in one transaction.
const MAX_BATCH: usize = 256;

/// Write requested for a device.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// Offer; refused if the rollout's generation has changed.
    Offer(Box<Offer>),
    /// Reports, in order.
    Reports(Vec<Report>),
    /// Release and image running on the device, if they differ from the recorded ones.
    Runs(Option<Version>, Option<Sha256>),
    /// Order to a deployment, such as cancelling it or sending it back.
    Order(DeploymentId, DeploymentEvent, Explained),
}

/// Result of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// The offer is committed.
    Offered(DeploymentId),
    /// The rollout may expose no more devices for now.
    NoPermit,
    /// Another write came first, or the rollout has changed: decide again.
    Outdated,
    /// Reports up to this number are committed.
    Acknowledged(u64),
    /// Committed, with nothing to return.
    Done,
}

struct Operation {
    device: DeviceId,
    actor: Actor,
    write: Write,
    answer: oneshot::Sender<Result<Written, StoreError>>,
}

/// Sends operations to the writing task.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Operation>,
}

/// Receiving end of the queue, until the task is started.
pub(crate) struct Queue(mpsc::Receiver<Operation>);

/// Creates a writer and its queue. A full queue makes devices wait, which is intended.
pub(crate) fn channel() -> (Writer, Queue) {
    let (queue, receiver) = mpsc::channel(4 * MAX_BATCH);
    (Writer { queue }, Queue(receiver))
}

impl Writer {
    /// Queues a write and waits for its commit.
    pub(crate) async fn write(
        &self,
        actor: Actor,
        device: DeviceId,
        write: Write,
    ) -> Result<Written, ServiceError> {
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
                actor,
                write,
                answer,
            })
            .await
            .map_err(|_| gone())?;
        Ok(result.await.map_err(|_| gone())??)
    }
}

/// Runs until all writers are dropped.
pub(crate) async fn run(app: std::sync::Arc<App>, mut queue: Queue) {
    let mut batch = Vec::new();
    while queue.0.recv_many(&mut batch, MAX_BATCH).await > 0 {
        // Rows are locked in the same order on every replica, so that two batches never deadlock.
        batch.sort_by_key(|op| op.device);
        match write_all(&app, &batch).await {
            Ok(results) => {
                for (op, result) in batch.drain(..).zip(results) {
                    let _ = op.answer.send(Ok(result));
                }
            }
            // One bad operation must not fail the others: try each on its own.
            Err(error) => {
                tracing::warn!(
                    error = error_chain(&error),
                    operations = batch.len(),
                    "a batch could not be written; retrying each operation on its own"
                );
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
    }
}

/// Changes accumulated by a batch, written once and in a fixed order at its end.
#[derive(Default)]
struct Gathered {
    events: Vec<(Actor, Event)>,
    tallies: Tallies,
    /// Number of outcomes that became known, and the sum of the seconds they took.
    done: BTreeMap<RolloutId, (u64, u64)>,
    /// Devices that switched, with the release and the bytes fetched for it.
    switched: Vec<(DeviceId, Version, u64)>,
}

/// Transaction of a batch, and the data shared by its operations.
struct Batch<'a> {
    tx: Tx,
    now: Timestamp,
    plan: &'a PlanSnapshot,
    gathered: Gathered,
}

impl Gathered {
    /// Counts a deployment under its new outcome instead of its old one.
    fn count(&mut self, was: Option<&Deployment>, is: &Deployment, now: Timestamp) {
        self.tallies.moved(was.map(Deployment::key), is.key());
        if is.outcome.is_known() && was.is_none_or(|w| !w.outcome.is_known()) {
            let took = now.since(is.created_at).as_secs();
            let done = self.done.entry(is.rollout).or_default();
            *done = (done.0 + 1, done.1 + took);
        }
    }
}

/// Writes a whole batch in one transaction. Rows that several batches may want are locked in the
/// same order everywhere: devices and deployments by device; then, rollout by rollout, its row and
/// its progress; then the tallies; the event counter last.
async fn write_all(app: &App, operations: &[Operation]) -> Result<Vec<Written>, StoreError> {
    let plan = app.fleet.plan();
    let mut batch = Batch {
        tx: app.db.begin_write().await?,
        now: app.now(),
        plan: &plan,
        gathered: Gathered::default(),
    };
    let mut results = vec![Written::Done; operations.len()];
    let mut offers: BTreeMap<RolloutId, Vec<usize>> = BTreeMap::new();
    for (index, op) in operations.iter().enumerate() {
        results[index] = match &op.write {
            Write::Offer(offer) => {
                offers.entry(offer.rollout).or_default().push(index);
                continue;
            }
            Write::Reports(reports) => batch.reports(&op.actor, op.device, reports).await?,
            Write::Runs(release, image) => {
                devices::set_runs(&mut batch.tx, op.device, release.as_ref(), *image).await?;
                let runs = Event::DeviceRuns {
                    device: op.device,
                    release: release.clone(),
                    image: *image,
                };
                batch.gathered.events.push((op.actor.clone(), runs));
                Written::Done
            }
            Write::Order(id, order, reason) => {
                batch
                    .order(&op.actor, op.device, *id, *order, reason)
                    .await?
            }
        };
    }
    let known = batch.gathered.done.keys();
    let rollouts: BTreeSet<RolloutId> = offers.keys().chain(known).copied().collect();
    for rollout in rollouts {
        let waiting = offers.remove(&rollout).unwrap_or_default();
        // The fence: a halt committed before us is seen here; a later one waits for us.
        let fence = if waiting.is_empty() {
            None
        } else {
            rollouts::fence(&mut batch.tx, rollout).await?
        };
        if let Some((count, seconds)) = batch.gathered.done.remove(&rollout) {
            aggregates::done(&mut batch.tx, rollout, count, seconds).await?;
        }
        for index in waiting {
            let op = &operations[index];
            if let Write::Offer(offer) = &op.write {
                let generation = fence.as_ref().map(|(_, generation)| *generation);
                results[index] = if generation == Some(offer.generation) {
                    batch.offer(&op.actor, op.device, offer).await?
                } else {
                    Written::Outdated
                };
            }
        }
    }
    let Batch {
        mut tx, gathered, ..
    } = batch;
    gathered.tallies.flush(&mut tx).await?;
    let committed = app.seal(tx, &gathered.events).await?;
    // The commit is authoritative, and memory is updated before anyone is answered. A failure from
    // here on fails no operation: they are committed.
    app.take_over(committed).await;
    for (device, release, bytes) in &gathered.switched {
        app.count_transfer(*device, release, *bytes);
    }
    Ok(results)
}

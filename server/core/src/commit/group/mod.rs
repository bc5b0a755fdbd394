//! Group commit: writes caused by devices go through one task, which puts all pending ones into one
//! transaction. A device is answered after its commit.

mod offer;
mod order;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_domain::event::{Actor, Event};
use tidegate_protocol::{DeviceId, RolloutId, Timestamp, Version, error_chain};
use tidegate_store::aggregates::{self, Tallies};
use tidegate_store::deployments::Deployment;
use tidegate_store::{StoreError, Tx, devices, rollouts};

use crate::app::App;
use crate::memory::plan::PlanSnapshot;
use crate::queue::{MAX_BATCH, Operation, Queue, Write, Written};

/// Runs until all writers are dropped.
pub async fn run(app: std::sync::Arc<App>, mut queue: Queue) {
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
    // Devices hear of a halt by an order that is written here.
    app.db.make_room();
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
                // A check-in is not signed: whoever has the ticket can say it.
                let release_said = release.as_ref();
                devices::set_runs(&mut batch.tx, op.device, release_said, *image, true).await?;
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
        count_transfer(app, *device, release, *bytes);
    }
    Ok(results)
}

/// Counts the bytes a device downloaded for a release, and those of the image it did not need
/// to download.
fn count_transfer(app: &App, device: DeviceId, release: &Version, bytes: u64) {
    let plan = app.fleet.plan();
    let image = app.fleet.device(device).and_then(|entry| {
        let state = entry.lock();
        let device = &state.device;
        plan.artifact(&device.product, release, &device.platform)
            .map(|artifact| artifact.image.length)
    });
    app.metrics.fetched_bytes.inc_by(bytes);
    // A download from before enrollment, or done by hand, saved nothing over the network.
    if let (Some(image), 1..) = (image, bytes) {
        app.metrics.saved_bytes.inc_by(image.saturating_sub(bytes));
    }
}

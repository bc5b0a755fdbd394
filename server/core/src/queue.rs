//! Queue of the writes that devices cause. One task takes them and commits many at once
//! (`commit/group`).

use tidegate_domain::admission::Offer;
use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::event::Actor;
use tidegate_protocol::{DeploymentId, DeviceId, Explained, ProblemCode, Report, Sha256, Version};
use tidegate_store::StoreError;
use tokio::sync::{mpsc, oneshot};

use crate::CoreError;

/// Maximum number of operations in one transaction.
pub(crate) const MAX_BATCH: usize = 256;

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
    /// The rollout may expose no more devices until its next grant.
    NoPermit,
    /// Another write came first, or the rollout has changed: decide again.
    Outdated,
    /// Reports up to this number are committed.
    Acknowledged(u64),
    /// Committed, with nothing to return.
    Done,
}

/// Queued write.
pub(crate) struct Operation {
    pub(crate) device: DeviceId,
    pub(crate) actor: Actor,
    pub(crate) write: Write,
    pub(crate) answer: oneshot::Sender<Result<Written, StoreError>>,
}

/// Sends operations to the writing task.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Operation>,
}

/// Receiving end of the queue, until the task is started.
pub struct Queue(pub(crate) mpsc::Receiver<Operation>);

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
    ) -> Result<Written, CoreError> {
        let (answer, result) = oneshot::channel();
        let gone = || CoreError::refuse(ProblemCode::Unavailable, "the server is stopping");
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

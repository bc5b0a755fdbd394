//! Lanes of strangers: all connections of one address that have shown neither ticket nor token share
//! one task, so that thousands of them take as much of the processors as one request of a person.
//!
//! A task for each would stand in the scheduler's queue before what a person asks for, at each of the
//! steps that it takes: measured with `.ci/deep floods`, a halt took seconds.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tidegate_web::connections::{Connection, Network};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::TaskTracker;

/// Connections that a lane looks at before all others have their turn again.
const AT_A_TIME: usize = 8;

/// Work on a connection, to its end.
pub(super) type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that has shown nothing yet.
pub(super) struct Stranger {
    pub(super) connection: Arc<Connection>,
    pub(super) serving: Serving,
}

/// A stranger in its lane. It ends with its connection, or hands over the work on it as soon as its
/// client has shown who it is.
struct InLane {
    /// `None` once it has ended.
    stranger: Option<Stranger>,
    /// Number of strangers that the lane looks at before the others' turn.
    left: Arc<AtomicUsize>,
}

impl Future for InLane {
    type Output = Option<Serving>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(stranger) = &mut this.stranger else {
            return Poll::Ready(None);
        };
        let left = this.left.load(Ordering::Relaxed);
        let Some(left) = left.checked_sub(1) else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        this.left.store(left, Ordering::Relaxed);
        if stranger.serving.as_mut().poll(cx).is_ready() {
            this.stranger = None;
            return Poll::Ready(None);
        }
        if stranger.connection.is_proven() {
            return Poll::Ready(this.stranger.take().map(|s| s.serving));
        }
        Poll::Pending
    }
}

/// Lanes by address. A lane ends when it is empty.
#[derive(Default)]
pub(super) struct Lanes {
    open: Mutex<HashMap<Network, UnboundedSender<Stranger>>>,
}

impl Lanes {
    /// Puts a stranger into the lane of its address. `tasks` runs the lane, and those who come out of it.
    pub(super) fn put(self: &Arc<Self>, network: Network, stranger: Stranger, tasks: &TaskTracker) {
        let mut open = self.open();
        let unsent = match open.get(&network) {
            None => stranger,
            Some(lane) => match lane.send(stranger) {
                Ok(()) => return,
                // Its task has gone, which it does without a word only in a panic.
                Err(unsent) => unsent.0,
            },
        };
        let (sender, receiver) = unbounded_channel();
        let _ = sender.send(unsent);
        open.insert(network, sender);
        drop(open);
        tasks.spawn(lane(self.clone(), network, receiver, tasks.clone()));
    }

    /// Closes the lane of an address, unless somebody is waiting to get in.
    fn close(
        &self,
        network: Network,
        waiting: &mut UnboundedReceiver<Stranger>,
    ) -> Option<Stranger> {
        let mut open = self.open();
        let next = waiting.try_recv().ok();
        if next.is_none() {
            open.remove(&network);
        }
        next
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Network, UnboundedSender<Stranger>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works for the strangers of one address until there are none, a few at a time, however many they are.
async fn lane(
    lanes: Arc<Lanes>,
    network: Network,
    mut waiting: UnboundedReceiver<Stranger>,
    tasks: TaskTracker,
) {
    let left = Arc::new(AtomicUsize::new(0));
    let mut inside = FuturesUnordered::new();
    let enter = |stranger| InLane {
        stranger: Some(stranger),
        left: left.clone(),
    };
    std::future::poll_fn(|cx| {
        left.store(AT_A_TIME, Ordering::Relaxed);
        loop {
            while let Poll::Ready(Some(next)) = waiting.poll_recv(cx) {
                inside.push(enter(next));
            }
            match inside.poll_next_unpin(cx) {
                Poll::Ready(Some(None)) => {}
                Poll::Ready(Some(Some(proven))) => drop(tasks.spawn(proven)),
                Poll::Ready(None) => match lanes.close(network, &mut waiting) {
                    Some(next) => inside.push(enter(next)),
                    None => return Poll::Ready(()),
                },
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use tidegate_web::connections::{Admitted, Connections, Limits, Who};
    use tokio::sync::oneshot;

    use super::*;

    /// A stranger whose work ends when its sender is used, and the connection's place.
    fn stranger(connections: &Arc<Connections>) -> (Stranger, Admitted, oneshot::Sender<()>) {
        let admitted = connections.admit("192.0.2.1".parse().unwrap()).unwrap();
        let connection = admitted.connection().clone();
        let (end, ended) = oneshot::channel();
        let serving: Serving = Box::pin(async move {
            let _ = ended.await;
        });
        let stranger = Stranger {
            connection,
            serving,
        };
        (stranger, admitted, end)
    }

    #[tokio::test]
    async fn strangers_of_an_address_share_a_task_and_who_shows_a_ticket_gets_one_of_its_own() {
        let connections = Connections::new(Limits::within(1_024, Vec::new()));
        let (lanes, tasks) = (Arc::new(Lanes::default()), TaskTracker::new());
        let mut held = Vec::new();
        for _ in 0..20 {
            let (stranger, admitted, end) = stranger(&connections);
            let network = stranger.connection.network().unwrap();
            lanes.put(network, stranger, &tasks);
            held.push((admitted, end));
        }
        assert_eq!(tasks.len(), 1);
        let (admitted, end) = held.pop().unwrap();
        admitted.connection().prove(Who::Device).unwrap();
        // Its work is looked at again when something happens to it: here another's end.
        let (_, other) = held.pop().unwrap();
        other.send(()).unwrap();
        end.send(()).unwrap();
        tasks.close();
        for (_, end) in held {
            end.send(()).unwrap();
        }
        tasks.wait().await;
        assert!(lanes.open().is_empty(), "an empty lane is forgotten");
    }
}

//! Requests of clients that have shown neither a valid ticket nor a valid token: few of them are
//! worked on at a time, so that a flood of them queues behind itself and a halt does not queue behind
//! it. What they ask for makes no difference: an invented token costs the server as much at a route
//! for people as at any other.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tidegate_core::{App, CoreError};
use tidegate_protocol::ProblemCode;
use tidegate_web::connections::{Connection, Network, Phase};
use tidegate_web::{ApiError, recognise};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Number of requests of strangers that are worked on at a time.
#[derive(Debug, Clone, Copy)]
struct Limit {
    at_once: usize,
    per_address: usize,
}

const OTHERS: Limit = Limit {
    at_once: 64,
    per_address: 16,
};
/// Readiness reads from the database, whose connections are few and people's as well.
const WATCHING: Limit = Limit {
    at_once: 4,
    per_address: 2,
};
/// Longest wait for a turn.
const WAIT: Duration = Duration::from_secs(5);

/// Turns of strangers: those who ask how the server is have some of their own, so that what watches
/// it does not take a flood for its end.
pub(crate) struct Strangers {
    app: Arc<App>,
    watching: Turns,
    others: Turns,
}

impl Strangers {
    pub(crate) fn of(app: Arc<App>) -> Self {
        Self {
            app,
            watching: Turns::of(WATCHING),
            others: Turns::of(OTHERS),
        }
    }
}

#[derive(Debug)]
struct Turns {
    limit: Limit,
    all: Arc<Semaphore>,
    by_address: Mutex<HashMap<Network, Arc<Semaphore>>>,
}

impl Turns {
    fn of(limit: Limit) -> Self {
        Self {
            limit,
            all: Arc::new(Semaphore::new(limit.at_once)),
            by_address: Mutex::default(),
        }
    }
}

/// Turn of one request; dropping it lets the next one in.
struct Turn<'a> {
    turns: &'a Turns,
    network: Network,
    held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Turns {
    async fn turn(&self, address: IpAddr) -> Option<Turn<'_>> {
        let network = Network::of_one_client(address);
        let mine = {
            let mut by_address = self
                .by_address
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            by_address
                .entry(network)
                .or_insert_with(|| Arc::new(Semaphore::new(self.limit.per_address)))
                .clone()
        };
        let mut turn = Turn {
            turns: self,
            network,
            held: None,
        };
        // The address first: those that wait for their own turn are in nobody's way.
        let both = async {
            let mine = mine.acquire_owned().await.ok()?;
            Some((mine, self.all.clone().acquire_owned().await.ok()?))
        };
        turn.held = tokio::time::timeout(WAIT, both).await.ok()?;
        turn.held.is_some().then_some(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut by_address = self
            .turns
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Nobody else of this address is here or waits.
        if by_address
            .get(&self.network)
            .is_some_and(|mine| Arc::strong_count(mine) == 1)
        {
            by_address.remove(&self.network);
        }
    }
}

/// Returns whether a path is called by people or by what watches the server, not by devices.
pub(crate) fn is_for_people(path: &str) -> bool {
    path.starts_with("/api/v1/") || watches(path)
}

/// Returns whether a path is called by what watches the server.
fn watches(path: &str) -> bool {
    path == "/healthz" || path == "/readyz"
}

/// Lets a stranger's request wait for its turn. A valid ticket or token needs none, and is known from
/// memory: check-ins are held, and people are let through.
pub(crate) async fn wait_for_a_turn(
    State(strangers): State<Arc<Strangers>>,
    request: Request,
    next: Next,
) -> Response {
    let connection = request.extensions().get::<Arc<Connection>>();
    let unproven = connection.filter(|connection| !connection.is_proven());
    let Some(connection) = unproven.cloned() else {
        return next.run(request).await;
    };
    if let Err(refused) = recognise(&connection, request.headers(), &strangers.app) {
        return refused.into_response();
    }
    if connection.is_proven() {
        return next.run(request).await;
    }
    let turns = if watches(request.uri().path()) {
        &strangers.watching
    } else {
        &strangers.others
    };
    connection.begin(Phase::Turn);
    let turn = turns.turn(connection.client(request.headers())).await;
    connection.begin(Phase::Request);
    let Some(turn) = turn else {
        let text = "too many requests without a session or token are in progress; try again later";
        return ApiError(CoreError::refuse(ProblemCode::Overloaded, text)).into_response();
    };
    let response = next.run(request).await;
    drop(turn);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn strangers_of_one_address_wait_for_each_other_and_not_for_others() {
        let turns = Turns::of(OTHERS);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        let mut held = Vec::new();
        for _ in 0..OTHERS.per_address {
            held.push(turns.turn(one).await.unwrap());
        }
        assert!(turns.turn(other).await.is_some());
        let mut waiting = std::pin::pin!(turns.turn(one));
        assert!(futures_poll(waiting.as_mut()).await.is_none());
        held.pop();
        assert!(waiting.await.is_some());
        drop(held);
        assert!(
            turns.by_address.lock().unwrap().is_empty(),
            "addresses are forgotten"
        );
    }

    /// Polls a future once.
    async fn futures_poll<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
                std::task::Poll::Ready(value) => Some(value),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}

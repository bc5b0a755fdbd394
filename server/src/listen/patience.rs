//! Deadlines of a connection.

use std::time::Duration;

use tidegate_web::connections::{Connection, Phase};

/// Time that a client may take for each thing that it does.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// Until the first request, and between two, of a client that has shown nothing.
    pub idle: Duration,
    /// Between two requests of a device with a ticket or a person with a token: longer than the
    /// usual interval between check-ins, so that the connection is kept.
    pub idle_proven: Duration,
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between two parts of a request's body, and for all of it beyond its length at
    /// `MINIMUM_RATE`.
    pub body: Duration,
    /// Window in which a client that is not keeping up must take `MINIMUM_READ` of its answer.
    pub reading: Duration,
}

/// Slowest rate of a request's body, in bytes per second: a poor GPRS link.
pub(crate) const MINIMUM_RATE: u64 = 1_024;
/// Fewest bytes that a client takes in a window.
const MINIMUM_READ: u64 = 4_096;

impl Default for Patience {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(15),
            idle_proven: Duration::from_mins(3),
            head: Duration::from_secs(10),
            body: Duration::from_secs(20),
            reading: Duration::from_mins(1),
        }
    }
}

impl Patience {
    /// Waits until the client has been too slow, and returns at what.
    pub(super) async fn lost(&self, connection: &Connection) -> &'static str {
        let mut written = connection.written().0;
        loop {
            let spent = Duration::from_millis(connection.in_phase_ms());
            let (_, stuck) = connection.written();
            let wait = match connection.phase() {
                // The end of the last answer is still on its way.
                Phase::Idle if stuck => self.reading,
                Phase::Idle => {
                    let most = if connection.is_proven() {
                        self.idle_proven
                    } else {
                        self.idle
                    };
                    let Some(left) = left(most, spent) else {
                        return "idle";
                    };
                    // A connection that proves itself gets more; one that begins a request less.
                    left.min(self.head)
                }
                Phase::Head => match left(self.head, spent) {
                    Some(left) => left,
                    None => return "request head",
                },
                Phase::Turn | Phase::Request | Phase::Answer => self.reading,
            };
            tokio::time::sleep(wait).await;
            let (now, stuck) = connection.written();
            if stuck && wait >= self.reading && now - written < MINIMUM_READ {
                return "reading";
            }
            written = now;
        }
    }
}

fn left(most: Duration, spent: Duration) -> Option<Duration> {
    most.checked_sub(spent).filter(|left| !left.is_zero())
}

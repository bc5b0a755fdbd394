//! One connection: what it has shown, and for whom it waits.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use axum::http::HeaderMap;
use tidegate_core::CoreError;
use tidegate_protocol::ProblemCode;
use tokio_util::sync::CancellationToken;

use super::{Connections, Network};

/// Refusals after which a connection that has shown nothing is closed. A device needs one, for the
/// nonce; a client that guesses pays a connection for a few guesses.
const REFUSALS: u8 = 4;

/// For whom a connection waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// For its client, who has a request to send.
    ForRequest,
    /// For its client, who has an answer to read.
    ForReader,
    /// For its turn among others that have shown nothing: nothing of its request is begun.
    ForTurn,
    /// For the server.
    ForServer,
}

/// Kind of client on the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A device with a valid ticket or signature.
    Device,
    /// A person or program with a valid token.
    Person,
}

/// Phase of a connection, as `Connection` keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Before the first request, or between two.
    Idle = 0,
    /// The first bytes of a request are there.
    Head = 1,
    /// A request is read whole, or its body is being read.
    Request = 2,
    /// The answer is being sent.
    Answer = 3,
    /// A request waits for its turn.
    Turn = 4,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    peer: IpAddr,
    network: Option<Network>,
    /// Whether it took a place that is kept for people.
    narrow: bool,
    proven: AtomicBool,
    refusals: AtomicU8,
    phase: AtomicU8,
    /// Moment at which it was accepted.
    accepted: Instant,
    /// Start of the phase, in milliseconds from then.
    since: AtomicU64,
    /// Bytes written to the socket.
    written: AtomicU64,
    /// Whether the socket takes no bytes at present.
    stuck: AtomicBool,
    /// Whether the server has looked for bytes, and there were none.
    empty: AtomicBool,
    closed: CancellationToken,
    registry: Weak<Connections>,
}

impl Connection {
    pub(super) fn new(
        id: u64,
        peer: IpAddr,
        network: Option<Network>,
        narrow: bool,
        registry: &Arc<Connections>,
    ) -> Self {
        Self {
            id,
            peer: peer.to_canonical(),
            network,
            narrow,
            proven: AtomicBool::new(false),
            refusals: AtomicU8::new(0),
            phase: AtomicU8::new(Phase::Idle as u8),
            accepted: Instant::now(),
            since: AtomicU64::new(0),
            written: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
            empty: AtomicBool::new(false),
            closed: CancellationToken::new(),
            registry: Arc::downgrade(registry),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Network that it is counted under; `None` for a proxy.
    pub fn network(&self) -> Option<Network> {
        self.network
    }

    pub(super) fn registry(&self) -> Option<Arc<Connections>> {
        self.registry.upgrade()
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Token that is cancelled when the connection has to give way.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Address on the other end: the client's, or a proxy's.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Address of the client of a request. What a proxy forwards counts only if the proxy is named
    /// in the settings: anybody can send the header.
    pub fn client(&self, headers: &HeaderMap) -> IpAddr {
        let Some(registry) = self.registry() else {
            return self.peer;
        };
        let mut client = self.peer;
        let lines = headers.get_all("x-forwarded-for");
        let named: Vec<&str> = lines.iter().filter_map(|v| v.to_str().ok()).collect();
        // The nearest proxy appends to the end.
        let mut hops = named.iter().flat_map(|line| line.split(',')).rev();
        while registry.limits().is_proxy(client) {
            match hops.next().map(|hop| hop.trim().parse::<IpAddr>()) {
                Some(Ok(hop)) => client = hop.to_canonical(),
                _ => break,
            }
        }
        client
    }

    /// Notes that the client has shown a valid ticket, signature or token. A device is refused
    /// where it sits in a place that is kept for people.
    pub fn prove(&self, who: Who) -> Result<(), CoreError> {
        if self.narrow && who == Who::Device {
            let text = "all places for devices are taken; come back later";
            return Err(CoreError::refuse(ProblemCode::Overloaded, text));
        }
        if !self.proven.swap(true, Ordering::Relaxed)
            && let Some(registry) = self.registry()
        {
            registry.set_proven(self);
        }
        Ok(())
    }

    /// Returns whether the client has shown a valid ticket, signature or token.
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Counts a refusal; returns whether the connection has had enough of them to be closed.
    pub fn note_refusal(&self) -> bool {
        let before = self.refusals.fetch_add(1, Ordering::Relaxed);
        !self.is_proven() && (self.narrow || before.saturating_add(1) >= REFUSALS)
    }

    /// Begins a phase.
    pub fn begin(&self, phase: Phase) {
        self.since.store(self.elapsed_ms(), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Phase it is in.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Request,
            3 => Phase::Answer,
            _ => Phase::Turn,
        }
    }

    /// Time that it has been in its phase, in milliseconds.
    pub fn in_phase_ms(&self) -> u64 {
        self.elapsed_ms()
            .saturating_sub(self.since.load(Ordering::Relaxed))
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes bytes that the socket took, or that it takes none at present.
    pub fn note_written(&self, bytes: Option<usize>) {
        if let Some(bytes) = bytes {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            self.written.fetch_add(bytes, Ordering::Relaxed);
        }
        self.stuck.store(bytes.is_none(), Ordering::Relaxed);
    }

    /// Notes that the socket was read: whether it had no bytes.
    pub fn note_read(&self, empty: bool) {
        self.empty.store(empty, Ordering::Relaxed);
    }

    /// Bytes written so far, and whether the socket takes no more at present.
    pub fn written(&self) -> (u64, bool) {
        (
            self.written.load(Ordering::Relaxed),
            self.stuck.load(Ordering::Relaxed),
        )
    }

    /// For whom it waits. A client whose bytes may be there, but were not looked for yet, waits for the
    /// server: in a burst of connections that can take a while.
    pub fn waits(&self) -> Waits {
        let read = || {
            if self.empty.load(Ordering::Relaxed) {
                Waits::ForRequest
            } else {
                Waits::ForServer
            }
        };
        match self.phase() {
            Phase::Head => read(),
            _ if self.written().1 => Waits::ForReader,
            Phase::Idle => read(),
            Phase::Turn => Waits::ForTurn,
            Phase::Request | Phase::Answer => Waits::ForServer,
        }
    }
}

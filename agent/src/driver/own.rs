//! The agent as one more thing that is updated: when it gives way, and what proves a new one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate_protocol::{Explained, Reason};

use super::{Driver, DriverError};
use crate::fsm::Phase;
use crate::install::BackendSettings;
use crate::log;

/// How long a new agent has to reach its server. Shorter than the guard's patience.
const PROOF: Duration = Duration::from_mins(5);
/// How long a switch of agents waits for the other driver's work.
const GIVE_WAY: Duration = Duration::from_mins(30);
const LOOK: Duration = Duration::from_secs(1);

/// What the drivers of one process know of each other: the one of the machine's product and the
/// one of the agent itself.
#[derive(Debug, Default)]
pub struct Together {
    /// Whether the machine's product has a driver here.
    watched: AtomicBool,
    /// Whether it has spoken with its server since the start.
    heard: AtomicBool,
    /// Whether it is in the middle of an update.
    busy: AtomicBool,
}

impl Together {
    pub(super) fn is_heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// There is a driver for the machine's product: a new agent has to serve it.
    pub(crate) fn is_watched(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }
}

impl Driver {
    pub(super) fn is_own(&self) -> bool {
        self.config.backend == BackendSettings::Agent
    }

    /// Tells the other driver whether this one may be stopped.
    pub(super) fn says_how_busy(&self) {
        self.control.stands(&self.journal().record().phase);
        if !self.is_own() {
            let phase = &self.journal().record().phase;
            let busy = !matches!(phase, Phase::Idle | Phase::Probation { .. });
            self.together.busy.store(busy, Ordering::Relaxed);
        }
    }

    /// Ends this process for the sake of another version of it, once the machine's own update is
    /// not in the middle.
    pub(super) async fn gives_way(&mut self) -> Result<(), DriverError> {
        if !self.is_own() {
            return Ok(());
        }
        let begun = Instant::now();
        while self.together.busy.load(Ordering::Relaxed) && begun.elapsed() < GIVE_WAY {
            tokio::time::sleep(LOOK).await;
        }
        log::line("ends, so that the guard starts the other version of the agent");
        Err(DriverError::TakesOver)
    }

    /// A new agent is good when it reaches the server, for itself and for the machine's product.
    pub(super) async fn proves_itself(&mut self) -> Result<(), Explained> {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < PROOF {
            match self.check_in(0).await {
                Ok(_) => {
                    let waits = self.together.watched.load(Ordering::Relaxed)
                        && !self.together.heard.load(Ordering::Relaxed);
                    if !waits {
                        return Ok(());
                    }
                    last = "it does not check in for the machine".into();
                }
                Err(error) => last = log::chain(&error),
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Explained::new(Reason::HealthFailed, last))
    }
}

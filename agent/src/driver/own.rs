//! Updates of the agent itself: when it gives way to another version, and what proves a new one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate_machine::fsm::Phase;
use tidegate_protocol::{Explained, Reason};

use super::{Driver, DriverError};
use crate::install::BackendSettings;
use crate::log;

/// Time that a new agent has to reach its server. Shorter than the guard's deadline.
const PROOF: Duration = Duration::from_mins(5);
/// Longest time that a switch of agents waits for the other driver's work.
const GIVE_WAY: Duration = Duration::from_mins(30);
const LOOK: Duration = Duration::from_secs(1);

/// State shared by the drivers of one process: that of the machine's product and that of the agent
/// itself.
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
    pub(super) fn note_heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Notes that the machine's product has a driver here: a new agent has to serve it.
    pub(crate) fn note_watched(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }
}

impl Driver {
    pub(super) fn is_own(&self) -> bool {
        self.config.backend == BackendSettings::Agent
    }

    /// Tells the other driver whether this one may be stopped.
    pub(super) fn report_load(&self) {
        self.control.stands(&self.journal().record().phase);
        if !self.is_own() {
            let phase = &self.journal().record().phase;
            let busy = !matches!(phase, Phase::Idle | Phase::Probation { .. });
            self.together.busy.store(busy, Ordering::Relaxed);
        }
    }

    /// Ends this process so that another version of it can start, once the machine's own update is
    /// not in the middle of something, or after [`GIVE_WAY`].
    pub(super) async fn give_way(&mut self) -> Result<(), DriverError> {
        if !self.is_own() {
            return Ok(());
        }
        let begun = Instant::now();
        while self.together.busy.load(Ordering::Relaxed) && begun.elapsed() < GIVE_WAY {
            tokio::time::sleep(LOOK).await;
        }
        log::line("exiting, so that the guard starts the other version of the agent");
        Err(DriverError::TakesOver)
    }

    /// Proves a new agent: it must reach the server, for itself and for the machine's product.
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
                    last = "it has not checked in for the machine's product".into();
                }
                Err(error) => last = log::chain(&error),
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Explained::new(Reason::HealthFailed, last))
    }
}

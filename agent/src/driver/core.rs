//! Core of the agent: the machine's journal and agenda with the slots and the download folder.
//! No network, no clock, no tokio: its driver can stop it between any two operations.

use std::path::Path;
use std::sync::Arc;

use tidegate_apply::Program;
use tidegate_machine::Agenda;
use tidegate_machine::fsm::{Activation, Effect, Event, Job, Phase, SlotId};
use tidegate_protocol::{Explained, Image, Reason};

use crate::fs::Fs;
use crate::fs::journal::{self, Journal, JournalError};
use crate::install::{Backend, Order, SlotError};
use crate::log;
use crate::net::download::Download;

/// The state of one device on its medium.
pub(crate) struct Core {
    pub(crate) journal: Journal,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) download: Download,
    /// Program that decodes payloads; `None` to decode in this process.
    pub(crate) decoder: Option<Program>,
    /// Identifier of this start, such as the machine's boot id; empty if unknown.
    pub(crate) start: String,
}

impl Core {
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        state: &Path,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, JournalError> {
        Ok(Self {
            journal: journal::open_enrolled(fs.clone(), state)?,
            start: backend.start(),
            backend,
            download: Download::new(fs, state),
            decoder: None,
        })
    }

    /// Returns the agenda of a starting agent.
    pub(crate) fn start(&self) -> Result<Agenda, SlotError> {
        Ok(Agenda::of(Event::Started {
            medium: self.backend.medium()?,
            start: self.start.clone(),
        }))
    }

    /// Processes all pending events, journal first, and returns the next effect to perform; `None`
    /// when nothing is left. `told` is called with each new phase.
    pub(crate) fn next(
        &mut self,
        agenda: &mut Agenda,
        told: &mut dyn FnMut(&Phase),
    ) -> Result<Option<Effect>, JournalError> {
        agenda.next(&mut self.journal, told)
    }

    /// Returns the work of staging a job's version in its slot: it takes long and needs no journal.
    pub(crate) fn staging(&self, job: Job) -> Staging {
        Staging {
            backend: self.backend.clone(),
            download: self.download.clone(),
            decoder: self.decoder.clone(),
            active: self.journal.record().active,
            job,
        }
    }

    /// Returns the work of switching back to a slot that was in use before.
    pub(crate) fn way_back(&self, slot: Option<SlotId>) -> WayBack {
        let installed = slot.and_then(|slot| self.journal.record().slot(slot));
        WayBack {
            backend: self.backend.clone(),
            download: self.download.clone(),
            slot,
            image: installed.map(|installed| installed.image),
        }
    }
}

/// Everything that a rollback needs: no network, no server.
pub(crate) struct WayBack {
    backend: Arc<dyn Backend>,
    download: Download,
    slot: Option<SlotId>,
    image: Option<Image>,
}

/// Reason why a rollback did not complete.
pub(crate) enum NotBack {
    /// The kept version is not what was verified: it is not activated.
    Damaged(Explained),
    /// The kept version is intact, but could not be activated.
    Failed(Explained),
}

impl WayBack {
    pub(crate) fn run(self) -> Result<Activation, NotBack> {
        let there = self
            .backend
            .medium()
            .is_ok_and(|medium| medium.active == self.slot && medium.next == self.slot);
        // A version that runs already is not verified again.
        if !there && let (Some(slot), Some(image)) = (self.slot, self.image) {
            let mut verified = self.backend.verify(slot, image);
            if verified.as_ref().is_err_and(is_full) {
                self.make_room(slot);
                // Beside what is there once more: only in place is what somebody changed lost.
                verified = self.backend.verify(slot, image);
            }
            if verified.as_ref().is_err_and(is_full) {
                verified = self.backend.repair(slot, image);
            }
            verified.map_err(|error| {
                if error.is_damage() {
                    let why = log::chain(&error);
                    NotBack::Damaged(Explained::new(Reason::PreviousDamaged, why))
                } else {
                    NotBack::Failed(error.explained())
                }
            })?;
        }
        let mut activated = self.backend.activate(self.slot);
        if activated.as_ref().is_err_and(is_full)
            && let Some(slot) = self.slot
        {
            self.make_room(slot);
            activated = self.backend.activate(self.slot);
        }
        let activation = match activated {
            // The slot is in use already: a failing switch is no reason to keep retrying.
            Err(error) if there => {
                log::line(&format!("after the rollback: {}", log::chain(&error)));
                Activation::Live
            }
            other => other.map_err(|error| NotBack::Failed(error.explained()))?,
        };
        // The version has proven itself before. Unless it is confirmed, a boot loader treats it as
        // on trial and turns to the version that failed once its boot attempts are used up.
        if activation == Activation::Live
            && let Some(slot) = self.slot
        {
            let confirmed = self.backend.confirm(slot);
            confirmed.map_err(|error| NotBack::Failed(error.explained()))?;
        }
        Ok(activation)
    }

    /// Frees what the way back does not need: the download, and the failing version's own bytes.
    fn make_room(&self, slot: SlotId) {
        log::line("no room for the way back: dropping what it does not need");
        if let Err(error) = self.download.drop_all() {
            log::line(&format!("freeing space: {error}"));
        }
        if let Err(error) = self.backend.make_room(slot) {
            log::line(&format!("freeing space: {}", log::chain(&error)));
        }
    }
}

fn is_full(error: &SlotError) -> bool {
    error.explained().code == Reason::DiskFull
}

/// Everything that staging needs.
pub(crate) struct Staging {
    backend: Arc<dyn Backend>,
    download: Download,
    decoder: Option<Program>,
    active: Option<SlotId>,
    job: Job,
}

impl Staging {
    pub(crate) fn run(self) -> Result<(), Explained> {
        let job = &self.job;
        if job.kept {
            return self
                .backend
                .verify(job.slot, job.target.image)
                .map_err(|error| {
                    if error.is_damage() {
                        Explained::new(Reason::PreviousDamaged, log::chain(&error))
                    } else {
                        error.explained()
                    }
                });
        }
        let payload = job
            .payloads
            .get(job.payload)
            .ok_or_else(|| Explained::from(Reason::DownloadFailed))?;
        let (manifest, chunks) = self.download.open(payload)?;
        let order = Order {
            slot: job.slot,
            manifest: &manifest,
            payload: &chunks,
            old: manifest
                .encoding
                .is_delta()
                .then_some(self.active)
                .flatten(),
            image: job.target.image,
            decoder: self.decoder.as_ref(),
        };
        let staged = self.backend.stage(order).map_err(|e| e.explained());
        if let Err(why) = &staged
            && why.code == Reason::DiskFull
        {
            // The agent must not run out of space because of its own leftovers.
            let freed = self.backend.discard(job.slot);
            let _ = freed.inspect_err(|error| log::line(&log::chain(error)));
        }
        staged
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests;

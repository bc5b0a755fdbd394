//! Actions of the driver on the machine: switches, restarts, checks.

use std::time::{Duration, Instant};

use tidegate_machine::fsm::{Activation, Event, Installed, Phase, SlotId};
use tidegate_protocol::{Explained, Reason};

use super::work::verifying;
use super::{Driver, DriverError, REBOOT};
use crate::host::health::{self, Surroundings};
use crate::host::{platform, threads};
use crate::log;

/// Longest plausible restart, in milliseconds: above it the clock was set in between.
const LONGEST_MS: u64 = 86_400_000;

impl Driver {
    pub(super) async fn switch(&mut self, slot: SlotId) -> Result<Activation, Explained> {
        // The machine may have been off for days between staging and this.
        if let Phase::Trial {
            job,
            switched: false,
            ..
        } = &self.journal().record().phase
            && self.staged != Some(slot)
        {
            let job = verifying(job);
            self.make(job).await?;
        }
        self.stopped.get_or_insert_with(Instant::now);
        let backend = self.core.backend.clone();
        let switched = self.blocking(move || backend.activate(Some(slot))).await?;
        let activation = switched.map_err(|e| e.explained())?;
        if activation == Activation::Live {
            self.restart(slot).await?;
        }
        Ok(activation)
    }

    /// Runs the restart command for the version in a slot.
    pub(super) async fn restart(&mut self, slot: SlotId) -> Result<(), Explained> {
        let Some(restart) = self.config.restart.clone() else {
            return Ok(());
        };
        let release = self.journal().record().slot(slot);
        let release = release.map(|i| i.release.to_string());
        let around = self.surroundings(slot, release.unwrap_or_default(), false);
        let failed = Reason::RestartFailed;
        self.blocking(move || health::run(&restart, &around, failed, failed))
            .await?
    }

    /// Records the downtime of the updated software; the next report carries it.
    pub(super) fn note_running(&mut self) -> Result<(), DriverError> {
        let by_clock = self.journal().record().down_since.map(|since| {
            let ms = platform::now().as_micros() / 1_000 - since;
            u64::try_from(ms).ok().filter(|ms| *ms <= LONGEST_MS)
        });
        let stopped = self.stopped.take();
        let ms = match (by_clock, stopped) {
            // If the clock was set in between, it says nothing.
            (Some(by_clock), _) => by_clock.unwrap_or(0),
            (None, Some(stopped)) => {
                u64::try_from(stopped.elapsed().as_millis()).unwrap_or(u64::MAX)
            }
            (None, None) => return Ok(()),
        };
        self.handle_light(Event::Downtime { ms })
    }

    /// Records when the updated software stopped, before this process ends too.
    pub(super) fn shut_down(&mut self) -> Result<(), DriverError> {
        let passed = self
            .stopped
            .map_or(0, |stopped| stopped.elapsed().as_millis());
        let passed = i64::try_from(passed).unwrap_or(0);
        let since = platform::now().as_micros() / 1_000 - passed;
        self.handle_light(Event::GoesDown(since))
    }

    /// Runs work that may take long or call commands, off the event loop.
    pub(super) async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Explained> {
        self.alive(threads::run(work)).await
    }

    /// Context of commands for the version in a slot.
    fn surroundings(&self, slot: SlotId, release: String, signed: bool) -> Surroundings {
        Surroundings {
            folder: self.core.backend.folder(slot),
            release,
            device_name: self.config.name.clone(),
            signed,
        }
    }

    /// Reboots the machine. Returns only if that did not happen, with the reason.
    pub(super) async fn restart_machine(&mut self) -> Explained {
        let Some(reboot) = self.config.reboot.clone() else {
            let what = "the switch needs a reboot, but no --reboot-cmd is set";
            return Explained::new(Reason::CommandNotStarted, what);
        };
        let around = Surroundings {
            folder: self.state.clone(),
            release: String::new(),
            device_name: self.config.name.clone(),
            signed: false,
        };
        let reason = Reason::RestartFailed;
        let said = self
            .blocking(move || health::run(&reboot, &around, reason, reason))
            .await;
        if let Ok(Err(why)) | Err(why) = said {
            return why;
        }
        log::line("rebooting the machine");
        tokio::time::sleep(REBOOT).await;
        Explained::new(Reason::RestartFailed, "the machine did not reboot")
    }

    /// Checks a new version and confirms it if it is healthy: from then on nothing switches back.
    pub(super) async fn prove(&mut self, installed: &Installed) -> Result<(), Explained> {
        self.note_what_is_left().await?;
        if self.is_own() {
            self.proves_itself().await?;
        } else {
            self.check_health(installed).await?;
        }
        let (backend, slot) = (self.core.backend.clone(), self.journal().record().active);
        let Some(slot) = slot else {
            return Ok(());
        };
        self.blocking(move || backend.confirm(slot))
            .await?
            .map_err(|e| e.explained())
    }

    /// Notes what the previous version left in its slot, once it no longer runs in a trial: that is
    /// what a rollback returns to.
    async fn note_what_is_left(&mut self) -> Result<(), Explained> {
        let record = self.journal().record();
        let kept = record.inactive();
        let (Phase::Trial { .. }, Some(installed)) = (&record.phase, record.slot(kept)) else {
            return Ok(());
        };
        let (backend, image) = (self.core.backend.clone(), installed.image);
        if let Err(error) = self.blocking(move || backend.left(kept, image)).await? {
            log::line(&log::chain(&error));
        }
        Ok(())
    }

    pub(super) async fn check_health(&mut self, installed: &Installed) -> Result<(), Explained> {
        let own = self.config.health.clone();
        let signed = own.is_none();
        let Some(health) = own.or_else(|| installed.health.clone()) else {
            return Ok(());
        };
        let Some(slot) = self.journal().record().active else {
            return Ok(());
        };
        let around = self.surroundings(slot, installed.release.to_string(), signed);
        self.blocking(move || health::check(&health, &around))
            .await?
    }

    /// Checks the health periodically, outside of updates: a release that turns bad late shows when
    /// devices that run it are compared with the others. A single failed check does not count: it
    /// is repeated at once.
    pub(super) async fn check_idle(&mut self) {
        let every = Duration::from_secs(u64::from(self.config.health_every_s.max(1)));
        let record = self.journal().record();
        let due = self.healthy.is_none_or(|(_, at)| at.elapsed() >= every);
        let (Phase::Idle, Some(installed), true) = (&record.phase, record.running(), due) else {
            return;
        };
        if self.config.health.is_none() && installed.health.is_none() {
            return;
        }
        let installed = installed.clone();
        let mut checked = self.check_health(&installed).await;
        if checked.is_err() {
            checked = self.check_health(&installed).await;
        }
        let healthy = match checked {
            Ok(()) => Some(true),
            // It says nothing about the release, and must not count in a comparison.
            Err(why) if why.code.is_of_the_place() => {
                log::line(&why.to_string());
                None
            }
            Err(_) => Some(false),
        };
        self.healthy = Some((healthy, Instant::now()));
    }
}

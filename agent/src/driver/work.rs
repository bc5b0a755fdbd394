//! Work of a deployment before the switch: waiting for power, downloading, staging.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_protocol::{DeploymentId, Explained, MAX_WAIT_S, Reason};

use tidegate_machine::fsm::{Event, Job};
use tidegate_trust::assignment::Action;

use super::{Driver, DriverError, MAX_BACK_OFF, RoundError, abilities, hold::spread};
use crate::host::power::PowerSettings;
use crate::host::{platform, threads};
use crate::install::look_left;
use crate::log;
use crate::net::download::{Fetched, Ways};
use crate::net::line::SILENCE;
use crate::people::control::Control;

/// Interval between power readings while an update waits for power or depends on it.
const LOOK: Duration = Duration::from_secs(10);
/// Lifetime of an answer about a metered link: asking starts a process.
const COST: Duration = Duration::from_mins(10);

/// Time after which what was staged is verified again before it runs.
const FRESH: Duration = Duration::from_mins(1);

/// Outcome of one stretch of a download.
enum Heard {
    Done(Result<Fetched, Explained>),
    CalledOff,
    Hindered,
}

impl Driver {
    /// Reads power and link state, off the event loop: a UPS may be slow to answer.
    pub(super) async fn look_around(&mut self) {
        let (power, metered) = (self.config.power.clone(), self.config.metered);
        let ask = self.metered.1.is_none_or(|at| at.elapsed() >= COST);
        let looked = threads::run(move || (power.battery(), ask.then(|| metered.costs())));
        // What cannot be read is unknown, never empty.
        let (battery, costs) = looked.await.unwrap_or_default();
        self.battery = battery;
        if let Some(costs) = costs {
            self.metered = (costs, Some(Instant::now()));
        }
    }

    /// Returns a local reason for an update to wait, whether the server can be reached or not.
    async fn hindrance(&mut self) -> Option<Explained> {
        if let Some(paused) = self.control.paused() {
            return Some(paused);
        }
        self.look_around().await;
        self.battery.is_low().then(|| {
            let percent = self.battery.percent.unwrap_or(0);
            Explained::new(Reason::BatteryLow, format!("{percent} %"))
        })
    }

    /// Waits until nothing on this machine hinders an update any more. Returns an event if the
    /// server calls the deployment off meanwhile.
    async fn until_free(&mut self, job: &Job) -> Result<Option<Event>, DriverError> {
        let mut told: Option<Reason> = None;
        // A pause may last for days, and an outage as long: log each error once.
        let mut failed = String::new();
        loop {
            self.beat();
            let Some(why) = self.hindrance().await else {
                if told.is_some() {
                    log::line("nothing holds the update up any more: continuing");
                    self.control.waits(None);
                    self.handle_light(Event::GoesOn)?;
                }
                return Ok(None);
            };
            self.control.waits(Some(&why));
            if told != Some(why.code) {
                told = Some(why.code);
                log::line(&format!("waiting: {why}"));
                self.handle_light(Event::Waits(why))?;
            }
            let begun = Instant::now();
            let control = self.control.clone();
            let sign = async {
                self.send_reports().await?;
                let wait = u16::try_from(LOOK.as_secs()).unwrap_or(1);
                self.check_in(wait).await.map(|(answer, _)| answer)
            };
            let sign = tokio::select! {
                sign = sign => sign,
                () = control.woken() => continue,
            };
            match sign {
                Ok(answer) if answer.cancel == Some(job.deployment) => {
                    self.control.waits(None);
                    return Ok(Some(Event::CalledOff(job.deployment)));
                }
                Ok(_) => failed.clear(),
                Err(RoundError::Fatal(error)) => return Err(error),
                Err(error) => {
                    let text = log::chain(&error);
                    if text != failed {
                        log::line(&text);
                        self.control.failed(&text);
                        failed = text;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK.saturating_sub(begun.elapsed())) => {}
                () = control.woken() => {}
            }
        }
    }

    /// Downloads, and keeps listening: a halt or a low battery must take effect in the middle of
    /// it.
    pub(super) async fn download(&mut self, job: &Job) -> Result<Event, DriverError> {
        let Some(payload) = job.payloads.get(job.payload).copied() else {
            let reason = Explained::new(Reason::DownloadFailed, "no payload is left to try");
            return Ok(Event::DownloadFailed(reason));
        };
        if self.core.download.kept_manifest(&payload).is_none() {
            // Of another version: the room that is looked for next is taken by it.
            self.drop_download();
        }
        let needed = self.core.backend.room(job.target.image.length);
        // Where the switch writes, before the first byte; where the download does, it looks itself.
        let mut ready = self.check_room(job).await;
        if ready.is_ok() {
            ready = self.preflight(job.slot, &job.target, false);
        }
        if let Err(reason) = ready {
            log::line(&format!(
                "{} is not downloaded: {reason}",
                job.target.release
            ));
            return Ok(Event::DownloadFailed(reason));
        }
        if let Some(folder) = self.bundle.clone() {
            if let Some(called_off) = self.until_free(job).await? {
                return Ok(called_off);
            }
            let download = self.core.download.clone();
            let copied = self
                .blocking(move || download.copy_from(&folder, &payload, needed))
                .await;
            return Ok(match copied.unwrap_or_else(Err) {
                Ok(()) => Event::Downloaded { bytes: job.bytes },
                Err(reason) => Event::DownloadFailed(reason),
            });
        }
        let limits = self.config.limits.clone();
        let allowed = Duration::from_secs(u64::from(self.config.download_deadline_s));
        let begun = Instant::now();
        loop {
            if let Some(called_off) = self.until_free(job).await? {
                return Ok(called_off);
            }
            self.seek_session().await;
            let ways = Ways {
                sources: self.sources(),
                parallel: usize::from(self.config.parallel),
                limits: &limits,
                deadline: Some(allowed.saturating_sub(begun.elapsed())),
                silence: SILENCE,
            };
            let download = self.core.download.clone();
            let now = Instant::now();
            let heard = {
                let fetching = download.run(ways, &payload, needed);
                let hindered = until_hindered(self.config.power.clone(), self.control.clone());
                tokio::pin!(fetching, hindered);
                tokio::select! {
                    biased;
                    result = &mut fetching => Heard::Done(result),
                    () = &mut hindered => Heard::Hindered,
                    heard = self.listen(job.deployment) => {
                        heard?;
                        Heard::CalledOff
                    }
                }
            };
            return Ok(match heard {
                // Fetched data is kept.
                Heard::Hindered => continue,
                Heard::CalledOff => Event::CalledOff(job.deployment),
                Heard::Done(Err(reason)) => {
                    log::line(&format!(
                        "{} could not be downloaded: {reason}",
                        job.target.release
                    ));
                    Event::DownloadFailed(reason)
                }
                Heard::Done(Ok(fetched)) => {
                    if let Some(link) = abilities::link(fetched.now, now.elapsed()) {
                        self.abilities.link = link;
                    }
                    Event::Downloaded {
                        bytes: job.bytes.saturating_add(fetched.total),
                    }
                }
            });
        }
    }

    /// Checks that there is room for a version where the switch writes.
    async fn check_room(&mut self, job: &Job) -> Result<(), Explained> {
        let (backend, length) = (self.core.backend.clone(), job.target.image.length);
        let room = self.blocking(move || backend.check_room(length)).await?;
        room.map_err(|error| error.explained())
    }

    /// Discards what was fetched. Leftovers cost space, nothing more; the next download drops them.
    pub(super) fn drop_download(&self) {
        if let Err(error) = self.core.download.drop_all() {
            log::line(&format!("the download folder cannot be emptied: {error}"));
        }
    }

    /// Gives back what an attempt has taken that failed for want of room: what was fetched, unless there
    /// is room for the version in the agent's folder all the same, and what was staged, unless the switch
    /// writes to another file system. What stays is not fetched again.
    pub(super) async fn give_back(&mut self, job: &Job) -> Result<(), DriverError> {
        let (backend, slot) = (self.core.backend.clone(), job.slot);
        let length = job.target.image.length;
        let free = platform::free_space(&self.state).unwrap_or(0);
        if free >= length.max(backend.room(length)) {
            return Ok(());
        }
        self.drop_download();
        let writes = backend.elsewhere();
        let is_apart = writes.is_some_and(|place| platform::is_elsewhere(&place, &self.state));
        if is_apart || self.journal().record().slot(slot).is_none() {
            return Ok(());
        }
        self.handle_light(Event::Emptied(slot))?;
        let freed = self.blocking(move || backend.discard(slot)).await;
        if let Ok(Err(error)) = freed {
            log::line(&format!("freeing space: {}", log::chain(&error)));
        }
        Ok(())
    }

    /// Keeps checking in until the server calls the deployment off.
    async fn listen(&mut self, deployment: DeploymentId) -> Result<(), DriverError> {
        let mut wait = Duration::from_secs(1);
        loop {
            self.beat();
            let begun = Instant::now();
            let hold_s = self.hold.ask(MAX_WAIT_S);
            let answer = async {
                self.send_reports().await?;
                self.check_in(hold_s).await.map(|(answer, _)| answer)
            };
            match answer.await {
                Ok(answer) if answer.cancel == Some(deployment) => return Ok(()),
                Ok(_) => {
                    self.hold.note_answered(hold_s, begun.elapsed());
                    wait = Duration::from_secs(1);
                }
                Err(RoundError::Fatal(error)) => return Err(error),
                Err(error) if self.note_lost_hold(&error, begun.elapsed()) => {}
                Err(error) => {
                    log::line(&log::chain(&error));
                    wait = (wait * 2).min(MAX_BACK_OFF);
                }
            }
            tokio::time::sleep(spread(wait)).await;
        }
    }

    /// Stages the new version in its slot, off the event loop. Waits for enough charge before that,
    /// and again for the switch that follows.
    pub(super) async fn stage(&mut self, job: Job) -> Result<Event, DriverError> {
        // A rollback to the kept version needs too little power to wait for it.
        let waits = !(job.kept && job.action == Action::Rollback);
        if waits && let Some(called_off) = self.until_free(&job).await? {
            return Ok(called_off);
        }
        let mut made = Ok(());
        if job.kept && job.action == Action::Install {
            // As before a download: a switch that fails for want of room stops what runs for nothing.
            made = self.check_room(&job).await;
        }
        if made.is_ok() {
            made = self.make(job.clone()).await;
        }
        if waits && made.is_ok() {
            made = self.preflight(job.slot, &job.target, true);
        }
        if let Err(reason) = made {
            log::line(&format!(
                "{} could not be staged: {reason}",
                job.target.release
            ));
            return Ok(Event::StageFailed(reason));
        }
        let staged = Instant::now();
        if waits && let Some(called_off) = self.until_free(&job).await? {
            return Ok(called_off);
        }
        // A low battery can hold it up for hours: what runs must be what was verified.
        if staged.elapsed() > FRESH
            && let Err(reason) = self.make(verifying(&job)).await
        {
            return Ok(Event::StageFailed(reason));
        }
        self.staged = Some(job.slot);
        let limited = job.switch_within_s.is_some();
        Ok(if self.is_too_late(job.deployment, limited) {
            Event::StagedTooLate
        } else {
            Event::Staged
        })
    }

    /// Stages a version, or verifies one that is kept.
    pub(super) async fn make(&mut self, job: Job) -> Result<(), Explained> {
        let staging = self.core.staging(job);
        let made = self.blocking(move || staging.run()).await?;
        self.left = look_left(&self.state);
        made
    }

    fn is_too_late(&self, deployment: DeploymentId, limited: bool) -> bool {
        limited
            && !self
                .switch_by
                .is_some_and(|(of, until)| of == deployment && Instant::now() < until)
    }
}

/// Job of verifying what another job has staged.
pub(super) fn verifying(job: &Job) -> Job {
    Job {
        kept: true,
        ..job.clone()
    }
}

/// Completes when the battery is low, or a person pauses.
async fn until_hindered(power: PowerSettings, control: Arc<Control>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = control.woken() => {}
        }
        if control.paused().is_some() {
            return;
        }
        let power = power.clone();
        let battery = threads::run(move || power.battery()).await;
        if battery.unwrap_or_default().is_low() {
            return;
        }
    }
}

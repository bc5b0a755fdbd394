//! The driver: asks the server, steps the machine, performs what it asks for, journal first.

mod abilities;
mod identity;
mod server;
mod words;

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidegate_protocol::{Abilities, DeploymentId, Explained, MAX_WAIT_S, Reason};
use tidegate_trust::{SecretKey, TrustError};

use crate::archive_slots::{SlotError, Slots};
use crate::client::{Client, TransportError};
use crate::config::{self, Config, ConfigError};
use crate::download::Download;
use crate::failpoint;
use crate::fsm::{Effect, Event, Installed, Job, Medium, Phase, SlotId, step};
use crate::health::{self, Surroundings};
use crate::journal::{Journal, JournalError};
use crate::log;
use crate::tls::TlsClock;
use crate::trust_store::{TrustStore, TrustStoreError};
use words::describe;

/// What stops the agent. Everything else is reported and tried again.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The journal cannot be used: without it nothing may be done.
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
    /// The slots cannot be used.
    #[error("the slots cannot be used")]
    Slots(#[from] SlotError),
    /// The signed files cannot be read or written.
    #[error("the signed files cannot be read or written")]
    Trust(#[from] TrustStoreError),
    /// The server's address or certificates cannot be used.
    #[error("the server cannot be addressed")]
    Transport(#[from] TransportError),
}

/// Why a round with the server did not succeed.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("asking the server failed")]
    Transport(#[from] TransportError),
    #[error("signed metadata was refused")]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Fatal(#[from] DriverError),
}

/// How often the health is checked again in probation: a tenth of the window, 1 s to 30 s.
fn probation_check(window_s: u32) -> Duration {
    Duration::from_secs(u64::from((window_s / 10).clamp(1, 30)))
}

/// Answers are small: the largest is a check-in's with an assignment in it.
const ANSWER: usize = 256 << 10;
const DEADLINE: Duration = Duration::from_secs(30);
/// How often the server hears of a device that is busy.
const SIGN_OF_LIFE: Duration = Duration::from_mins(1);
/// Between tries while the server does not answer.
const MAX_BACK_OFF: Duration = Duration::from_mins(5);

/// One device's agent.
pub struct Driver {
    state: PathBuf,
    config: Config,
    key: SecretKey,
    journal: Journal,
    slots: Slots,
    trust: TrustStore,
    client: Client,
    ticket: Option<String>,
    /// When the rollback window was last counted.
    counted: Instant,
    /// Until when the job of a deployment must be put to use. Not kept over a restart: then only
    /// the server can say whether the window is open.
    switch_by: Option<(DeploymentId, Instant)>,
    /// Whether what runs was healthy when it was last checked, and when that was.
    healthy: Option<(bool, Instant)>,
    /// Whether the server has said that this device is isolated.
    isolated: bool,
    /// What this device can do with payloads.
    abilities: Abilities,
    /// Why the last assignment was refused, to be told with the next check-in.
    refused: Option<Explained>,
    _lock: File,
}

impl Driver {
    /// Opens a state directory.
    pub fn open(state: &Path) -> Result<Self, DriverError> {
        let config = Config::load(state)?;
        let lock = config::lock(state)?;
        let journal = Journal::open_enrolled(state)?;
        let clock = TlsClock {
            floor: journal.record().time_floor,
            trusted: config.clock_trusted,
        };
        // Without a root there is nobody to believe: said at once, not at the first order.
        let trust = TrustStore::open(state)?;
        trust.load()?;
        Ok(Self {
            key: config::identity(state)?,
            journal,
            slots: Slots::open(state)?,
            trust,
            client: Client::new(&config.server, config.ca_file.as_deref(), clock)?,
            state: state.to_owned(),
            config,
            ticket: None,
            counted: Instant::now(),
            switch_by: None,
            healthy: None,
            isolated: false,
            abilities: abilities::measure(),
            refused: None,
            _lock: lock,
        })
    }

    /// Runs until it is dropped. Returns only when going on would be wrong.
    pub async fn run(&mut self) -> Result<(), DriverError> {
        let medium = Medium {
            active: self.slots.current(),
        };
        self.handle(Event::Started(medium)).await?;
        let mut failures = 0u32;
        loop {
            self.count_window().await?;
            self.check_idle().await;
            let began = Instant::now();
            let pause = match self.round().await {
                Ok(poll) => {
                    failures = 0;
                    // A held check-in has used up most of the interval already.
                    jittered(poll.saturating_sub(began.elapsed()))
                }
                Err(RoundError::Fatal(error)) => return Err(error),
                Err(error) => {
                    failures = failures.saturating_add(1);
                    log::line(&log::chain(&error));
                    let seconds = 1u64 << failures.min(9);
                    jittered(Duration::from_secs(seconds).min(MAX_BACK_OFF))
                }
            };
            self.wait(pause).await?;
        }
    }

    /// Waits, and counts the window meanwhile: it runs whether the server answers or not.
    async fn wait(&mut self, pause: Duration) -> Result<(), DriverError> {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let slice = match &self.journal.record().phase {
                Phase::Probation { job, .. } => left.min(probation_check(job.window_s)),
                _ => left,
            };
            tokio::time::sleep(slice).await;
            self.count_window().await?;
        }
    }

    /// Counts the rollback window and checks the health again in it.
    async fn count_window(&mut self) -> Result<(), DriverError> {
        let Phase::Probation { job, elapsed_s } = self.journal.record().phase.clone() else {
            self.counted = Instant::now();
            return Ok(());
        };
        let passed = self.counted.elapsed();
        let left = Duration::from_secs(u64::from(job.window_s.saturating_sub(elapsed_s)));
        if passed < probation_check(job.window_s).min(left) {
            return Ok(());
        }
        self.counted = Instant::now();
        if let Err(reason) = self.check_health(&job.target).await {
            return self.handle(Event::Unhealthy(reason)).await;
        }
        // Rounded down: the window is never shorter than it was promised.
        let seconds = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        let rest = passed.saturating_sub(Duration::from_secs(u64::from(seconds)));
        self.counted = self.counted.checked_sub(rest).unwrap_or(self.counted);
        self.handle(Event::WindowPassed(seconds)).await
    }

    /// Steps the machine and performs what it asks for, until it asks for nothing more.
    async fn handle(&mut self, event: Event) -> Result<(), DriverError> {
        let mut events = VecDeque::from([event]);
        let mut effects: VecDeque<Effect> = VecDeque::new();
        loop {
            if let Some(event) = events.pop_front() {
                let before = std::mem::discriminant(&self.journal.record().phase);
                let (record, wanted) = step(self.journal.record().clone(), event);
                self.journal.write(record)?;
                if std::mem::discriminant(&self.journal.record().phase) != before {
                    // What was wanted in the old phase is wanted no more.
                    effects.clear();
                    log::line(&describe(&self.journal.record().phase));
                }
                effects.extend(wanted);
            } else if let Some(effect) = effects.pop_front() {
                failpoint::point("before an effect");
                events.extend(self.perform(effect).await?);
                failpoint::point("after an effect");
            } else {
                return Ok(());
            }
        }
    }

    async fn perform(&mut self, effect: Effect) -> Result<Option<Event>, DriverError> {
        Ok(match effect {
            Effect::DropDownload => {
                // What is left is dropped by the next download; it costs space, nothing more.
                if let Err(error) = Download::new(&self.state).drop_all() {
                    log::line(&format!("the download folder cannot be emptied: {error}"));
                }
                None
            }
            Effect::Download(job) => Some(self.download(&job).await?),
            Effect::Stage(job) => Some(self.stage(*job).await),
            Effect::Switch(slot) => match self.switch(Some(slot)).await {
                Ok(()) => None,
                Err(reason) => Some(Event::Unhealthy(reason)),
            },
            Effect::CheckHealth(installed) => match self.check_health(&installed).await {
                Ok(()) => {
                    self.counted = Instant::now();
                    Some(Event::Healthy)
                }
                Err(reason) => Some(Event::Unhealthy(reason)),
            },
            Effect::Return(slot) => {
                // The way back needs no server, and is not given up.
                let mut wait = Duration::from_secs(1);
                loop {
                    match self.switch(slot).await {
                        Ok(()) => break,
                        // The old version is in place; that its restart command fails does not
                        // make the new one better.
                        Err(reason) if reason.code == Reason::RestartFailed => {
                            log::line(&format!("after going back: {reason}"));
                            break;
                        }
                        Err(reason) => log::line(&format!("going back failed: {reason}")),
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(MAX_BACK_OFF);
                }
                Some(Event::Returned)
            }
        })
    }

    async fn switch(&self, slot: Option<SlotId>) -> Result<(), Explained> {
        self.slots.activate(slot).map_err(|e| e.explained())?;
        let (Some(restart), Some(slot)) = (&self.config.restart, slot) else {
            return Ok(());
        };
        let release = self
            .journal
            .record()
            .slot(slot)
            .map(|i| i.release.to_string());
        let tree = self.slots.tree(slot);
        let around = Surroundings {
            tree: &tree,
            release: release.unwrap_or_default(),
            device_name: &self.config.name,
        };
        health::run(
            restart,
            &around,
            Reason::RestartFailed,
            Reason::RestartFailed,
        )
        .await
    }

    async fn check_health(&mut self, installed: &Installed) -> Result<(), Explained> {
        let Some(health) = self
            .config
            .health
            .clone()
            .or_else(|| installed.health.clone())
        else {
            return Ok(());
        };
        let Some(slot) = self.journal.record().active else {
            return Ok(());
        };
        let tree = self.slots.tree(slot);
        let name = self.config.name.clone();
        let around = Surroundings {
            tree: &tree,
            release: installed.release.to_string(),
            device_name: &name,
        };
        let check = health::run(
            &health,
            &around,
            Reason::HealthFailed,
            Reason::HealthTimeout,
        );
        self.alive(check).await
    }

    /// Downloads, and listens meanwhile: a halt must be heard in the middle of it.
    async fn download(&mut self, job: &Job) -> Result<Event, DriverError> {
        let Some(payload) = job.payloads.get(job.payload).copied() else {
            let reason = Explained::new(Reason::DownloadFailed, "no way to fetch it is left");
            return Ok(Event::DownloadFailed(reason));
        };
        let download = Download::new(&self.state);
        let mut line = self.client.sibling();
        // The artifact and what is unpacked from it.
        let needed = job.target.image.length.saturating_mul(2);
        let begun = Instant::now();
        let fetching = download.run(&mut line, &payload, needed);
        tokio::pin!(fetching);
        loop {
            let heard = tokio::select! {
                biased;
                result = &mut fetching => {
                    return Ok(match result {
                        Ok(bytes) => {
                            if let Some(link) = abilities::link(bytes, begun.elapsed()) {
                                self.abilities.link = link;
                            }
                            Event::Downloaded { bytes: job.bytes + bytes }
                        }
                        Err(reason) => Event::DownloadFailed(reason),
                    });
                }
                heard = self.listen(job.deployment) => heard?,
            };
            if heard {
                return Ok(Event::CalledOff(job.deployment));
            }
        }
    }

    /// Tells the server where we are until it calls the deployment off.
    async fn listen(&mut self, deployment: DeploymentId) -> Result<bool, DriverError> {
        let mut wait = Duration::from_secs(1);
        loop {
            let answer = async {
                self.send_reports().await?;
                self.check_in(MAX_WAIT_S).await.map(|(answer, _)| answer)
            };
            match answer.await {
                Ok(answer) if answer.cancel == Some(deployment) => return Ok(true),
                Ok(_) => wait = Duration::from_secs(1),
                Err(RoundError::Fatal(error)) => return Err(error),
                Err(error) => {
                    log::line(&log::chain(&error));
                    wait = (wait * 2).min(MAX_BACK_OFF);
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Lets the server hear of the device now and then while something takes long: who takes an
    /// update and is not heard of counts as silent. What the server answers waits until then.
    async fn alive<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(SIGN_OF_LIFE) => {}
            }
            let sign = async {
                self.send_reports().await?;
                self.check_in(0).await.map(drop)
            };
            tokio::select! {
                done = &mut work => return done,
                heard = sign => if let Err(error) = heard {
                    log::line(&log::chain(&error));
                }
            }
        }
    }

    /// Makes the new version in its slot, off the event loop.
    async fn stage(&mut self, job: Job) -> Event {
        let slots = self.slots.clone();
        let download = Download::new(&self.state);
        let active = self.journal.record().active;
        let (deployment, limited) = (job.deployment, job.switch_within_s.is_some());
        let made = tokio::task::spawn_blocking(move || {
            let payload = job
                .payloads
                .get(job.payload)
                .ok_or_else(|| Explained::from(Reason::DownloadFailed))?;
            let (manifest, file) = download.open(payload)?;
            let old = manifest.encoding.is_delta().then_some(active).flatten();
            slots
                .stage(job.slot, &manifest, &file, old, job.target.image)
                .map_err(|e| e.explained())
        });
        match self.alive(made).await {
            Ok(Ok(())) if self.is_too_late(deployment, limited) => Event::StagedTooLate,
            Ok(Ok(())) => Event::Staged,
            Ok(Err(reason)) => Event::StageFailed(reason),
            Err(error) => {
                Event::StageFailed(Explained::new(Reason::StorageError, error.to_string()))
            }
        }
    }

    fn is_too_late(&self, deployment: DeploymentId, limited: bool) -> bool {
        limited
            && !self
                .switch_by
                .is_some_and(|(of, until)| of == deployment && Instant::now() < until)
    }

    /// Checks what runs now and then, outside of updates: a release that turns bad late is seen
    /// by comparing those who run it with those who do not. One failed check is none: it is
    /// repeated at once.
    async fn check_idle(&mut self) {
        let every = Duration::from_secs(u64::from(self.config.health_every_s.max(1)));
        let record = self.journal.record();
        let due = self.healthy.is_none_or(|(_, at)| at.elapsed() >= every);
        let (Phase::Idle, Some(installed), true) = (&record.phase, record.running(), due) else {
            return;
        };
        if self.config.health.is_none() && installed.health.is_none() {
            return;
        }
        let installed = installed.clone();
        let healthy = self.check_health(&installed).await.is_ok()
            || self.check_health(&installed).await.is_ok();
        self.healthy = Some((healthy, Instant::now()));
    }
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, TransportError> {
    serde_json::to_vec(value).map_err(|e| TransportError::Malformed(e.to_string()))
}

/// Up to a tenth more, so that a fleet that was switched on together does not stay together.
fn jittered(base: Duration) -> Duration {
    let tenth = u64::try_from(base.as_millis() / 10).unwrap_or(u64::MAX);
    base + Duration::from_millis(rand::random_range(0..=tenth))
}

//! The driver: asks the server, steps the machine, performs what it asks for, journal first.

mod abilities;
mod acts;
mod back;
mod carried;
mod cut_off;
mod hold;
mod identity;
mod own;
mod server;
mod words;
mod work;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_protocol::{Abilities, Battery, DeploymentId, Explained, Reason, Sha256};
use tidegate_trust::{SecretKey, TrustError};

use crate::client::{Client, TransportError};
use crate::config::{self, Config, ConfigError};
use crate::control::{Control, ControlSettings};
use crate::core::{Agenda, Core};
use crate::fs::{self, Fs};
use crate::fsm::{Effect, Event, Phase};
use crate::install::{self, SlotError};
use crate::journal::{Journal, JournalError};
use crate::log;
use crate::service;
use crate::tls::TlsClock;
use crate::trust_store::{TrustStore, TrustStoreError};
pub use carried::{CarriedError, export};
use cut_off::CutOff;
use hold::Hold;
pub use own::Together;
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
    /// Another version of the agent is to run: the guard starts it when this process ends.
    #[error("another version of the agent takes over")]
    TakesOver,
}

impl DriverError {
    /// The reason to tell the server; `None` where nothing is wrong with the machine.
    fn explained(&self) -> Option<Explained> {
        match self {
            Self::Journal(JournalError::Io { source, .. }) => {
                Some(Explained::new(install::io_reason(source), log::chain(self)))
            }
            Self::Slots(error) => Some(error.explained()),
            Self::Journal(_) | Self::Config(_) | Self::Trust(_) => {
                Some(Explained::new(Reason::StorageError, log::chain(self)))
            }
            Self::Transport(_) | Self::TakesOver => None,
        }
    }
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
/// How long a machine may take to go down once it was told to.
const REBOOT: Duration = Duration::from_mins(5);
/// How long an agent that has to end may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Between tries while the server does not answer.
const MAX_BACK_OFF: Duration = Duration::from_mins(5);

/// One device's agent.
pub struct Driver {
    state: PathBuf,
    config: Config,
    fs: Arc<dyn Fs>,
    key: SecretKey,
    core: Core,
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
    /// Since when what is updated does not run.
    stopped: Option<Instant>,
    /// Whether the server has said that this device is isolated.
    isolated: bool,
    /// What this device can do with payloads.
    abilities: Abilities,
    /// Where else payloads may be fetched, best first, as the server said last.
    mirrors: Vec<String>,
    /// The power as it was read last.
    battery: Battery,
    /// Whether the link costs, and when that was asked.
    metered: (bool, Option<Instant>),
    /// Why the last assignment was refused, to be told with the next check-in.
    refused: Option<Explained>,
    /// The image that was kept to go back to, is damaged, and has to be fetched again.
    restores: Option<Sha256>,
    /// Whether the server has answered since the start.
    spoken: bool,
    /// For how long the link lets a request be held.
    hold: Hold,
    /// For how long the request under way asks to be held, in seconds.
    asked_s: u16,
    /// The folder that stands in for a server, where a person has carried one here.
    bundle: Option<PathBuf>,
    /// What is known of a server that cannot be reached.
    cut_off: CutOff,
    /// What people at the machine want.
    control: Arc<Control>,
    /// What the drivers of one process know of each other.
    together: Arc<Together>,
    _lock: File,
}

impl Driver {
    /// Opens a state directory. What only the server needs, and settings that were changed, may be
    /// broken while the machine is in the middle of a change of versions: the way back needs none of
    /// it, and a version that breaks it must be left all the same.
    pub fn open(state: &Path, together: Arc<Together>) -> Result<Self, DriverError> {
        let (config, mut broken) = match Config::load(state) {
            Ok(config) => (config, None),
            Err(error) => match Config::as_enrolled(state) {
                Ok(config) => (config, Some(DriverError::from(error))),
                Err(_) => return Err(error.into()),
            },
        };
        let lock = config::lock(state)?;
        let fs = fs::system();
        let backend = install::open(fs.clone(), state, &config.backend)?;
        let core = Core::open(fs.clone(), state, backend)?;
        let clock = TlsClock {
            floor: core.journal.record().time_floor,
            trusted: config.clock_trusted,
        };
        let mut without = |error: DriverError| {
            broken.get_or_insert(error);
        };
        // Without a root there is nobody to believe: said at once, not at the first order.
        let trust = TrustStore::open(fs.clone(), state)?;
        let _ = trust.load().map_err(|e| without(e.into()));
        let key = config::identity(&*fs, state).unwrap_or_else(|error| {
            without(error.into());
            SecretKey::from_seed(rand::random())
        });
        let client = Client::new(&config.server, config.ca_file.as_deref(), clock)
            .map_err(|e| without(e.into()))
            .ok();
        let client = match (broken, &core.journal.record().phase) {
            (None, _) => client,
            (
                Some(error),
                Phase::Trial { .. } | Phase::Probation { .. } | Phase::Returning { .. },
            ) => {
                let why = log::chain(&error);
                log::line(&format!("{why}; the way back stays open without it"));
                Some(Client::unfit(why))
            }
            (Some(error), _) => return Err(error),
        };
        let client = client.unwrap_or_else(|| Client::unfit("no server is named".into()));
        Ok(Self {
            key,
            core,
            trust,
            client,
            state: state.to_owned(),
            fs,
            config,
            ticket: None,
            counted: Instant::now(),
            switch_by: None,
            healthy: None,
            stopped: None,
            isolated: false,
            abilities: abilities::known(state),
            mirrors: Vec::new(),
            battery: Battery::default(),
            metered: (false, None),
            refused: None,
            restores: None,
            spoken: false,
            hold: Hold::default(),
            asked_s: 0,
            bundle: None,
            cut_off: CutOff::default(),
            control: Arc::new(Control::open(fs::system(), state)),
            together,
            _lock: lock,
        })
    }

    /// What people at the machine may ask, and where.
    pub(crate) fn control(&self) -> (Arc<Control>, PathBuf, Option<String>) {
        let ControlSettings { group, .. } = &self.config.control;
        let place = self.config.control.place(&self.state);
        (self.control.clone(), place, group.clone())
    }

    /// Runs until it is dropped. Returns only when going on would be wrong, and tells the server
    /// why where that can still be done.
    pub async fn run(&mut self) -> Result<(), DriverError> {
        let ended = self.serve().await;
        if let Err(error) = &ended
            && let Some(reason) = error.explained()
        {
            self.refused = Some(reason);
            let _ = tokio::time::timeout(LAST_WORDS, self.check_in(0)).await;
        }
        ended
    }

    async fn serve(&mut self) -> Result<(), DriverError> {
        let agenda = self.core.start()?;
        self.work_off(agenda).await?;
        self.mends_what_runs().await;
        loop {
            self.gets_on();
            self.obey().await?;
            self.count_window().await?;
            self.check_idle().await;
            let began = Instant::now();
            let pause = match self.round().await {
                Ok(pause) => {
                    self.is_reached();
                    self.keeps_a_reserve();
                    self.together.is_heard();
                    jittered(pause)
                }
                Err(RoundError::Fatal(error)) => return Err(error),
                Err(error) if self.was_held(&error, began.elapsed()) => {
                    jittered(Hold::after_loss())
                }
                Err(error) => {
                    let text = log::chain(&error);
                    log::line(&text);
                    self.control.failed(&text);
                    jittered(self.is_cut_off().await)
                }
            };
            self.wait(pause).await?;
        }
    }

    /// Whether a request was lost because the link does not let it be held for so long. Some links drop
    /// every few seconds, and nobody is cut off on them.
    fn was_held(&mut self, error: &RoundError, took: Duration) -> bool {
        let RoundError::Transport(lost @ (TransportError::Broken(_) | TransportError::Timeout)) =
            error
        else {
            return false;
        };
        // Silence may be the server's as well: that is looked into like any other failure.
        let broke = matches!(lost, TransportError::Broken(_));
        self.spoken && self.hold.note_lost(self.asked_s, took) && broke
    }

    /// Does what a person at the machine has asked for.
    async fn obey(&mut self) -> Result<(), DriverError> {
        let phase = &self.journal().record().phase;
        let can = matches!(phase, Phase::Trial { .. } | Phase::Probation { .. });
        if self.control.takes_back() && can {
            let reason = Explained::new(Reason::RollbackOrdered, "by a person at this machine");
            self.handle(Event::Unhealthy(reason)).await?;
        }
        Ok(())
    }

    /// Waits, and counts the window meanwhile: it runs whether the server answers or not.
    async fn wait(&mut self, pause: Duration) -> Result<(), DriverError> {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let slice = match &self.journal().record().phase {
                Phase::Probation { job, .. } => left.min(probation_check(job.window_s)),
                _ => left.min(SIGN_OF_LIFE),
            };
            self.gets_on();
            tokio::select! {
                () = tokio::time::sleep(slice) => {}
                () = self.control.woken() => return Ok(()),
            }
            self.count_window().await?;
        }
    }

    /// Counts the rollback window and checks the health again in it.
    async fn count_window(&mut self) -> Result<(), DriverError> {
        let Phase::Probation { job, elapsed_s, .. } = self.journal().record().phase.clone() else {
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

    /// The journal.
    fn journal(&self) -> &Journal {
        &self.core.journal
    }

    /// Takes an event in and does what it asks for, until nothing more is asked for.
    async fn handle(&mut self, event: Event) -> Result<(), DriverError> {
        self.work_off(Agenda::of(event)).await
    }

    async fn work_off(&mut self, mut agenda: Agenda) -> Result<(), DriverError> {
        let mut told = |phase: &Phase| log::line(&describe(phase));
        while let Some(effect) = self.core.next(&mut agenda, &mut told)? {
            self.says_how_busy();
            agenda.add(self.perform(effect).await?);
        }
        self.says_how_busy();
        Ok(())
    }

    async fn perform(&mut self, effect: Effect) -> Result<Option<Event>, DriverError> {
        Ok(match effect {
            Effect::DropDownload => {
                // What is left is dropped by the next download; it costs space, nothing more.
                if let Err(error) = self.core.download.drop_all() {
                    log::line(&format!("the download folder cannot be emptied: {error}"));
                }
                None
            }
            Effect::Download(job) => Some(self.download(&job).await?),
            Effect::Stage(job) => Some(self.stage(*job).await?),
            // Nothing is under way: what is in use was turned away from by hand.
            Effect::Switch(slot) if self.journal().record().phase == Phase::Idle => {
                self.go_back(Some(slot), true).await?;
                None
            }
            Effect::Switch(slot) => match self.switch(slot).await {
                Ok(activation) => Some(Event::Switched(activation)),
                Err(reason) => Some(Event::Unhealthy(reason)),
            },
            Effect::Restart => {
                self.goes_down()?;
                self.gives_way().await?;
                Some(Event::Unhealthy(self.restart_machine().await))
            }
            Effect::CheckHealth(installed) => match self.prove(&installed).await {
                Ok(()) => {
                    self.runs_again()?;
                    self.counted = Instant::now();
                    Some(Event::Healthy)
                }
                Err(reason) => Some(Event::Unhealthy(reason)),
            },
            Effect::Return(slot) => Some(self.go_back(slot, false).await?),
        })
    }

    /// Says that the driver of the machine's product does not hang.
    fn gets_on(&self) {
        if !self.is_own() {
            service::beat();
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
            self.gets_on();
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
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, TransportError> {
    serde_json::to_vec(value).map_err(|e| TransportError::Malformed(e.to_string()))
}

/// Up to a tenth more, so that a fleet that was switched on together does not stay together.
fn jittered(base: Duration) -> Duration {
    let tenth = u64::try_from(base.as_millis() / 10).unwrap_or(u64::MAX);
    base + Duration::from_millis(rand::random_range(0..=tenth))
}

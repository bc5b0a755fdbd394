//! Driver of the agent: asks the server, steps the state machine, performs its effects, journal
//! first.

mod abilities;
mod acts;
mod back;
mod carried;
pub(crate) mod core;
mod cut_off;
mod error;
mod hold;
mod identity;
mod mirrors;
mod older;
mod open;
mod own;
mod preflight;
mod server;
mod words;
mod work;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_machine::Agenda;
use tidegate_machine::fsm::{Effect, Event, Phase, Record, SlotId};
use tidegate_protocol::{Abilities, Battery, DeploymentId, Explained, Left, Reason, Sha256};
use tidegate_trust::SecretKey;

use self::core::Core;
use crate::fs::Fs;
use crate::fs::journal::{Journal, JournalError};
use crate::host::{service, spare};
use crate::log;
use crate::net::TransportError;
use crate::net::client::Client;
use crate::people::config::Config;
use crate::people::control::{Control, ControlSettings};
use crate::trust::TrustStore;
pub use carried::{CarriedError, export};
use cut_off::CutOff;
pub use error::DriverError;
use error::RoundError;
use hold::{Hold, spread};
pub use own::Together;
use words::describe;

/// Interval between health checks in probation: a tenth of the window, 1 s to 30 s.
fn probation_check(rollback_window_s: u32) -> Duration {
    Duration::from_secs(u64::from((rollback_window_s / 10).clamp(1, 30)))
}

/// Upper bound on an answer, in bytes: the largest is a check-in's with an assignment in it.
const ANSWER: usize = 256 << 10;
const DEADLINE: Duration = Duration::from_secs(30);
/// Interval between check-ins of a busy device.
const SIGN_OF_LIFE: Duration = Duration::from_mins(1);
/// Time that a machine has to go down once it was told to.
const REBOOT: Duration = Duration::from_mins(5);
/// Time that an agent that must end has to say so.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Longest back-off while the server does not answer.
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
    /// Time of the last count of the rollback window.
    counted: Instant,
    /// Deadline for activating the job of a deployment. Not kept across restarts: then only the
    /// server can say whether the window is open.
    switch_by: Option<(DeploymentId, Instant)>,
    /// Result of the last health check, and its time.
    healthy: Option<(Option<bool>, Instant)>,
    /// Time at which the updated software stopped; `None` while it runs.
    stopped: Option<Instant>,
    /// Reason of the last answer if it keeps the device out: it is isolated, or not accepted yet.
    kept_out: Option<Reason>,
    /// Capabilities of this device for payloads.
    abilities: Abilities,
    /// Mirrors as the server last named them.
    named: Vec<String>,
    /// Those of them that are used for payloads, best first.
    mirrors: Vec<String>,
    /// Battery and power as last read.
    battery: Battery,
    /// Whether the link is metered, and when that was last read.
    metered: (bool, Option<Instant>),
    /// Reason why the last assignment was refused, sent with the next check-in.
    refused: Option<Explained>,
    /// The kept image if it is damaged and must be fetched again.
    restores: Option<Sha256>,
    /// Data kept aside from an earlier version.
    left: Option<Left>,
    /// Slot of the version that was staged and verified since this start.
    staged: Option<SlotId>,
    /// Time at which an acknowledged report was last sent again.
    repeated: Option<Instant>,
    /// Whether the server refused a reason that it is too old to know.
    old_server: bool,
    /// Number of check-ins since the start.
    turn: u64,
    /// Whether the server has answered since the start.
    spoken: bool,
    /// Hold time that the link allows.
    hold: Hold,
    /// Poll interval as the server last said it.
    poll: Duration,
    /// Hold time of the request under way, in seconds.
    asked_s: u16,
    /// Folder of a site bundle that stands in for the server; `None` with a network.
    bundle: Option<PathBuf>,
    /// State of an outage of the server.
    cut_off: CutOff,
    /// Requests from people at the machine.
    control: Arc<Control>,
    /// State shared by the drivers of one process.
    together: Arc<Together>,
    _lock: File,
}

impl Driver {
    /// Returns local control with the path of its socket and its group.
    pub(crate) fn control(&self) -> (Arc<Control>, PathBuf, Option<String>) {
        let ControlSettings { group, .. } = &self.config.control;
        let place = self.config.control.place(&self.state);
        (self.control.clone(), place, group.clone())
    }

    /// Runs until it is dropped. Returns only if going on would be wrong, after telling the server
    /// why if it still can.
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
        self.mend_running().await;
        loop {
            self.beat();
            self.obey().await?;
            self.count_window().await?;
            self.check_idle().await;
            let began = Instant::now();
            let pause = match self.round().await {
                Ok(pause) => {
                    self.note_reached();
                    self.keep_reserve();
                    self.together.note_heard();
                    rhythm(pause)
                }
                Err(RoundError::Fatal(error)) => return Err(error),
                Err(error) if self.note_lost_hold(&error, began.elapsed()) => {
                    spread(Hold::after_loss())
                }
                Err(error) => {
                    let text = log::chain(&error);
                    log::line(&text);
                    self.control.failed(&text);
                    spread(self.note_cut_off().await)
                }
            };
            self.wait(pause).await?;
        }
    }

    /// Returns whether a request was lost because the link cannot hold it for that long. Some links drop
    /// every few seconds, and that is not an outage.
    fn note_lost_hold(&mut self, error: &RoundError, took: Duration) -> bool {
        let RoundError::Transport(lost @ (TransportError::Broken(_) | TransportError::Timeout)) =
            error
        else {
            return false;
        };
        // A timeout may be the server's fault as well: it is handled like any other failure.
        let broke = matches!(lost, TransportError::Broken(_));
        self.spoken && self.hold.note_lost(self.asked_s, took) && broke
    }

    /// Carries out a rollback that a person at the machine has asked for.
    async fn obey(&mut self) -> Result<(), DriverError> {
        let phase = &self.journal().record().phase;
        let can = matches!(phase, Phase::Trial { .. } | Phase::Probation { .. });
        if self.control.take_return_order() && can {
            let reason = Explained::new(Reason::RollbackOrdered, "by a person at this machine");
            self.handle(Event::Unhealthy(reason)).await?;
        }
        Ok(())
    }

    /// Waits, and counts the rollback window meanwhile: it runs whether the server answers or not.
    async fn wait(&mut self, pause: Duration) -> Result<(), DriverError> {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let slice = match &self.journal().record().phase {
                Phase::Probation { job, .. } => left.min(probation_check(job.rollback_window_s)),
                _ => left.min(SIGN_OF_LIFE),
            };
            self.beat();
            tokio::select! {
                () = tokio::time::sleep(slice) => {}
                () = self.control.woken() => return Ok(()),
            }
            self.count_window().await?;
        }
    }

    /// Advances the rollback window and repeats the health check in it.
    async fn count_window(&mut self) -> Result<(), DriverError> {
        let Phase::Probation { job, elapsed_s, .. } = self.journal().record().phase.clone() else {
            self.counted = Instant::now();
            return Ok(());
        };
        let passed = self.counted.elapsed();
        let left = Duration::from_secs(u64::from(job.rollback_window_s.saturating_sub(elapsed_s)));
        if passed < probation_check(job.rollback_window_s).min(left) {
            return Ok(());
        }
        self.counted = Instant::now();
        spare::give_up();
        let checked = self.check_health(&job.target).await;
        spare::keep();
        // Rounded down: the window is never shorter than promised.
        let seconds = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        let is_last = elapsed_s.saturating_add(seconds) >= job.rollback_window_s;
        if let Err(reason) = checked {
            // A check that could not be started is no verdict: it is tried until the window ends, and a version
            // that was never seen well again by then does not stay, but is not blamed.
            if is_last || !reason.code.is_of_the_place() {
                return self.handle(Event::Unhealthy(reason)).await;
            }
            log::line(&format!("in the rollback window: {reason}"));
        }
        let rest = passed.saturating_sub(Duration::from_secs(u64::from(seconds)));
        self.counted = self.counted.checked_sub(rest).unwrap_or(self.counted);
        self.handle(Event::WindowPassed(seconds)).await
    }

    /// The journal.
    fn journal(&self) -> &Journal {
        &self.core.journal
    }

    /// Writes the journal; with the open files in reserve while there is a version to go back from.
    fn write(&mut self, record: Record) -> Result<(), JournalError> {
        let held = record.phase != Phase::Idle && spare::give_up();
        let written = self.core.journal.write(record);
        if held {
            spare::keep();
        }
        written
    }

    /// Processes an event and performs its effects, until there are none left.
    async fn handle(&mut self, event: Event) -> Result<(), DriverError> {
        self.work_off(Agenda::of(event)).await
    }

    async fn work_off(&mut self, mut agenda: Agenda) -> Result<(), DriverError> {
        let mut told = |phase: &Phase| log::line(&describe(phase));
        // The journal, a check and the way back get open files even where none are to be had.
        spare::give_up();
        while let Some(effect) = self.core.next(&mut agenda, &mut told)? {
            self.report_load();
            agenda.add(self.perform(effect).await?);
        }
        spare::keep();
        self.report_load();
        Ok(())
    }

    async fn perform(&mut self, effect: Effect) -> Result<Option<Event>, DriverError> {
        Ok(match effect {
            Effect::DropDownload => {
                self.drop_download();
                None
            }
            Effect::GiveBack(job) => {
                self.give_back(&job).await?;
                None
            }
            Effect::Download(job) => Some(self.download(&job).await?),
            Effect::Stage(job) => Some(self.stage(*job).await?),
            // No update is under way: somebody changed the slot in use by hand.
            Effect::Switch(slot) if self.journal().record().phase == Phase::Idle => {
                self.go_back(Some(slot), true).await?;
                None
            }
            Effect::Switch(slot) => match self.switch(slot).await {
                Ok(activation) => Some(Event::Switched(activation)),
                Err(reason) => Some(Event::Unhealthy(reason)),
            },
            Effect::Restart => {
                self.shut_down()?;
                self.give_way().await?;
                Some(Event::Unhealthy(self.restart_machine().await))
            }
            Effect::CheckHealth(installed) => match self.prove(&installed).await {
                Ok(()) => {
                    self.note_running()?;
                    self.counted = Instant::now();
                    Some(Event::Healthy)
                }
                Err(reason) => Some(Event::Unhealthy(reason)),
            },
            Effect::Return(slot) => Some(self.go_back(slot, false).await?),
        })
    }

    /// Signals that the driver of the machine's product makes progress.
    fn beat(&self) {
        if !self.is_own() {
            service::beat();
        }
    }

    /// Checks in now and then while long work runs: a device that takes an update and is not heard
    /// from counts as silent. Orders in the answers wait until the work is done.
    async fn alive<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(SIGN_OF_LIFE) => {}
            }
            self.beat();
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

/// Spreads a pause before the next round. A short one follows an instant that a whole fleet shares, the
/// release of its holds.
fn rhythm(pause: Duration) -> Duration {
    if pause < SIGN_OF_LIFE / 2 {
        spread(pause)
    } else {
        jittered(pause)
    }
}

/// Adds up to a tenth, so that a fleet that was switched on together does not stay in step.
fn jittered(base: Duration) -> Duration {
    let tenth = u64::try_from(base.as_millis() / 10).unwrap_or(u64::MAX);
    base + Duration::from_millis(rand::random_range(0..=tenth))
}

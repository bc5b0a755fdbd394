//! Local control: requests that root, the agent's own user and the members of one group may send to
//! a running agent, over a socket in its folder. One line of JSON in, one out.
//!
//! Access is up to the file system: mode 0660, or 0600 without a group. On Windows it is a named
//! pipe, which administrators and the service's own user may write to.

#[cfg(windows)]
mod pipe;
#[cfg(unix)]
mod socket;
mod talk;
mod words;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidegate_machine::fsm::Phase;
use tidegate_protocol::{Explained, Reason};
use tokio::sync::Notify;

use super::standing::Standing;
use crate::fs::{Fs, Mode, journal};
use crate::host::platform;
use crate::log;
pub(crate) use talk::{ask, serve};
pub(crate) use words::{Ask, Live, MAX_PAUSE_S, Reply};

/// Deadline of one request.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct State {
    live: Live,
    heard: Option<Instant>,
    /// End of the pause, in seconds since the epoch.
    paused: Option<i64>,
    back: bool,
    check: bool,
}

/// State shared by the socket and the driver.
pub(crate) struct Control {
    fs: Arc<dyn Fs>,
    folder: PathBuf,
    state: Mutex<State>,
    wake: Notify,
}

impl Control {
    /// Opens the control of a state directory; a pause outlives the process.
    pub(crate) fn open(fs: Arc<dyn Fs>, folder: &Path) -> Self {
        let control = Self {
            fs,
            folder: folder.to_owned(),
            state: Mutex::default(),
            wake: Notify::new(),
        };
        let text = control.fs.read(&control.pause_file(), 32);
        let until = text.ok().flatten().and_then(|bytes| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.trim().parse().ok()
        });
        let mut state = control.lock();
        state.paused = until;
        state.live.pid = std::process::id();
        drop(state);
        control
    }

    fn pause_file(&self) -> PathBuf {
        self.folder.join("paused")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when somebody has asked for something that needs the driver.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Reason why nothing may be started, while a pause lasts.
    pub(crate) fn paused(&self) -> Option<Explained> {
        let left = self.paused_s()?;
        let text = format!("for {left} s, by a person at this machine");
        Some(Explained::new(Reason::PausedOnDevice, text))
    }

    fn paused_s(&self) -> Option<u64> {
        let until = self.lock().paused?;
        let left = until.saturating_sub(platform::now().as_secs());
        // Setting the clock back must not stretch a pause beyond the maximum.
        u64::try_from(left)
            .ok()
            .filter(|left| *left > 0)
            .map(|left| left.min(MAX_PAUSE_S))
    }

    /// Takes a person's request to roll back: true once per request.
    pub(crate) fn take_return_order(&self) -> bool {
        std::mem::take(&mut self.lock().back)
    }

    /// Takes a person's request to check in at once: true once per request.
    pub(crate) fn take_check_order(&self) -> bool {
        std::mem::take(&mut self.lock().check)
    }

    /// Records an answer from the server.
    pub(crate) fn heard(&self, reason: &Explained) {
        let mut state = self.lock();
        state.heard = Some(Instant::now());
        state.live.said = Some(reason.to_string());
        state.live.error = None;
    }

    /// Records a failed request to the server.
    pub(crate) fn failed(&self, error: &str) {
        self.lock().live.error = Some(error.to_owned());
    }

    /// Records what the update waits for; `None` when it goes on.
    pub(crate) fn waits(&self, why: Option<&Explained>) {
        self.lock().live.waits = why.map(ToString::to_string);
    }

    /// Records the phase, which decides whether a rollback is possible.
    pub(crate) fn stands(&self, phase: &Phase) {
        self.lock().live.can_return =
            matches!(phase, Phase::Trial { .. } | Phase::Probation { .. });
    }

    fn live(&self) -> Live {
        let paused_s = self.paused_s();
        let state = self.lock();
        Live {
            heard_s: state.heard.map(|at| at.elapsed().as_secs()),
            paused_s,
            ..state.live.clone()
        }
    }

    fn pause(&self, until: Option<i64>) -> io::Result<()> {
        match until {
            Some(until) => {
                let text = format!("{until}\n");
                self.fs
                    .replace(&self.pause_file(), text.as_bytes(), Mode::Plain)?;
            }
            None => self.fs.remove_if_there(&self.pause_file())?,
        }
        self.lock().paused = until;
        Ok(())
    }

    fn answer(&self, ask: Ask) -> Reply {
        let (ok, text) = match ask {
            Ask::Status => (true, String::new()),
            Ask::CheckNow => {
                self.lock().check = true;
                (true, "checking in with the server now".into())
            }
            Ask::Pause { seconds } if seconds == 0 || seconds > MAX_PAUSE_S => {
                (false, format!("a pause must last 1 to {MAX_PAUSE_S} s"))
            }
            Ask::Pause { seconds } => {
                let seconds = i64::try_from(seconds).unwrap_or(0);
                let until = platform::now().as_secs().saturating_add(seconds);
                match self.pause(Some(until)) {
                    Ok(()) => (true, format!("begins nothing for {seconds} s")),
                    Err(error) => (false, format!("the pause cannot be saved: {error}")),
                }
            }
            Ask::Resume => match self.pause(None) {
                Ok(()) => (true, "goes on".into()),
                Err(error) => (false, format!("the pause cannot be ended: {error}")),
            },
            Ask::Rollback => {
                let mut state = self.lock();
                if state.live.can_return {
                    state.back = true;
                    (true, "rolling back to the previous version".into())
                } else {
                    let text = "no rollback window is open on this machine; order the \
                                rollback at the server: tidegate rollback";
                    (false, text.into())
                }
            }
        };
        if ok && ask != Ask::Status {
            log::line(&format!("asked by a person at this machine: {ask:?}"));
            // The notification is kept until the driver looks, whatever it is doing now.
            self.wake.notify_one();
        }
        let standing = (ask == Ask::Status).then(|| self.standing()).flatten();
        Reply {
            ok,
            text,
            live: self.live(),
            standing,
        }
    }

    fn standing(&self) -> Option<Standing> {
        let journal = journal::open_enrolled(self.fs.clone(), &self.folder).ok()?;
        Some(Standing::of(journal.record(), None))
    }
}

/// Settings of local control.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlSettings {
    /// Path of the socket; `control.sock` in the agent's folder by default.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Group whose members have access, besides root and the agent's own user.
    #[serde(default)]
    pub group: Option<String>,
}

impl ControlSettings {
    pub(crate) fn place(&self, state: &Path) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| state.join("control.sock"))
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::fs::Real;

    async fn with_agent<T: Send + 'static>(
        control: Arc<Control>,
        at: PathBuf,
        ask: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> T {
        let asked = {
            let at = at.clone();
            async move {
                while !at.exists() {
                    tokio::task::yield_now().await;
                }
                tokio::task::spawn_blocking(move || ask(&at)).await.unwrap()
            }
        };
        tokio::select! {
            ended = serve(control, &at, None) => panic!("it does not listen: {ended:?}"),
            said = asked => said,
        }
    }

    #[tokio::test]
    async fn a_person_pauses_and_resumes_and_is_told_what_cannot_be() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("control.sock");
        let control = Arc::new(Control::open(Arc::new(Real), dir.path()));
        let replies = with_agent(control.clone(), at.clone(), |at| {
            [
                Ask::Status,
                Ask::Rollback,
                Ask::Pause {
                    seconds: MAX_PAUSE_S + 1,
                },
                Ask::Pause { seconds: 600 },
            ]
            .map(|what| ask(at, what).unwrap())
        })
        .await;
        assert_eq!(
            replies.each_ref().map(|reply| reply.ok),
            [true, false, false, true]
        );
        assert!(replies[1].text.contains("tidegate rollback"));
        let mode = std::fs::metadata(&at).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let left = replies[3].live.paused_s.unwrap();
        assert!((590..=600).contains(&left), "{left}");
        assert_eq!(control.paused().unwrap().code, Reason::PausedOnDevice);
        // It outlives the process, and the driver was woken.
        control.woken().await;
        let again = Arc::new(Control::open(Arc::new(Real), dir.path()));
        assert!(again.paused().is_some());
        let at_other = dir.path().join("other.sock");
        let resumed = with_agent(again.clone(), at_other, |at| ask(at, Ask::Resume).unwrap());
        assert!(resumed.await.ok);
        assert!(again.paused().is_none());
    }

    #[tokio::test]
    async fn rubbish_is_refused_and_a_rollback_needs_a_window() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("control.sock");
        let control = Arc::new(Control::open(Arc::new(Real), dir.path()));
        control.lock().live.can_return = true;
        let said = with_agent(control.clone(), at, |at| {
            let mut stream = std::os::unix::net::UnixStream::connect(at).unwrap();
            stream
                .write_all(b"{\"ask\":\"format_the_disk\"}\n")
                .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(ask(at, Ask::Rollback).unwrap().ok);
            text
        })
        .await;
        assert!(said.contains("invalid request"), "{said}");
        assert!(control.take_return_order());
        assert!(!control.take_return_order());
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_pause_longer() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("paused"), "99999999999\n").unwrap();
        let control = Control::open(Arc::new(Real), dir.path());
        assert_eq!(control.paused_s(), Some(MAX_PAUSE_S));
        std::fs::write(dir.path().join("paused"), "rubbish").unwrap();
        let control = Control::open(Arc::new(Real), dir.path());
        assert_eq!(control.paused_s(), None);
    }
}

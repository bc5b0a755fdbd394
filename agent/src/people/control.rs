//! Local control: requests that root, the agent's own user and the members of one group may send to
//! a running agent, over a socket in its folder. One line of JSON in, one out.
//!
//! Access is up to the file system: mode 0660, or 0600 without a group. On Windows it is a named
//! pipe, which administrators and the service's own user may write to.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidegate_machine::fsm::Phase;
use tidegate_protocol::{Explained, Reason};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::standing::Standing;
use crate::fs::journal;
use crate::fs::{Fs, Mode};
use crate::host::platform;
use crate::log;

/// Longest pause, in seconds: a machine that was paused and forgotten gets updates again.
pub(crate) const MAX_PAUSE_S: u64 = 7 * 86_400;
/// Upper bound on the length of a line, in bytes.
const LINE: u64 = 64 << 10;
/// Deadline of one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Upper bound on concurrent requests.
const AT_ONCE: usize = 8;

/// A request from a person at the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Report the status.
    Status,
    /// Ask the server now.
    CheckNow,
    /// Start no update for this long; a rollback stays possible.
    Pause {
        /// Length of the pause in seconds, at most [`MAX_PAUSE_S`].
        seconds: u64,
    },
    /// End a pause.
    Resume,
    /// Roll back to the previous version, within its rollback window.
    Rollback,
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Whether the request was carried out or accepted.
    pub(crate) ok: bool,
    /// Message for the person who asked.
    pub(crate) text: String,
    /// State of the running agent.
    pub(crate) live: Live,
    /// State of the device, for users who may not read its journal; only with [`Ask::Status`].
    #[serde(default)]
    pub(crate) standing: Option<Standing>,
}

/// State that only a running agent knows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Live {
    /// Process id of the agent.
    pub(crate) pid: u32,
    /// Seconds since the server last answered; `None` before its first answer.
    pub(crate) heard_s: Option<u64>,
    /// Reason in the server's last answer, such as why there is nothing to do.
    pub(crate) said: Option<String>,
    /// Error of the last request to the server; `None` if it was answered.
    pub(crate) error: Option<String>,
    /// Condition that the update under way waits for.
    pub(crate) waits: Option<String>,
    /// Seconds left of the pause.
    pub(crate) paused_s: Option<u64>,
    /// Whether [`Ask::Rollback`] is possible now.
    pub(crate) can_return: bool,
}

#[derive(Debug, Default)]
struct State {
    live: Live,
    heard: Option<Instant>,
    /// End of the pause, in seconds since the epoch.
    paused: Option<i64>,
    back: bool,
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
            Ask::CheckNow => (true, "checking in with the server now".into()),
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

    async fn talk(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut line = Vec::new();
        let mut byte = [0];
        // Read one line only: the client keeps its side open until it has the answer.
        while stream.read(&mut byte).await? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
            if line.len() as u64 > LINE {
                return Err(io::Error::other("line too long"));
            }
        }
        let reply = match serde_json::from_slice(&line) {
            Ok(ask) => self.answer(ask),
            Err(error) => Reply {
                ok: false,
                text: format!("invalid request: {error}"),
                live: self.live(),
                standing: None,
            },
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        stream.write_all(&text).await?;
        stream.shutdown().await
    }

    async fn talk_briefly(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let talked = tokio::time::timeout(PATIENCE, self.talk(stream)).await;
        if let Ok(Err(error)) = talked {
            log::line(&format!("local control: {error}"));
        }
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

/// Serves the socket for as long as it is polled; returns only on an error.
pub(crate) async fn serve(
    control: Arc<Control>,
    at: &Path,
    group: Option<&str>,
) -> io::Result<std::convert::Infallible> {
    let permits = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut door = door::open(at, group)?;
    loop {
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let stream = door::next(&mut door, at).await?;
        let control = control.clone();
        tokio::spawn(async move {
            control.talk_briefly(stream).await;
            drop(permit);
        });
    }
}

/// Sends a request to a running agent.
pub(crate) fn ask(at: &Path, ask: Ask) -> io::Result<Reply> {
    let mut stream = door::knock(at)?;
    let mut line = serde_json::to_vec(&ask)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut text = Vec::new();
    stream.take(LINE).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(unix)]
mod door {
    use std::io;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use tokio::net::{UnixListener, UnixStream};

    use super::PATIENCE;
    use crate::host::platform;

    /// Binds under a random name and renames it once its mode and group are set.
    pub(super) fn open(at: &Path, group: Option<&str>) -> io::Result<UnixListener> {
        let name = format!(".c{:x}", rand::random::<u32>());
        let hidden = at.with_file_name(name);
        let listener = UnixListener::bind(&hidden)?;
        let ready = || {
            let mode = if group.is_some() { 0o660 } else { 0o600 };
            std::fs::set_permissions(&hidden, PermissionsExt::from_mode(mode))?;
            if let Some(group) = group {
                let id = platform::group_id(group)?;
                std::os::unix::fs::chown(&hidden, None, Some(id))?;
            }
            std::fs::rename(&hidden, at)
        };
        ready().inspect_err(|_| {
            let _ = std::fs::remove_file(&hidden);
        })?;
        Ok(listener)
    }

    pub(super) async fn next(door: &mut UnixListener, _: &Path) -> io::Result<UnixStream> {
        door.accept().await.map(|(stream, _)| stream)
    }

    pub(super) fn knock(at: &Path) -> io::Result<std::os::unix::net::UnixStream> {
        let stream = std::os::unix::net::UnixStream::connect(at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

#[cfg(windows)]
mod door {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};

    /// Derives a name from the path: pipes do not live in folders.
    fn name(at: &Path) -> String {
        let id = tidegate_delta::sha256(at.to_string_lossy().to_lowercase().as_bytes());
        format!(r"\\.\pipe\tidegate-agent-{id}")
    }

    fn make(at: &Path, first: bool) -> io::Result<NamedPipeServer> {
        ServerOptions::new()
            .first_pipe_instance(first)
            .reject_remote_clients(true)
            .create(name(at))
    }

    /// The default rights of a pipe let administrators and its owner write, everybody else read.
    pub(super) fn open(at: &Path, _: Option<&str>) -> io::Result<NamedPipeServer> {
        make(at, true)
    }

    pub(super) async fn next(door: &mut NamedPipeServer, at: &Path) -> io::Result<NamedPipeServer> {
        door.connect().await?;
        Ok(std::mem::replace(door, make(at, false)?))
    }

    pub(super) fn knock(at: &Path) -> io::Result<File> {
        File::options().read(true).write(true).open(name(at))
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
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

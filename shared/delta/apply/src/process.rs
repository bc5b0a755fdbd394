//! A decoder's process, as its user sees it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_delta::{ApplyError, Conversation, ReadAt, Remote, Sink, Task};

/// Time that a decoder may take between two words: some megabytes are decoded within, and a machine
/// that is busy with other things has to get round to it.
const QUIET: Duration = Duration::from_mins(10);
/// Interval between looks at a decoder's memory, where the system does not bound it: no more than
/// some megabytes are allocated within.
const LOOK: Duration = Duration::from_millis(100);

/// A decoder's process. Dropping it ends the process.
pub(crate) struct Process<'a> {
    talk: Conversation<'a, BufReader<Heard>, ChildStdin>,
    watched: Arc<Watched>,
    watch: Option<JoinHandle<()>>,
}

/// A process and the last time that it was heard.
struct Watched {
    state: Mutex<State>,
    over: Condvar,
}

struct State {
    child: Child,
    heard: Instant,
    /// Whether it has said anything.
    speaks: bool,
    over: bool,
    /// Reason why the watch ended it.
    ended: Option<&'static str>,
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a process that is silent for too long, or takes too much memory.
    fn watch(&self, memory: u64) {
        let mut state = self.state();
        while !state.over {
            let left = (state.heard + QUIET).saturating_duration_since(Instant::now());
            let too_large = is_too_large(&state.child, memory);
            if left.is_zero() || too_large {
                state.ended = Some(if too_large {
                    "its decoder takes more memory than allowed"
                } else {
                    "its decoder makes no progress"
                });
                // It may have ended by itself.
                let _ = state.child.kill();
                return;
            }
            let left = if cfg!(windows) { left.min(LOOK) } else { left };
            let waited = self.over.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(windows)]
fn is_too_large(child: &Child, memory: u64) -> bool {
    use winsafe::{HPROCESS, co};
    let process = HPROCESS::OpenProcess(co::PROCESS::QUERY_LIMITED_INFORMATION, false, child.id());
    let counters = process.and_then(|process| process.GetProcessMemoryInfo());
    let most = memory.saturating_add(crate::bounds::BESIDE);
    counters.is_ok_and(|counters| counters.PrivateUsage as u64 > most)
}

#[cfg(not(windows))]
fn is_too_large(_: &Child, _: u64) -> bool {
    false
}

/// Output of a process, which notes when something of it was read.
struct Heard {
    from: ChildStdout,
    watched: Arc<Watched>,
}

impl Read for Heard {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buf)?;
        let mut state = self.watched.state();
        state.heard = Instant::now();
        state.speaks |= read > 0;
        Ok(read)
    }
}

impl<'a> Process<'a> {
    pub(crate) fn start(
        program: &Path,
        task: &Task,
        old: Option<&'a dyn ReadAt>,
        scratch: Option<&File>,
    ) -> Result<Self, ApplyError> {
        let scratch = match scratch {
            Some(file) => file.try_clone().map_err(ApplyError::Scratch)?.into(),
            None => Stdio::null(),
        };
        Self::begin(program, task, old, scratch).map_err(ApplyError::NoDecoder)
    }

    fn begin(
        program: &Path,
        task: &Task,
        old: Option<&'a dyn ReadAt>,
        scratch: Stdio,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command
            .arg(crate::ARGUMENT)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(scratch);
        if cfg!(unix) {
            // It keeps no file system busy.
            command.current_dir("/");
        }
        // Without it, libraries of Windows do not start.
        if let Some(root) = std::env::var_os("SystemRoot") {
            command.env("SystemRoot", root);
        }
        let mut child = command.spawn()?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let (to, from) = to.zip(from).ok_or(io::ErrorKind::BrokenPipe)?;
        let watched = Arc::new(Watched {
            state: Mutex::new(State {
                child,
                heard: Instant::now(),
                speaks: false,
                over: false,
                ended: None,
            }),
            over: Condvar::new(),
        });
        let memory = task.memory();
        let heard = Heard {
            from,
            watched: watched.clone(),
        };
        let from = BufReader::with_capacity(64 << 10, heard);
        let mut process = Self {
            talk: Conversation::begin(from, to, task, old)?,
            watched: watched.clone(),
            watch: None,
        };
        let watch = std::thread::Builder::new().stack_size(64 << 10);
        process.watch = Some(watch.spawn(move || watched.watch(memory))?);
        Ok(process)
    }

    /// Finds out why the process no longer speaks, or speaks nonsense: its payload is to blame,
    /// unless somebody else has ended it.
    fn blame(&self, error: ApplyError) -> ApplyError {
        let ApplyError::NoDecoder(error) = error else {
            return error;
        };
        let mut state = self.watched.state();
        if let Some(why) = state.ended {
            return ApplyError::Decode(why.into());
        }
        if error.kind() == io::ErrorKind::InvalidData {
            return ApplyError::Decode("its decoder is not understood".into());
        }
        // One that has closed its output is about to end, or is no decoder.
        let _ = state.child.kill();
        match state.child.wait() {
            // Each decoder begins by asking for the payload.
            Ok(status) if !state.speaks || is_ended_by_others(status) => {
                ApplyError::NoDecoder(io::Error::other(status.to_string()))
            }
            Ok(status) => ApplyError::Decode(format!("its decoder ended: {status}").into()),
            Err(error) => ApplyError::NoDecoder(error),
        }
    }
}

/// Whether a process was ended from outside: by people, or for want of memory of the machine.
#[cfg(unix)]
fn is_ended_by_others(status: ExitStatus) -> bool {
    use rustix::process::Signal;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let others = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP];
    signal.is_some_and(|signal| others.iter().any(|other| other.as_raw() == signal))
}

#[cfg(not(unix))]
fn is_ended_by_others(_: ExitStatus) -> bool {
    false
}

impl Remote for Process<'_> {
    fn push(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<(), ApplyError> {
        let pushed = self.talk.push(bytes, sink);
        pushed.map_err(|error| self.blame(error))
    }

    fn finish(&mut self, sink: &mut dyn Sink) -> Result<(), ApplyError> {
        let finished = self.talk.finish(sink);
        finished.map_err(|error| self.blame(error))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        self.watched.state().over = true;
        self.watched.over.notify_all();
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
    }
}

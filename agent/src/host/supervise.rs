//! Supervision of a child process: start, listen, stop. A Windows service runs the agent or its
//! guard this way, because Windows does not keep a program's output.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Size at which a log is rotated, in bytes; one older log is kept.
const LOG: u64 = 1 << 20;
/// Upper bound on the length of a line, in bytes.
const LINE: u64 = 16 << 10;
/// Polling interval of the process.
const LOOK: Duration = Duration::from_millis(200);
/// Time that a process has to end once asked to; the service manager waits 30 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// A log in a file, each line with its time (UTC); never larger than [`LOG`].
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl LogFile {
    /// Opens the log, appending to an existing one.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            length: file.metadata()?.len(),
            file,
        })
    }

    /// Writes a line; a failure to write is ignored.
    pub(crate) fn line(&mut self, text: &str) {
        let _ = self.try_line(text);
    }

    fn try_line(&mut self, text: &str) -> io::Result<()> {
        let line = format!("{:.0} {}\n", jiff::Timestamp::now(), text.trim_end());
        let length = line.len() as u64;
        if self.length > 0 && self.length + length > LOG {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(line.as_bytes())?;
        self.length += length;
        Ok(())
    }
}

/// Keeps a program running and logs its output, until `stop` says so or is disconnected: then its
/// standard input is closed, and it is killed if it does not end in time. A program that exits by
/// itself is started again after a pause.
pub(crate) fn supervise(
    command: &mut Command,
    log: &Mutex<LogFile>,
    pause: Duration,
    stop: &Receiver<()>,
) {
    let say = |text: &str| {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.line(text);
    };
    loop {
        match run_once(command, stop, &say) {
            Ok(None) => return,
            Ok(Some(status)) => say(&format!("service: the process ended: {status}")),
            Err(error) => {
                let program = Path::new(command.get_program());
                say(&format!("service: {}: {error}", program.display()));
            }
        }
        if stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Runs the program once and returns its exit status; `None` if it was asked to stop.
fn run_once(
    command: &mut Command,
    stop: &Receiver<()>,
    say: &(impl Fn(&str) + Sync),
) -> io::Result<Option<ExitStatus>> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let input = child.stdin.take();
    let said = child.stderr.take();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut said = said.map(BufReader::new);
            let mut line = Vec::new();
            while let Some(said) = &mut said
                && said
                    .take(LINE)
                    .read_until(b'\n', &mut line)
                    .is_ok_and(|n| n > 0)
            {
                say(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        let ended = watch(&mut child, stop);
        drop(input);
        if ended.is_none() {
            end(&mut child)?;
        }
        Ok(ended)
    })
}

/// Waits for the process to exit by itself; `None` if it is to be stopped.
fn watch(child: &mut Child, stop: &Receiver<()>) -> Option<ExitStatus> {
    loop {
        match stop.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {
                if let Ok(Some(status)) = child.try_wait() {
                    return Some(status);
                }
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

fn end(child: &mut Child) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn one_that_ends_by_itself_is_started_again_and_what_it_says_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let again = dir.path().join("again");
        let (ask, stop) = mpsc::channel();
        // The second one says that it is there, and stays until its input ends.
        let text = format!(
            "if mkdir {0} 2>/dev/null; then echo one >&2; exit 3; fi; echo two >&2; rm -r {0}; cat; echo end >&2",
            again.display()
        );
        let log = Mutex::new(LogFile::open(&path).unwrap());
        std::thread::scope(|scope| {
            let (log, text) = (&log, &text);
            scope.spawn(move || supervise(&mut shell(text), log, Duration::ZERO, &stop));
            while !std::fs::read_to_string(&path).is_ok_and(|said| said.contains("two")) {
                std::thread::yield_now();
            }
            ask.send(()).unwrap();
        });
        let said = read(&path);
        let said: Vec<&str> = said
            .lines()
            .filter_map(|line| Some(line.split_once("Z ")?.1))
            .collect();
        let ended = "service: the process ended: exit status: 3";
        assert_eq!(said, ["one", ended, "two", "end"]);
    }

    #[test]
    fn one_that_cannot_be_started_is_told_and_tried_until_it_is_not_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let (ask, stop) = mpsc::channel();
        ask.send(()).unwrap();
        let log = Mutex::new(LogFile::open(&path).unwrap());
        supervise(&mut Command::new("/nowhere"), &log, Duration::MAX, &stop);
        assert!(read(&path).contains("service: /nowhere: "));
    }

    #[test]
    fn a_log_gives_way_before_it_is_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        std::fs::write(&path, vec![b'.'; usize::try_from(LOG).unwrap()]).unwrap();
        let mut log = LogFile::open(&path).unwrap();
        log.line("after");
        log.line("it");
        assert_eq!(read(&path).lines().count(), 2);
        assert_eq!(read(&dir.path().join("agent.log.1")).len() as u64, LOG);
    }
}

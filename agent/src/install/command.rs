//! Commands of the owner's, run to their end or their deadline.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tidegate_trust::Health;

/// How much of what a command says is kept, in bytes.
const KEEP: usize = 2_000;
/// How long a command that has ended may take to hand over what it said: a child of its own may
/// keep the pipe open for ever.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked at.
const TICK: Duration = Duration::from_millis(20);

/// A command, how it is called and how long it may take.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub(crate) line: &'a Health,
    /// Arguments behind those of the line.
    pub(crate) arguments: &'a [&'a str],
    pub(crate) folder: &'a Path,
    pub(crate) environment: &'a [(&'a str, String)],
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As it should; what it said on standard output.
    Well(String),
    /// With an error; what it said on standard error.
    Badly(String),
    /// Not at all: it and its whole process group were killed.
    Late,
}

/// Whether a program can be started by this name from a folder: below it, by its whole path, or
/// from PATH.
pub(crate) fn is_there(program: &str, folder: &Path) -> bool {
    if program.is_empty() {
        return false;
    }
    if folder.join(program).is_file() {
        return true;
    }
    let bare = Path::new(program).components().count() == 1;
    let folders = std::env::var_os("PATH").unwrap_or_default();
    bare && std::env::split_paths(&folders).any(|folder| {
        let path = folder.join(program);
        path.is_file() || path.with_extension("exe").is_file()
    })
}

impl Call<'_> {
    /// Runs it. A program below the folder is that program, whatever stands in PATH.
    pub(crate) fn run(&self) -> Ended {
        let Some((program, arguments)) = self.line.command.split_first() else {
            return Ended::Well(String::new());
        };
        let inside = self.folder.join(program);
        let program = if inside.is_file() {
            inside
        } else {
            program.into()
        };
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .args(self.arguments)
            .current_dir(self.folder)
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            // What a command starts is not this service, and speaks for itself.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let deadline = Instant::now() + Duration::from_secs(u64::from(self.line.timeout_s.max(1)));
        loop {
            match command.spawn() {
                Ok(child) => return wait(child, deadline),
                // The machine has no room for one more process just now: not the command's fault.
                Err(error) if is_for_now(&error) && Instant::now() < deadline => {
                    std::thread::sleep(TICK);
                }
                Err(error) => {
                    let what = format!("{} does not start: {error}", program.display());
                    return Ended::Badly(what);
                }
            }
        }
    }
}

/// Waits for the end of a command, or for its deadline.
fn wait(mut child: Child, deadline: Instant) -> Ended {
    let said = child.stdout.take().map(listen);
    let complained = child.stderr.take().map(listen);
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ended::Well(heard(said.as_ref())),
            Ok(Some(status)) => {
                let said = format!("{status}: {}", heard(complained.as_ref()));
                return Ended::Badly(said.trim_end_matches([' ', ':']).to_owned());
            }
            Ok(None) if Instant::now() < deadline => std::thread::sleep(TICK),
            Ok(None) => {
                kill_group(&mut child);
                return Ended::Late;
            }
            Err(error) => {
                kill_group(&mut child);
                return Ended::Badly(error.to_string());
            }
        }
    }
}

/// What a command says: a part at a time, as far as it is kept; the end is the end of the channel.
fn listen(mut pipe: impl std::io::Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (hand_over, take) = mpsc::channel();
    let listener = std::thread::Builder::new().spawn(move || {
        let mut part = [0; 1024];
        let mut kept = 0;
        // To its end: a full pipe would hang the command.
        while let Ok(read) = pipe.read(&mut part)
            && read > 0
        {
            let keep = read.min(KEEP - kept);
            kept += keep;
            if keep > 0 && hand_over.send(part[..keep].to_vec()).is_err() {
                kept = KEEP;
            }
        }
    });
    // Without a thread nothing is heard; what the command does counts all the same.
    drop(listener);
    take
}

/// All that a command has said, also where a child of its own keeps the pipe open.
fn heard(from: Option<&mpsc::Receiver<Vec<u8>>>) -> String {
    let until = Instant::now() + GRACE;
    let mut text = Vec::new();
    while let Some(from) = from
        && let Ok(part) = from.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        text.extend(part);
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

fn is_for_now(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{OutOfMemory, WouldBlock};
    matches!(error.kind(), WouldBlock | OutOfMemory)
}

/// Kills a command and all that it has started.
fn kill_group(child: &mut Child) {
    #[cfg(unix)]
    {
        let leader = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(leader) = leader {
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, timeout_s: u32) -> Ended {
        let line = Health {
            command: vec!["sh".into(), "-c".into(), script.into()],
            timeout_s,
        };
        let folder = tempfile::tempdir().unwrap();
        let call = Call {
            line: &line,
            arguments: &[],
            folder: folder.path(),
            environment: &[("TIDEGATE_SLOT", "b".into())],
        };
        call.run()
    }

    #[test]
    fn the_exit_status_is_the_verdict_and_what_it_said_the_particulars() {
        assert_eq!(run("echo $TIDEGATE_SLOT", 5), Ended::Well("b".into()));
        let Ended::Badly(text) = run("echo broken >&2; exit 3", 5) else {
            panic!("it failed");
        };
        assert!(text.contains("broken"), "{text}");
    }

    #[test]
    fn a_child_that_lives_on_does_not_hold_its_parent_up() {
        assert_eq!(
            run("sleep 600 >/dev/null 2>&1 & echo done", 60),
            Ended::Well("done".into())
        );
    }

    #[test]
    fn what_was_said_counts_though_a_child_keeps_the_pipe_open() {
        assert_eq!(run("echo a; sleep 600 &", 60), Ended::Well("a".into()));
    }

    #[test]
    fn a_flood_of_words_neither_hangs_it_nor_fills_the_memory() {
        let Ended::Well(text) = run("yes | head -c 1000000", 30) else {
            panic!("it ends");
        };
        assert!(text.len() <= 2_000);
    }

    #[test]
    fn what_never_ends_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("pid");
        let script = format!("sh -c 'echo $$ > {}; exec sleep 600'; true", mark.display());
        assert_eq!(run(&script, 1), Ended::Late);
        let pid: i32 = std::fs::read_to_string(&mark)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        // The grandchild was in the group: it ends, at most as a zombie that init will collect.
        let begun = Instant::now();
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            if stat.map_or(true, |text| text.contains(" Z ")) {
                break;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "process {pid} lives on"
            );
            std::thread::yield_now();
        }
    }
}

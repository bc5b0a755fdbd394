//! Commands of the owner's, run to their end or their deadline.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tidegate_trust::Health;

/// How much of what a command says is kept, in bytes.
const KEEP: u64 = 2_000;
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
        match command.spawn() {
            Ok(child) => self.wait(child),
            Err(error) => Ended::Badly(format!("{} does not start: {error}", program.display())),
        }
    }

    fn wait(&self, mut child: Child) -> Ended {
        let said = child.stdout.take().map(listen);
        let complained = child.stderr.take().map(listen);
        let deadline = Instant::now() + Duration::from_secs(u64::from(self.line.timeout_s.max(1)));
        let text = |from: Option<mpsc::Receiver<String>>| {
            from.and_then(|from| from.recv_timeout(GRACE).ok())
                .unwrap_or_default()
        };
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ended::Well(text(said)),
                Ok(Some(status)) => {
                    let said = format!("{status}: {}", text(complained));
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
}

/// Reads to the end, keeps the beginning: a full pipe would hang the command.
fn listen(mut pipe: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (hand_over, take) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = pipe.by_ref().take(KEEP).read_to_end(&mut text);
        let _ = hand_over.send(String::from_utf8_lossy(&text).trim().to_owned());
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    });
    take
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

//! Commands of the owner's, run to their end or their deadline.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tidegate_trust::CommandLine;

use super::family::{Family, Mark};
use super::program;

/// Bytes kept from the start of standard output, and from the end of the whole output of a failed
/// command: that is where the error is.
const KEEP: usize = 2_000;
/// Time for reading the output of a command that has ended: a child of its own may keep the pipe
/// open forever.
const GRACE: Duration = Duration::from_secs(1);
/// Polling interval of a running command.
const TICK: Duration = Duration::from_millis(20);

/// A command, its arguments, folder, environment and timeout.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub(crate) line: &'a CommandLine,
    /// Arguments appended to those of the line.
    pub(crate) arguments: &'a [&'a str],
    pub(crate) folder: &'a Path,
    pub(crate) environment: &'a [(&'a str, String)],
}

pub(crate) use super::program::NotStarted;

/// Outcome of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Exited with success; its standard output.
    Well(String),
    /// Exited with an error; the status and the end of both outputs.
    Badly(String),
    /// Timed out: it and its whole process group were killed. The end of both outputs.
    Late(String),
    /// Not started: it is not there, may not be, or the machine cannot. It says nothing by itself about what
    /// it was to check.
    NotStarted(NotStarted),
}

impl Call<'_> {
    /// Runs the command. A program below the folder takes precedence over PATH, unless others can
    /// change it.
    pub(crate) fn run(&self) -> Ended {
        let Some((program, arguments)) = self.line.command.split_first() else {
            return Ended::Well(String::new());
        };
        let program = match program::find(program, self.folder) {
            Ok(program) => program,
            Err(not) => return Ended::NotStarted(not),
        };
        let mut command = Command::new(&program);
        program::clean(&mut command);
        command
            .args(arguments)
            .args(self.arguments)
            .current_dir(self.folder)
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let deadline = Instant::now() + Duration::from_secs(u64::from(self.line.timeout_s.max(1)));
        let mark = Mark::put(&mut command);
        loop {
            match command.spawn() {
                Ok(child) => return wait(child, mark, deadline),
                // The machine cannot start one more process just now: not the command's fault.
                Err(error) if is_for_now(&error) && Instant::now() < deadline => {
                    std::thread::sleep(TICK);
                }
                Err(error) => {
                    return Ended::NotStarted(NotStarted {
                        what: format!("{} cannot be started: {error}", program.display()),
                        by_folder: self.is_to_blame(&program, &error),
                    });
                }
            }
        }
    }

    /// Whether a program was not started for what it is: one of the folder's, made for another machine or
    /// with an interpreter that is not here; or none that the system knows.
    fn is_to_blame(&self, program: &Path, error: &std::io::Error) -> bool {
        /// ENOEXEC; on Windows ERROR_BAD_EXE_FORMAT.
        const NO_PROGRAM: i32 = if cfg!(windows) { 193 } else { 8 };
        let own = program.is_relative() || program.starts_with(self.folder);
        let is_bad = error.kind() == std::io::ErrorKind::NotFound
            || error.raw_os_error() == Some(NO_PROGRAM);
        own && is_bad && self.folder.is_dir()
    }
}

/// Waits for the end of a command, or for its deadline.
fn wait(mut child: Child, mark: Mark, deadline: Instant) -> Ended {
    let family = Family::of(&child, mark);
    let output = Output::of(&mut child);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                family.let_go();
                if status.success() {
                    return Ended::Well(output.finish().answer());
                }
                let said = format!("{status}: {}", output.finish().end());
                return Ended::Badly(said.trim_end_matches([' ', ':']).to_owned());
            }
            Ok(None) if Instant::now() < deadline => std::thread::sleep(TICK),
            Ok(None) => {
                family.kill(&mut child);
                return Ended::Late(output.finish().end());
            }
            Err(error) => {
                family.kill(&mut child);
                return Ended::Badly(error.to_string());
            }
        }
    }
}

/// The bounded part of a command's output that is kept.
#[derive(Debug, Default)]
struct Said {
    /// The first bytes of standard output.
    answer: Vec<u8>,
    /// The last bytes of both outputs, in order of arrival.
    end: VecDeque<u8>,
    /// Whether earlier bytes were dropped from `end`.
    cut: bool,
}

impl Said {
    fn take(&mut self, part: &[u8], is_answer: bool) {
        if is_answer {
            let room = KEEP - self.answer.len();
            self.answer.extend(&part[..part.len().min(room)]);
        }
        self.end.extend(part);
        if let Some(over) = self.end.len().checked_sub(KEEP)
            && over > 0
        {
            self.end.drain(..over);
            self.cut = true;
        }
    }

    fn answer(&self) -> String {
        String::from_utf8_lossy(&self.answer).trim().to_owned()
    }

    fn end(&mut self) -> String {
        let bytes = self.end.make_contiguous();
        // The cut may be in the middle of a character.
        let begin = bytes.iter().take_while(|b| self.cut && *b & 0xc0 == 0x80);
        let text = String::from_utf8_lossy(&bytes[begin.count()..]);
        let mark = if self.cut { "... " } else { "" };
        format!("{mark}{}", text.trim())
    }
}

/// Both outputs of a running command, read to their ends: a full pipe would block the command.
struct Output {
    said: Arc<Mutex<Said>>,
    /// Disconnected when both pipes have ended.
    ended: mpsc::Receiver<()>,
}

impl Output {
    fn of(child: &mut Child) -> Self {
        let said = Arc::default();
        let (reading, ended) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            listen(pipe, true, &said, &reading);
        }
        if let Some(pipe) = child.stderr.take() {
            listen(pipe, false, &said, &reading);
        }
        Self { said, ended }
    }

    /// Waits for the end of both pipes, at most [`GRACE`]: a child of the command may keep them
    /// open.
    fn finish(self) -> Said {
        let _ = self.ended.recv_timeout(GRACE);
        std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn listen(
    mut pipe: impl std::io::Read + Send + 'static,
    is_answer: bool,
    said: &Arc<Mutex<Said>>,
    reading: &mpsc::Sender<()>,
) {
    let (said, reading) = (said.clone(), reading.clone());
    // Without a thread its output is lost; its exit status counts all the same.
    let _ = std::thread::Builder::new().spawn(move || {
        let mut part = [0; 1024];
        while let Ok(read) = pipe.read(&mut part)
            && read > 0
        {
            said.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(&part[..read], is_answer);
        }
        drop(reading);
    });
}

/// Whether a command could not be started for want of something that the machine will have again:
/// processes, memory, open files, or a program that is being written.
fn is_for_now(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ExecutableFileBusy, Interrupted, OutOfMemory, WouldBlock};
    let is_kind = matches!(
        error.kind(),
        WouldBlock | OutOfMemory | Interrupted | ExecutableFileBusy
    );
    #[cfg(unix)]
    let is_kind = is_kind || {
        use rustix::io::Errno;
        let wants = [Errno::MFILE, Errno::NFILE, Errno::IO].map(Errno::raw_os_error);
        error
            .raw_os_error()
            .is_some_and(|code| wants.contains(&code))
    };
    is_kind
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, timeout_s: u32) -> Ended {
        let line = CommandLine {
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
    fn what_cannot_be_started_is_told_from_what_fails() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let started = |program: &str| {
            let line = CommandLine {
                command: vec![program.into()],
                timeout_s: 5,
            };
            let call = Call {
                line: &line,
                arguments: &[],
                folder: folder.path(),
                environment: &[],
            };
            match call.run() {
                Ended::NotStarted(not) => Some(not.by_folder),
                _ => None,
            }
        };
        assert_eq!(started("true"), None);
        assert_eq!(started("false"), None);
        assert_eq!(started("/nowhere/check"), Some(true));
        assert_eq!(started("/etc/passwd"), Some(false));
        let check = folder.path().join("check");
        std::fs::write(&check, "#!/nowhere/interpreter\n").unwrap();
        std::fs::set_permissions(&check, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(started("./check"), Some(true));
    }

    #[test]
    fn a_child_that_lives_on_does_not_hold_its_parent_up() {
        assert_eq!(
            run("sleep 90 >/dev/null 2>&1 & echo done", 30),
            Ended::Well("done".into())
        );
    }

    #[test]
    fn what_was_said_counts_though_a_child_keeps_the_pipe_open() {
        assert_eq!(run("echo a; sleep 90 &", 30), Ended::Well("a".into()));
    }

    #[test]
    fn of_a_long_complaint_the_end_is_kept_with_a_mark() {
        let script = "i=0; while [ $i -lt 600 ]; do echo frame $i >&2; i=$((i+1)); done; \
                      echo 'RuntimeError: schema 41 needed, found 39' >&2; exit 1";
        let Ended::Badly(text) = run(script, 30) else {
            panic!("it failed");
        };
        assert!(text.ends_with("schema 41 needed, found 39"), "{text}");
        assert!(text.starts_with("exit status: 1: ... "), "{text}");
        assert!(text.len() <= 2_000 + 30);
    }

    #[test]
    fn an_error_on_standard_output_is_heard_too() {
        let Ended::Badly(text) = run("echo no database; exit 3", 5) else {
            panic!("it failed");
        };
        assert_eq!(text, "exit status: 3: no database");
    }

    #[test]
    fn what_was_said_before_the_deadline_is_not_lost() {
        assert_eq!(
            run("echo connecting to db...; sleep 600", 1),
            Ended::Late("connecting to db...".into())
        );
    }

    #[test]
    fn a_cut_through_a_character_leaves_whole_ones() {
        let mut said = Said::default();
        said.take("ä".repeat(1_500).as_bytes(), false);
        said.take(b"x", false);
        assert_eq!(said.end(), format!("... {}x", "ä".repeat(999)));
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
        killed_with_its_child("sh");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_that_has_left_the_group_is_killed_as_well() {
        killed_with_its_child("setsid sh");
    }

    fn killed_with_its_child(shell: &str) {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("pid");
        let script = format!(
            "{shell} -c 'echo $$ > {}; exec sleep 600'; true",
            mark.display()
        );
        assert!(matches!(run(&script, 1), Ended::Late(_)));
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

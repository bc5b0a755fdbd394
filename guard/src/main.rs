#![doc = include_str!("../README.md")]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Starts allowed for an agent that has not checked in yet.
const STARTS: u32 = 3;
/// Pause between the end of one agent and the start of the next.
const PAUSE: Duration = Duration::from_secs(1);
/// Polling interval of the running agent.
const LOOK: Duration = Duration::from_millis(200);
const USAGE: &str = "usage: tidegate-guard [--deadline SECONDS] [--exit-with-stdin] DIR \
                     ARGUMENTS-OF-THE-AGENT...";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut deadline = Duration::from_mins(10);
    if arguments.first().is_some_and(|a| a == "--deadline") {
        let seconds = arguments.get(1).and_then(|text| text.parse().ok());
        let Some(seconds) = seconds else {
            say(USAGE);
            return ExitCode::from(2);
        };
        deadline = Duration::from_secs(seconds);
        arguments.drain(..2);
    }
    let with_stdin = arguments.first().is_some_and(|a| a == "--exit-with-stdin");
    if with_stdin {
        arguments.remove(0);
    }
    if arguments.len() < 2 || arguments[0].starts_with('-') {
        say(USAGE);
        return ExitCode::from(2);
    }
    let dir = PathBuf::from(arguments.remove(0));
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    if !dir.join("slots").is_dir() {
        say(&format!(
            "{} has no agent: enroll one there first (tidegate-agent enroll --backend agent)",
            dir.display()
        ));
        return ExitCode::from(2);
    }
    if with_stdin {
        // The agent ends when the pipe held by this process closes.
        std::thread::spawn(|| {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            std::process::exit(0);
        });
    }
    loop {
        match watch_one(&dir, &arguments, deadline) {
            Ok(()) => {}
            // A disk error may pass: trying again is better than a machine without an agent.
            Err(error) => say(&format!("{}: {error}", dir.display())),
        }
        std::thread::sleep(PAUSE);
    }
}

fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "tidegate-guard: {text}");
}

/// Chooses an agent, starts it and waits until it ends or its time is over.
fn watch_one(dir: &Path, arguments: &[String], deadline: Duration) -> io::Result<()> {
    let slot = choose(dir)?;
    let program = program(dir, &slot);
    let started = Command::new(&program)
        .args(arguments)
        .arg("--exit-with-stdin")
        .env("TIDEGATE_GUARD_SLOT", &slot)
        // The agent sends the signs of life; this variable would tie them to this process's id.
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            leave(dir, &slot, &error)?;
            return Err(io::Error::new(
                error.kind(),
                format!("{}: {error}", program.display()),
            ));
        }
    };
    // Held open: the agent ends when this process does.
    let held = child.stdin.take();
    let begun = Instant::now();
    let ended = wait(&mut child, || {
        is_confirmed(dir, &slot) || begun.elapsed() < deadline
    });
    drop(held);
    if let Some(status) = ended {
        say(&format!("the agent in slot {slot} ended: {status}"));
        return Ok(());
    }
    let seconds = deadline.as_secs();
    say(&format!(
        "the agent in slot {slot} did not check in within {seconds} s"
    ));
    let _ = child.kill();
    let _ = child.wait();
    Ok(())
}

/// Waits for the agent to end; returns how it did, or `None` if its time was over first.
fn wait(child: &mut Child, may_go_on: impl Fn() -> bool) -> Option<String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.to_string()),
            Ok(None) if may_go_on() => std::thread::sleep(LOOK),
            Ok(None) => return None,
            Err(error) => return Some(error.to_string()),
        }
    }
}

fn program(dir: &Path, slot: &str) -> PathBuf {
    let name = format!("tidegate-agent{}", std::env::consts::EXE_SUFFIX);
    dir.join("slots").join(slot).join("tree").join(name)
}

/// Chooses the slot to start. The start is counted before it happens, and durably: an agent that
/// takes the machine down with it has had its start.
fn choose(dir: &Path) -> io::Result<String> {
    let slot = pointer(dir)?;
    if is_confirmed(dir, &slot) {
        return Ok(slot);
    }
    let starts = starts(dir, &slot);
    if starts < STARTS {
        replace(&dir.join("starts"), &format!("{slot} {}", starts + 1))?;
        return Ok(slot);
    }
    let other = if slot == "a" { "b" } else { "a" };
    // Nothing to fall back to: the first agent of a machine is tried forever.
    if !is_confirmed(dir, other) || !program(dir, other).exists() {
        return Ok(slot);
    }
    say(&format!(
        "the agent in slot {slot} did not check in after {STARTS} starts: back to slot {other}"
    ));
    point_to(dir, other)?;
    Ok(other.to_owned())
}

/// Switches away from an agent that cannot be started any more: it was lost, by its disk or by a
/// person, and any other one is better than none.
fn leave(dir: &Path, slot: &str, error: &io::Error) -> io::Result<()> {
    use io::ErrorKind::{ExecutableFileBusy, Interrupted, OutOfMemory, WouldBlock};
    // Transient errors.
    if matches!(
        error.kind(),
        WouldBlock | OutOfMemory | Interrupted | ExecutableFileBusy
    ) {
        return Ok(());
    }
    let other = if slot == "a" { "b" } else { "a" };
    if !program(dir, other).exists() {
        return Ok(());
    }
    say(&format!(
        "the agent in slot {slot} cannot be started: to slot {other}"
    ));
    point_to(dir, other)?;
    replace(&dir.join("confirmed"), other)
}

fn pointer(dir: &Path) -> io::Result<String> {
    let path = dir.join("current");
    let name = match fs::read_link(&path) {
        Ok(to) => to,
        Err(_) => PathBuf::from(fs::read_to_string(&path)?.trim()),
    };
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    match name.as_ref() {
        "a" | "b" => Ok(name.into_owned()),
        _ => Err(io::Error::other("`current` does not point to a slot")),
    }
}

fn point_to(dir: &Path, slot: &str) -> io::Result<()> {
    #[cfg(unix)]
    {
        let temporary = dir.join(".current.guard");
        let _ = fs::remove_file(&temporary);
        std::os::unix::fs::symlink(Path::new("slots").join(slot), &temporary)?;
        fs::rename(&temporary, dir.join("current"))?;
        File::open(dir)?.sync_all()
    }
    #[cfg(not(unix))]
    replace(&dir.join("current"), slot)
}

fn is_confirmed(dir: &Path, slot: &str) -> bool {
    fs::read_to_string(dir.join("confirmed")).is_ok_and(|text| text.trim() == slot)
}

fn starts(dir: &Path, slot: &str) -> u32 {
    let text = fs::read_to_string(dir.join("starts")).unwrap_or_default();
    match text.trim().split_once(' ') {
        Some((of, count)) if of == slot => count.parse().unwrap_or(0),
        _ => 0,
    }
}

/// Replaces a file atomically: after a power cut it is the old or the new one, never half.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.guard"));
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    #[cfg(unix)]
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with two slots, the pointer on b, slot a confirmed.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("guard-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            for slot in ["a", "b"] {
                let program = program(&dir, slot);
                fs::create_dir_all(program.parent().unwrap()).unwrap();
                fs::write(program, "").unwrap();
            }
            point_to(&dir, "b").unwrap();
            replace(&dir.join("confirmed"), "a").unwrap();
            Self(dir)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_new_agent_gets_three_starts_and_then_the_confirmed_one_is_back_once() {
        let folder = Folder::new("three");
        let chosen: Vec<String> = (0..6).map(|_| choose(&folder.0).unwrap()).collect();
        assert_eq!(chosen, ["b", "b", "b", "a", "a", "a"]);
        assert_eq!(pointer(&folder.0).unwrap(), "a");
    }

    #[test]
    fn an_agent_that_has_checked_in_is_started_for_ever() {
        let folder = Folder::new("confirmed");
        choose(&folder.0).unwrap();
        replace(&folder.0.join("confirmed"), "b").unwrap();
        for _ in 0..10 {
            assert_eq!(choose(&folder.0).unwrap(), "b");
        }
    }

    #[test]
    fn an_agent_that_cannot_be_started_any_more_gives_way_to_another_one() {
        let folder = Folder::new("lost");
        replace(&folder.0.join("confirmed"), "b").unwrap();
        let busy = io::Error::from(io::ErrorKind::WouldBlock);
        leave(&folder.0, "b", &busy).unwrap();
        assert_eq!(choose(&folder.0).unwrap(), "b");
        let lost = io::Error::from(io::ErrorKind::NotFound);
        leave(&folder.0, "b", &lost).unwrap();
        assert_eq!(choose(&folder.0).unwrap(), "a");
        fs::remove_file(program(&folder.0, "b")).unwrap();
        leave(&folder.0, "a", &lost).unwrap();
        assert_eq!(choose(&folder.0).unwrap(), "a");
    }

    #[test]
    fn without_anything_to_go_back_to_the_only_agent_is_tried_again() {
        let folder = Folder::new("only");
        fs::remove_file(folder.0.join("confirmed")).unwrap();
        for _ in 0..10 {
            assert_eq!(choose(&folder.0).unwrap(), "b");
        }
    }

    #[test]
    fn a_torn_count_costs_starts_and_nothing_else() {
        let folder = Folder::new("torn");
        fs::write(folder.0.join("starts"), [0, 255, 7]).unwrap();
        assert_eq!(choose(&folder.0).unwrap(), "b");
        assert_eq!(starts(&folder.0, "b"), 1);
    }
}

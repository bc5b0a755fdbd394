//! Commands that outlive their agent: noted while they run, and ended before another agent does
//! anything. A slow installation that goes on would write into a slot that has another owner by then.
//!
//! A note is a file named by the mark that the command's processes carry in their environment, wherever
//! they have gone. It holds their process group, and the time at which its leader was started, so that a
//! number that was given to another process since is not taken for it. Marks are random, so the notes of
//! one state directory name no process of another agent. A command that has ended is not noted any more:
//! what it has started, a service say, lives on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Name of the variable that marks the processes of a command.
pub(super) const MARK: &str = "TIDEGATE_CALL";
/// Folder of the notes, set by the first agent of this process.
static NOTES: OnceLock<PathBuf> = OnceLock::new();

/// Name of the file that becomes the next note: on a full disk none can be made.
const SPARE: &str = "spare";
/// Upper bound on what is read of a process's environment, in bytes.
const ENVIRONMENT: u64 = 256 << 10;

/// Note of a command. Dropping it removes the note.
pub(super) struct Note {
    mark: String,
    path: Option<PathBuf>,
}

impl Note {
    /// Notes a command that is about to be started: an agent that is killed right after has noted it.
    pub(super) fn of(mark: String) -> Self {
        let path = NOTES.get().map(|notes| notes.join(&mark));
        if let Some(path) = &path {
            let spare = path.with_file_name(SPARE);
            // Emptied first: the group in it may be that of a service by now.
            let emptied = fs::File::options().write(true).truncate(true).open(&spare);
            if emptied.and_then(|_| fs::rename(&spare, path)).is_err() {
                // Where none can be made it is not noted: the command itself matters more.
                let _ = fs::File::create(path);
            }
        }
        Self { mark, path }
    }

    /// Adds the process group of the command, which was just started.
    pub(super) fn started(&self, pid: u32) {
        if let (Some(path), Some(start)) = (&self.path, start_of(pid)) {
            let _ = fs::write(path, format!("{pid} {start}"));
        }
    }

    /// Kills what carries the mark.
    pub(super) fn kill_all(&self) {
        kill_marked(std::slice::from_ref(&self.mark));
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && fs::rename(path, path.with_file_name(SPARE)).is_err()
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Ends what an earlier agent of this state directory had started and did not live to end; notes its
/// own commands there from now on.
pub(crate) fn end(state: &Path) {
    let notes = state.join("commands");
    let _ = super::rights::make_dirs(&notes);
    end_noted(&notes);
    let _ = NOTES.set(notes);
}

fn end_noted(notes: &Path) {
    let (mut marks, mut paths, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(notes).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // An agent that such a command has started is part of it: the command has done its work.
        if name == SPARE || std::env::var(MARK).is_ok_and(|mark| mark == name) {
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        // Earlier agents named a note by the group.
        let (pid, start) = text.split_once(' ').unwrap_or((&name, &text));
        if let Ok(pid) = pid.parse()
            && kill(pid, start)
        {
            ended.push(pid);
        }
        marks.push(name);
        paths.push(entry.path());
    }
    if !marks.is_empty() {
        ended.extend(kill_marked(&marks));
    }
    for pid in ended {
        crate::log::line(&format!(
            "ended a command that was left of the agent before (process {pid})"
        ));
    }
    // Last: an agent that is killed here does all of it again.
    for path in paths {
        let _ = fs::remove_file(path);
    }
}

/// Kills each process that carries one of the marks, and waits for their end. Returns their numbers.
fn kill_marked(marks: &[String]) -> Vec<u32> {
    use rustix::process::{Pid, Signal, kill_process};
    let mut killed = Vec::new();
    // One may have started another meanwhile. Whoever starts some faster is not our kind.
    for _ in 0..100 {
        let mut found = false;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u32>().ok());
            let Some(number) = number.filter(|_| carries(&entry.path(), marks)) else {
                continue;
            };
            let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
            if pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()) {
                found = true;
                if !killed.contains(&number) {
                    killed.push(number);
                }
            }
        }
        if !found {
            break;
        }
        // What is dead has no environment any more.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    killed
}

/// Whether a process, by its folder below `/proc`, carries one of the marks.
fn carries(process: &Path, marks: &[String]) -> bool {
    use std::io::Read as _;
    let mut environment = Vec::new();
    let Ok(file) = fs::File::open(process.join("environ")) else {
        return false;
    };
    let _ = file.take(ENVIRONMENT).read_to_end(&mut environment);
    environment.split(|byte| *byte == 0).any(|variable| {
        let mark = variable
            .strip_prefix(MARK.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="));
        mark.is_some_and(|mark| marks.iter().any(|known| known.as_bytes() == mark))
    })
}

/// Time at which a process was started, as the system counts it.
fn start_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields are counted from behind the name, which may hold anything: proc(5), field 22.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

/// Kills a process group that is the noted one, and waits for its end. Returns whether it was there.
fn kill(pid: u32, start: &str) -> bool {
    use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // Without its leader a group keeps its number, which goes to nobody else.
    let is_it = start_of(pid).is_none_or(|now| now == start) && !start.is_empty();
    let Some(group) = group.filter(|group| is_it && test_kill_process_group(*group).is_ok()) else {
        return false;
    };
    let _ = kill_process_group(group, Signal::KILL);
    // Killed processes are gone at once, unless the kernel is writing for them, or nobody looks after
    // the dead.
    for _ in 0..100 {
        if test_kill_process_group(group).is_err() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn group(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        command.stderr(Stdio::null());
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    /// A process that is in no group of a command's, but carries a mark.
    fn marked(mark: &str) -> Child {
        let mut command = Command::new("sleep");
        command.arg("600").env("BEFORE", "x".repeat(9_000));
        command.env(MARK, mark).process_group(0).spawn().unwrap()
    }

    #[test]
    fn what_is_left_of_a_command_is_ended_with_its_children_and_nobody_else() {
        use std::io::Read as _;
        let dir = tempfile::tempdir().unwrap();
        let notes = dir.path().join("commands");
        fs::create_dir(&notes).unwrap();
        // Its leader is gone, a child of it still works.
        let mut left = group("sleep 600 & echo $!");
        let mut other = group("exec sleep 600");
        let (of_left, of_other) = (start_of(left.id()).unwrap(), start_of(other.id()).unwrap());
        left.wait().unwrap();
        fs::write(notes.join("one"), format!("{} {of_left}", left.id())).unwrap();
        // Its number belonged to another process before.
        fs::write(notes.join("two"), format!("{} {of_other}0", other.id())).unwrap();
        fs::write(notes.join("rubbish"), "").unwrap();
        end(dir.path());
        // The pipe ends with the last process that holds it.
        let mut rest = String::new();
        left.stdout
            .take()
            .unwrap()
            .read_to_string(&mut rest)
            .unwrap();
        assert!(other.try_wait().unwrap().is_none(), "it was none of ours");
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(fs::read_dir(&notes).unwrap().count(), 0);
    }

    #[test]
    fn what_has_left_the_group_is_found_by_a_note_that_was_made_before_anything_ran() {
        let dir = tempfile::tempdir().unwrap();
        let notes = dir.path().join("commands");
        fs::create_dir(&notes).unwrap();
        let names = ["noted", "ended", "of another agent"].map(|name| {
            let random = hex::encode(rand::random::<[u8; 8]>());
            format!("{name} {random}")
        });
        let mut processes = names.clone().map(|name| marked(&name));
        // The agent was killed before it could add a group; the spare one was a note before.
        fs::write(notes.join(&names[0]), "").unwrap();
        fs::write(notes.join(SPARE), &names[1]).unwrap();
        end_noted(&notes);
        let [of_cut, of_ended, of_others] = &mut processes;
        of_cut.wait().unwrap();
        for alive in [of_ended, of_others] {
            assert!(alive.try_wait().unwrap().is_none(), "it is none of ours");
            alive.kill().unwrap();
            alive.wait().unwrap();
        }
        let left: Vec<_> = fs::read_dir(&notes).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name(), SPARE);
    }
}

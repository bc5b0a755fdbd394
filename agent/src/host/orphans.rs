//! Commands that outlive their agent: noted while they run, and ended before another agent does
//! anything. A slow installation that goes on would write into a slot that has another owner by then.
//!
//! A note is a file named by the command's process group; it holds the time at which its leader was
//! started, so that a number that was given to another process since is not taken for it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Folder of the notes, set by the first agent of this process.
static NOTES: OnceLock<PathBuf> = OnceLock::new();

/// Note of a command that runs; on Windows none is needed ([`super::family`]). Dropping it removes the note.
#[cfg(unix)]
pub(super) struct Note(Option<PathBuf>);

#[cfg(unix)]
impl Note {
    /// Notes a command that was just started.
    pub(super) fn of(pid: u32) -> Self {
        let path = NOTES.get().map(|notes| notes.join(pid.to_string()));
        if let (Some(path), Some(start)) = (&path, start_of(pid)) {
            // On a full disk it is not noted: the command itself matters more.
            let _ = std::fs::write(path, start);
        }
        Self(path)
    }
}

#[cfg(unix)]
impl Drop for Note {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Ends what an earlier agent of this state directory had started and did not live to end; notes its
/// own commands there from now on.
pub(crate) fn end(state: &Path) {
    let notes = state.join("commands");
    let _ = std::fs::create_dir(&notes);
    for entry in std::fs::read_dir(&notes).into_iter().flatten().flatten() {
        let start = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid
            && kill(pid, &start)
        {
            crate::log::line(&format!(
                "ended a command that was left of the agent before (process {pid})"
            ));
        }
        let _ = std::fs::remove_file(entry.path());
    }
    let _ = NOTES.set(notes);
}

/// Time at which a process was started, as the system counts it.
#[cfg(target_os = "linux")]
fn start_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields are counted from behind the name, which may hold anything: proc(5), field 22.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

/// Kills a process group that is the noted one, and waits for its end. Returns whether it was there.
#[cfg(target_os = "linux")]
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

#[cfg(all(unix, not(target_os = "linux")))]
fn start_of(_: u32) -> Option<String> {
    None
}

#[cfg(not(target_os = "linux"))]
fn kill(_: u32, _: &str) -> bool {
    false
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn group(script: &str) -> std::process::Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        command.stderr(Stdio::null());
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn what_is_left_of_a_command_is_ended_with_its_children_and_nobody_else() {
        use std::io::Read as _;
        let dir = tempfile::tempdir().unwrap();
        let notes = dir.path().join("commands");
        std::fs::create_dir(&notes).unwrap();
        // Its leader is gone, a child of it still works.
        let mut left = group("sleep 600 & echo $!");
        let mut other = group("exec sleep 600");
        let (of_left, of_other) = (start_of(left.id()).unwrap(), start_of(other.id()).unwrap());
        left.wait().unwrap();
        std::fs::write(notes.join(left.id().to_string()), of_left).unwrap();
        // Its number belonged to another process before.
        std::fs::write(notes.join(other.id().to_string()), of_other + "0").unwrap();
        std::fs::write(notes.join("rubbish"), "").unwrap();
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
        assert_eq!(std::fs::read_dir(&notes).unwrap().count(), 0);
    }
}

//! The processes of a command: it, and all that it has started.
//!
//! On Unix they are a process group, which is noted while the command runs, so that the next agent ends
//! what a killed one leaves; they carry a mark in their environment, by which those are found that have
//! left the group. On Windows they are a job that ends with the agent.

use std::process::{Child, Command};

#[cfg(unix)]
use super::orphans::Note;

/// Name of the variable that marks the processes of a command.
#[cfg(target_os = "linux")]
const MARK: &str = "TIDEGATE_CALL";

/// Processes of one command that runs.
pub(super) struct Family {
    #[cfg(unix)]
    note: Note,
    #[cfg(target_os = "linux")]
    mark: Mark,
    #[cfg(windows)]
    job: Option<win32job::Job>,
}

/// Mark of one command, as it stands in the environment.
pub(super) struct Mark(#[cfg(target_os = "linux")] String);

impl Mark {
    /// Marks a command that is about to be started.
    #[cfg(target_os = "linux")]
    pub(super) fn put(command: &mut Command) -> Self {
        let value = hex::encode(rand::random::<[u8; 16]>());
        command.env(MARK, &value);
        Self(format!("{MARK}={value}"))
    }

    /// Marks nothing: what is not of a group or a job is not looked for here.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn put(_: &mut Command) -> Self {
        Self()
    }

    /// Kills each process that carries the mark.
    #[cfg(target_os = "linux")]
    fn kill_all(&self) {
        use rustix::process::{Pid, Signal, kill_process};
        // One may have started another meanwhile. Whoever starts some faster is not our kind.
        for _ in 0..3 {
            let mut found = false;
            for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                let name = entry.file_name();
                let pid = name.to_str().and_then(|name| name.parse().ok());
                let Some(pid) = pid.and_then(Pid::from_raw) else {
                    continue;
                };
                let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
                let mut variables = environment.split(|byte| *byte == 0);
                if variables.any(|variable| variable == self.0.as_bytes()) {
                    found |= kill_process(pid, Signal::KILL).is_ok();
                }
            }
            if !found {
                return;
            }
        }
    }
}

impl Family {
    /// Takes in a command that was just started as the leader of a group.
    #[cfg(unix)]
    pub(super) fn of(child: &Child, mark: Mark) -> Self {
        #[cfg(not(target_os = "linux"))]
        let Mark() = mark;
        Self {
            note: Note::of(child.id()),
            #[cfg(target_os = "linux")]
            mark,
        }
    }

    /// Takes in a command that was just started. What it started before is not of its family.
    #[cfg(windows)]
    pub(super) fn of(child: &Child, _: Mark) -> Self {
        use std::os::windows::io::AsRawHandle as _;
        let mut info = win32job::ExtendedLimitInfo::new();
        info.limit_kill_on_job_close();
        // Without a job, as where the agent itself is in one that allows no other, the command
        // matters more.
        let job = win32job::Job::create_with_limit_info(&info).ok();
        let handle = child.as_raw_handle().expose_provenance().cast_signed();
        let job = job.filter(|job| job.assign_process(handle).is_ok());
        Self { job }
    }

    /// Lets what is left of a command that has ended live on: a service that it has started.
    pub(super) fn let_go(self) {
        #[cfg(unix)]
        drop(self.note);
        #[cfg(windows)]
        if let Some(job) = self.job {
            // It ends them otherwise, as it does with the agent.
            let _ = job.set_extended_limit_info(&win32job::ExtendedLimitInfo::new());
        }
    }

    /// Ends all of them.
    pub(super) fn kill(self, child: &mut Child) {
        #[cfg(unix)]
        {
            use rustix::process::{Pid, Signal, kill_process_group};
            let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(leader) = leader {
                let _ = kill_process_group(leader, Signal::KILL);
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        #[cfg(target_os = "linux")]
        self.mark.kill_all();
        #[cfg(unix)]
        drop(self.note);
        #[cfg(windows)]
        drop(self.job);
    }
}

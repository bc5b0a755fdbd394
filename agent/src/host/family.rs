//! The processes of a command: it, and all that it has started.
//!
//! On Unix they are a process group; on Linux they carry a mark in their environment as well, by which
//! those are found that have left the group, and are noted while the command runs, so that the next agent
//! ends what a killed one leaves ([`super::orphans`]). On Windows they are a job that ends with the agent.

use std::process::{Child, Command};

#[cfg(target_os = "linux")]
use super::orphans::{MARK, Note};

/// Processes of one command that runs.
pub(super) struct Family {
    #[cfg(target_os = "linux")]
    note: Note,
    #[cfg(windows)]
    job: Option<win32job::Job>,
}

/// Mark of one command, as it stands in the environment, and its note.
pub(super) struct Mark(#[cfg(target_os = "linux")] Note);

impl Mark {
    /// Marks and notes a command that is about to be started.
    #[cfg(target_os = "linux")]
    pub(super) fn put(command: &mut Command) -> Self {
        let value = hex::encode(rand::random::<[u8; 16]>());
        command.env(MARK, &value);
        Self(Note::of(value))
    }

    /// Marks nothing: what is not of a group or a job is not looked for here.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn put(_: &mut Command) -> Self {
        Self()
    }
}

impl Family {
    /// Takes in a command that was just started as the leader of a group.
    #[cfg(target_os = "linux")]
    pub(super) fn of(child: &Child, Mark(note): Mark) -> Self {
        note.started(child.id());
        Self { note }
    }

    /// Takes in a command that was just started as the leader of a group.
    #[cfg(not(any(target_os = "linux", windows)))]
    pub(super) fn of(_: &Child, _: Mark) -> Self {
        Self {}
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
        #[cfg(target_os = "linux")]
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
        self.note.kill_all();
        #[cfg(windows)]
        drop(self.job);
    }
}

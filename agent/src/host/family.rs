//! The processes of a command: it, and all that it has started.
//!
//! On Unix they are a process group, which is noted while the command runs, so that the next agent ends
//! what a killed one leaves. On Windows they are a job that ends with the agent.

use std::process::Child;

#[cfg(unix)]
use super::orphans::Note;

/// Processes of one command that runs.
pub(super) struct Family {
    #[cfg(unix)]
    note: Note,
    #[cfg(windows)]
    job: Option<win32job::Job>,
}

impl Family {
    /// Takes in a command that was just started as the leader of a group.
    #[cfg(unix)]
    pub(super) fn of(child: &Child) -> Self {
        Self {
            note: Note::of(child.id()),
        }
    }

    /// Takes in a command that was just started. What it started before is not of its family.
    #[cfg(windows)]
    pub(super) fn of(child: &Child) -> Self {
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
        #[cfg(unix)]
        drop(self.note);
        #[cfg(windows)]
        drop(self.job);
    }
}

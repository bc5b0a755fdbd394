//! Checks of the file systems that the agent and a switch write to.

use std::path::Path;

use tidegate_machine::fsm::Record;
use tidegate_protocol::{Finding, Verdict};

use super::machine::Machine;
use super::notice_unless;
use crate::fs;
use crate::host::platform;
use crate::install::{self, BackendSettings};

/// Minimum free space where no installed version gives an estimate, in bytes.
const SPACE: u64 = 64 << 20;

impl Machine<'_> {
    /// Free space in the agent's folder.
    pub(super) fn space(&self) -> Finding {
        let writable = !platform::is_read_only(self.state);
        let image = self.record.and_then(Record::running);
        let wanted = image.map_or(SPACE, |installed| installed.image.length.saturating_mul(2));
        let threshold = format!("{} KiB for an update", wanted >> 10);
        match platform::free_space(self.state) {
            Some(free) => {
                let but = if writable {
                    ""
                } else {
                    ", which can only be read"
                };
                let value = format!("{} KiB free in {}{but}", free >> 10, self.state.display());
                let verdict = notice_unless(writable && free >= wanted);
                Finding::new("space", value, threshold, verdict)
            }
            None => Finding::new("space", "cannot be told", threshold, Verdict::Unknown),
        }
    }

    /// Free space where a switch writes the program that runs, if that is another file system than the agent's.
    pub(super) fn space_elsewhere(&self) -> Option<Finding> {
        let folder = self.folder_of_program()?;
        if !platform::is_elsewhere(folder, self.state) {
            return None;
        }
        let image = self.record.and_then(Record::running);
        let wanted = image.map_or(SPACE, |installed| installed.image.length);
        let threshold = format!("{} KiB for a switch", wanted >> 10);
        let free = platform::free_space(folder)?;
        let value = format!("{} KiB free in {}", free >> 10, folder.display());
        let verdict = notice_unless(free >= wanted);
        Some(Finding::new("space", value, threshold, verdict))
    }

    fn folder_of_program(&self) -> Option<&Path> {
        match &self.config.backend {
            BackendSettings::Executable { path } => path.parent(),
            _ => None,
        }
    }

    /// Checks that a full file system leaves the journal writable, where that is a question at all.
    #[cfg(target_os = "linux")]
    pub(super) fn in_place(&self) -> Option<Finding> {
        let in_place = platform::overwrites_in_place(self.state)?;
        let value = if in_place {
            "on btrfs, overwritten in place"
        } else {
            "on btrfs, copied on write: a full disk may delay the way back; enroll in a folder with `chattr +C`"
        };
        let verdict = notice_unless(in_place);
        Some(Finding::new(
            "state",
            value,
            "overwritten in place",
            verdict,
        ))
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn in_place(&self) -> Option<Finding> {
        None
    }

    /// Says that nothing can be written where the agent, or a switch, has to.
    pub(super) fn read_only(&self) -> Vec<Finding> {
        let places = [Some(self.state), self.folder_of_program()];
        let places = places.into_iter().flatten();
        let finding = |folder: &Path| {
            let value = format!(
                "{} can only be read, so the agent ends or an update fails: look for errors of the disk (dmesg), \
                 check it (fsck), and make it writable again (mount -o remount,rw)",
                folder.display()
            );
            Finding::new("state", value, "writable", Verdict::Bad)
        };
        places
            .filter(|folder| platform::is_read_only(folder))
            .map(finding)
            .collect()
    }

    /// Data that somebody wrote into a version whose slot was used again.
    pub(super) fn left(&self) -> Option<Finding> {
        let left = self.state.join(install::LEFT);
        let found = fs::system().list(&left).ok()?;
        let names = found.iter().take(5).map(|(name, _)| name.to_string_lossy());
        let names = names.collect::<Vec<_>>().join(", ");
        let value = format!("{} in {}: {names}", found.len(), left.display());
        let finding = Finding::new("left", value, "none", Verdict::Notice);
        Some(finding)
    }
}

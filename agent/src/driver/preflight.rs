//! Look at the commands that a switch will start, while the version in use still runs.

use std::path::Path;

use tidegate_machine::fsm::{Installed, SlotId};
use tidegate_protocol::{Explained, Reason};
use tidegate_trust::CommandLine;

use super::Driver;
use crate::host::health;
use crate::host::program::{self, NotStarted};
use crate::install::BackendSettings;

/// Programs that an update will start.
struct Look<'a> {
    state: &'a Path,
    /// Folder of the version that will run, and whether it is in it already.
    folder: &'a Path,
    staged: bool,
    /// Whether nothing but a folder is switched: no other place gets a program by it.
    only_folder: bool,
}

impl Driver {
    /// Checks that the commands of an update can be started, before it stops anything: people are not left
    /// without their program for a command that this machine does not start.
    pub(super) fn preflight(
        &self,
        slot: SlotId,
        target: &Installed,
        staged: bool,
    ) -> Result<(), Explained> {
        if self.is_own() {
            return Ok(());
        }
        let config = &self.config;
        let folder = self.core.backend.folder(slot);
        let look = Look {
            state: &self.state,
            folder: &folder,
            staged,
            only_folder: config.backend == BackendSettings::Directory,
        };
        let own = [
            ("health-cmd", &config.health),
            ("restart-cmd", &config.restart),
        ];
        let own = own
            .into_iter()
            .filter_map(|(name, line)| Some((name, line.as_ref()?)));
        let signed = target.health.as_ref().filter(|_| config.health.is_none());
        let mut looked = own
            .map(|(name, line)| look.at(name, line, false))
            .chain(signed.map(|line| look.at("the release's health check", line, true)));
        looked.try_for_each(|looked| looked)?;
        let reboot = config.reboot.as_ref().and_then(|line| line.command.first());
        reboot.map_or(Ok(()), |program| {
            let found = program::find(program, &self.state);
            found.map(drop).map_err(|not| explained("reboot-cmd", &not))
        })
    }
}

impl Look<'_> {
    fn at(&self, name: &str, line: &CommandLine, signed: bool) -> Result<(), Explained> {
        let words = health::programs(line);
        words.into_iter().try_for_each(|word| {
            let path = Path::new(word);
            // What the version brings can be told when it is there; whether it will be safe, now.
            if self.only_folder && !self.staged && path.is_relative() {
                if !word.contains('/') && program::find(word, self.folder).is_ok() {
                    return Ok(());
                }
                return match program::writable(self.state) {
                    None => Ok(()),
                    Some(place) => {
                        let (state, place) = (self.state.display(), place.display());
                        let what = format!(
                            "no program below {state} is started: others than the agent's user can change {place}"
                        );
                        Err(explained(name, &NotStarted { what, by_folder: false }))
                    }
                };
            }
            let Err(not) = program::find(word, self.folder) else {
                return Ok(());
            };
            let may_come = if path.is_absolute() {
                !self.only_folder || path.starts_with(self.state)
            } else {
                !self.only_folder || !self.staged
            };
            // A signed check that the release does not bring is the release's failure, found by running it.
            if not.by_folder && (signed || may_come) {
                return Ok(());
            }
            Err(explained(name, &not))
        })
    }
}

fn explained(name: &str, not: &NotStarted) -> Explained {
    Explained::new(Reason::CommandNotStarted, format!("{name}: {}", not.what))
}

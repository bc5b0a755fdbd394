//! Check of the commands that the machine's settings name.

use std::path::{Path, PathBuf};

use tidegate_machine::fsm::Record;
use tidegate_protocol::{Finding, Verdict};
use tidegate_trust::CommandLine;

use crate::fs;
use crate::host::{health, power, program};
use crate::install::{self, BackendSettings};
use crate::people::config::Config;

const CHECK: &str = "commands";
const WANTED: &str = "each can be started, and nobody else can change it";

/// Looks at every command as the agent would before it starts it.
pub(super) fn look(state: &Path, config: &Config, record: Option<&Record>) -> Vec<Finding> {
    let mut wrong = Vec::new();
    if config.backend == BackendSettings::Directory
        && let Some(place) = program::writable(state)
    {
        wrong.push(format!(
            "no program of a version is started: others than the agent's user can change {}",
            place.display()
        ));
    }
    let mut known = 0;
    let mut at = |name: &str, line: Option<&CommandLine>, folder: &Path| {
        let Some(line) = line else { return };
        for word in health::programs(line) {
            known += 1;
            if let Err(not) = program::find(word, folder) {
                wrong.push(format!("{name}: {}", not.what));
            }
        }
    };
    at("reboot-cmd", config.reboot.as_ref(), state);
    match &config.backend {
        BackendSettings::Image { boot, .. } => at("boot-cmd", Some(boot), state),
        BackendSettings::Hook { command } => at("hook-cmd", Some(command), state),
        BackendSettings::Directory
        | BackendSettings::Executable { .. }
        | BackendSettings::Agent => {}
    }
    // These run in the version, and may be part of it: without one there is nothing to look at yet.
    if let Some((slot, folder)) = running(state, config, record) {
        let signed = record.and_then(|record| record.slot(slot)?.health.as_ref());
        at("health-cmd", config.health.as_ref(), &folder);
        at("restart-cmd", config.restart.as_ref(), &folder);
        let signed = signed.filter(|_| config.health.is_none());
        at("the release's health check", signed, &folder);
    }
    if let Some(ups) = &config.power.ups {
        known += 1;
        if let Err(error) = power::look_at_ups(ups) {
            wrong.push(format!("ups {ups}: {error}"));
        }
    }
    if wrong.is_empty() {
        let value = format!("{known} can be started");
        return vec![Finding::new(CHECK, value, WANTED, Verdict::Good)];
    }
    let finding = |value| Finding::new(CHECK, value, WANTED, Verdict::Bad);
    wrong.into_iter().map(finding).collect()
}

/// The slot in use and its folder.
fn running(
    state: &Path,
    config: &Config,
    record: Option<&Record>,
) -> Option<(tidegate_machine::fsm::SlotId, PathBuf)> {
    let slot = record?.active?;
    let backend = install::open(fs::system(), state, &config.backend).ok()?;
    Some((slot, backend.folder(slot)))
}

//! Which backend a machine has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_trust::Health;

use super::hook::CommandVerbs;
use super::{Backend, Directory, Executable, Hook, Image, Own, SlotError};
use crate::fs::Fs;

/// How versions are installed here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BackendSettings {
    /// Folders below the agent's, and a pointer to the one in use.
    #[default]
    Directory,
    /// One executable at a path.
    Executable {
        /// The file that people and services start.
        path: PathBuf,
    },
    /// Raw images and a boot loader.
    Image {
        /// File or block device of slot a.
        a: PathBuf,
        /// File or block device of slot b.
        b: PathBuf,
        /// Tells the boot loader: `booted`, `next`, `set`, `confirm`.
        boot: Health,
    },
    /// The agent's own program, started by `tidegate-guard`.
    Agent,
    /// A command that installs: `install`, `activate`, `current`, `confirm`, `remove`.
    Hook {
        /// The command.
        command: Health,
    },
}

/// Opens the backend of a state directory.
pub fn open(
    fs: Arc<dyn Fs>,
    state: &Path,
    settings: &BackendSettings,
) -> Result<Arc<dyn Backend>, SlotError> {
    let verbs = |line: &Health| CommandVerbs {
        line: line.clone(),
        folder: state.to_owned(),
    };
    Ok(match settings {
        BackendSettings::Directory => Arc::new(Directory::open(fs, state)?),
        BackendSettings::Executable { path } => {
            Arc::new(Executable::open(fs, state, path.clone())?)
        }
        BackendSettings::Image { a, b, boot } => {
            let places = [a.clone(), b.clone()];
            Arc::new(Image::open(fs, state, places, verbs(boot))?)
        }
        BackendSettings::Agent => {
            let running = std::env::var("TIDEGATE_GUARD_SLOT").ok();
            Arc::new(Own::open(fs, state, running.as_deref())?)
        }
        BackendSettings::Hook { command } => Arc::new(Hook::open(fs, state, verbs(command))?),
    })
}

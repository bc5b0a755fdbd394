//! Choice of a machine's backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_trust::CommandLine;

use super::hook::CommandVerbs;
use super::{Backend, Directory, Executable, Hook, Image, Own, SlotError};
use crate::fs::Fs;

/// Backend of a machine, and its settings.
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
        /// Command that talks to the boot loader: `booted`, `next`, `set`, `confirm`.
        boot: CommandLine,
    },
    /// The agent's own program, started by `tidegate-guard`.
    Agent,
    /// A command that installs: `install`, `activate`, `current`, `confirm`, `remove`.
    Hook {
        /// The command.
        command: CommandLine,
    },
}

impl BackendSettings {
    /// Name of the backend, as given to `--backend`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Executable { .. } => "executable",
            Self::Image { .. } => "image",
            Self::Agent => "agent",
            Self::Hook { .. } => "hook",
        }
    }
}

/// Opens the backend of a state directory.
pub fn open(
    fs: Arc<dyn Fs>,
    state: &Path,
    settings: &BackendSettings,
) -> Result<Arc<dyn Backend>, SlotError> {
    let verbs = |line: &CommandLine| CommandVerbs {
        line: line.clone(),
        folder: state.to_owned(),
    };
    Ok(match settings {
        BackendSettings::Directory => Arc::new(Directory::open(fs, state)?),
        BackendSettings::Executable { path } => {
            Arc::new(Executable::open(fs, state, path.clone())?)
        }
        BackendSettings::Image { a, b, boot } => {
            if is_one_place(a, b) {
                return Err(SlotError::Settings(format!(
                    "{} and {} are the same place: each slot needs its own",
                    a.display(),
                    b.display()
                )));
            }
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

/// Returns whether two names lead to one file or device: names below `/dev/disk` are links.
fn is_one_place(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    if a == b || real(a).is_some_and(|a| real(b) == Some(a)) {
        return true;
    }
    #[cfg(unix)]
    if let (Ok(a), Ok(b)) = (std::fs::metadata(a), std::fs::metadata(b)) {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let device = a.file_type().is_block_device() && a.rdev() == b.rdev();
        return device || (a.dev(), a.ino()) == (b.dev(), b.ino());
    }
    false
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Real;

    #[test]
    fn two_names_of_one_image_are_no_two_slots() {
        let dir = tempfile::tempdir().unwrap();
        let [a, link, hard, b] = ["a", "link", "hard", "b"].map(|name| dir.path().join(name));
        std::fs::write(&a, "image").unwrap();
        std::fs::write(&b, "image").unwrap();
        std::os::unix::fs::symlink(&a, &link).unwrap();
        std::fs::hard_link(&a, &hard).unwrap();
        let opened = |other: &PathBuf| {
            let settings = BackendSettings::Image {
                a: a.clone(),
                b: other.clone(),
                boot: CommandLine {
                    command: vec!["true".into()],
                    timeout_s: 1,
                },
            };
            open(Arc::new(Real), &dir.path().join("state"), &settings).is_ok()
        };
        assert!(!opened(&a) && !opened(&link) && !opened(&hard));
        assert!(opened(&b));
    }
}

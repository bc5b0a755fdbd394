//! Data that somebody wrote into a version: kept once when its slot is used again.

use std::path::Path;

use tidegate_delta::archive::ArchiveError;
use tidegate_machine::fsm::SlotId;
use tidegate_protocol::Left;

use super::Directory;
use crate::fs::{Aside, Kind, Mended, Open};
use crate::install::{SlotError, at};

/// Folder of a state directory in which such data is kept.
pub(crate) const LEFT: &str = "slots/left";
/// Number of files that are counted at most.
const COUNTED: u64 = 100_000;

/// Counts what is kept aside in a state directory; `None` if there is nothing.
pub(crate) fn look_left(state: &Path) -> Option<Left> {
    let folder = state.join(LEFT);
    if !folder.is_dir() {
        return None;
    }
    let (mut files, mut bytes, mut folders) = (0, 0u64, vec![folder.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) if files < COUNTED => {
                    files += 1;
                    bytes = bytes.saturating_add(meta.len());
                }
                _ => {}
            }
        }
    }
    Some(Left {
        files,
        bytes,
        folder: folder.to_string_lossy().into_owned(),
    })
}

impl Directory {
    /// Moves what is not the version's own out of the tree of a slot that is about to be emptied, and
    /// what a mend moved out of it before, to `slots/left`: once, until the next slot has such data.
    /// Takes no room. Idempotent.
    pub(super) fn keep_what_was_added(&self, slot: SlotId) -> Result<(), SlotError> {
        let (dir, root) = (self.slots.dir(slot), self.tree(slot));
        let (path, mark) = (self.slots.artifact(slot), self.unpacking(slot));
        let was = dir.join("tree.was");
        let kind = |path| self.fs.kind(path).map_err(at(path));
        if kind(&root)? == Some(Kind::Dir) && kind(&mark)?.is_none() {
            let compared = self.fs.open(&path, Open::Kept).map_err(at(&path));
            let compared = compared.and_then(|file| {
                let tree = Mended::new(&*self.fs, &root, [&was, &was], false);
                self.walk(slot, &*file, None, &mut Aside::new(tree))
            });
            match compared {
                Ok(()) => {}
                // What could not be moved is not deleted either: another attempt is made.
                Err(error @ SlotError::Archive(ArchiveError::Io { .. })) => return Err(error),
                Err(error) => crate::log::line(&format!(
                    "{}: cannot tell what was added to it, and is emptied: {}",
                    root.display(),
                    crate::log::chain(&error)
                )),
            }
        }
        if kind(&was)?.is_none() {
            return Ok(());
        }
        let (slots, left) = (self.slots.root.join("slots"), self.slots.root.join(LEFT));
        if kind(&left)?.is_some() {
            crate::log::line(&format!("{}: removed, newer data follows", left.display()));
            self.fs.remove_tree(&left).map_err(at(&left))?;
        }
        self.fs.rename(&was, &left).map_err(at(&left))?;
        crate::log::line(&format!(
            "{}: what was written into a version that goes now; kept until another one has such data",
            left.display()
        ));
        self.fs.sync_dir(&slots).map_err(at(&slots))
    }
}

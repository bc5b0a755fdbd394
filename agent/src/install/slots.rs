//! The two slots' folders, and the artifacts in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_delta::{ApplyError, ReadAt};
use tidegate_machine::fsm::SlotId;
use tidegate_protocol::Image;

use super::artifact::{Workshop, copy_file, image_of};
use super::{Order, SlotError, at};
use crate::fs::{Fs, FsFile, Kind, Mode, Open};

/// The folders `slots/a` and `slots/b`, and the artifacts in them.
#[derive(Clone)]
pub(super) struct Slots {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) root: PathBuf,
}

impl Slots {
    /// The slots below a state directory; makes the folders.
    pub(super) fn open(fs: Arc<dyn Fs>, state: &Path) -> Result<Self, SlotError> {
        let slots = Self {
            fs,
            root: state.to_owned(),
        };
        for slot in [SlotId::A, SlotId::B] {
            let dir = slots.dir(slot);
            // Anything but a folder in a slot's place is removed.
            let kind = slots.fs.kind(&dir).map_err(at(&dir))?;
            if kind.is_some_and(|kind| kind != Kind::Dir) {
                slots.fs.remove_file(&dir).map_err(at(&dir))?;
            }
            slots.fs.create_dirs(&dir).map_err(at(&dir))?;
            // An artifact holds the private files of its version too. Earlier agents left it open.
            let artifact = slots.artifact(slot);
            if matches!(slots.fs.mode(&artifact), Ok(Some(mode)) if mode & 0o077 != 0) {
                let closed = slots.fs.set_mode(&artifact, 0o600);
                closed.map_err(at(&artifact))?;
                crate::log::line(&format!(
                    "{}: others could read this artifact; closed now",
                    artifact.display()
                ));
            }
        }
        Ok(slots)
    }

    pub(super) fn dir(&self, slot: SlotId) -> PathBuf {
        self.root.join("slots").join(slot.name())
    }

    pub(super) fn artifact(&self, slot: SlotId) -> PathBuf {
        self.dir(slot).join("artifact")
    }

    /// Path of an artifact under construction, named after its hash.
    pub(super) fn part(&self, slot: SlotId, image: Image) -> PathBuf {
        self.dir(slot).join(format!("artifact.{}", image.sha256))
    }

    /// Empties a slot, except for the files from which an attempt at `keep` can resume.
    pub(super) fn empty(&self, slot: SlotId, keep: Option<Image>) -> Result<(), SlotError> {
        let dir = self.dir(slot);
        let mut keep = keep.map(|image| [self.part(slot, image), dir.join("made")]);
        if let Some([part, _]) = &keep
            && self.fs.kind(part).map_err(at(part))? != Some(Kind::File)
        {
            keep = None;
        }
        for (name, kind) in self.fs.list(&dir).map_err(at(&dir))? {
            let path = dir.join(name);
            let kept = keep.as_ref().is_some_and(|keep| keep.contains(&path));
            if kind == Kind::File && kept {
                continue;
            }
            self.fs.remove_tree(&path).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Builds an artifact in its slot and returns it open: the next step uses the very file that
    /// was written.
    pub(super) fn make(&self, order: Order<'_>) -> Result<Box<dyn FsFile>, SlotError> {
        self.empty(order.slot, Some(order.image))?;
        let old = match order.old {
            Some(old) => {
                let path = self.artifact(old);
                let file = self.fs.open(&path, Open::Read);
                Some(file.map_err(|e| SlotError::Apply(ApplyError::ReadOld(e)))?)
            }
            None => None,
        };
        let (dir, part) = (self.dir(order.slot), self.part(order.slot, order.image));
        let file = self
            .fs
            .open(&part, Open::Update(Mode::Private))
            .map_err(at(&part))?;
        let shop = Workshop {
            fs: &*self.fs,
            dir: &dir,
            file: &*file,
            path: &part,
        };
        shop.make(order, old.as_ref().map(|old| &**old as &dyn ReadAt))?;
        // The note goes first, so that it never refers to a file that was renamed.
        shop.close()?;
        let path = self.artifact(order.slot);
        self.fs.rename(&part, &path).map_err(at(&path))?;
        Ok(file)
    }

    /// Copies an installed file as a slot's artifact and returns its image.
    pub(super) fn copy_in(&self, slot: SlotId, from: &Path) -> Result<Image, SlotError> {
        self.empty(slot, None)?;
        let path = self.artifact(slot);
        let file = self.fs.open(from, Open::Read).map_err(at(from))?;
        let length = file.length().map_err(at(from))?;
        copy_file(&*self.fs, &*file, length, &path, Mode::Private, None).map_err(at(&path))?;
        let copy = self.fs.open(&path, Open::Read).map_err(at(&path))?;
        let image = image_of(&*copy, length).map_err(at(&path))?;
        self.sync(slot)?;
        Ok(image)
    }

    /// Verifies that the artifact of a slot is an image, and returns it open.
    pub(super) fn verify(&self, slot: SlotId, image: Image) -> Result<Box<dyn FsFile>, SlotError> {
        let path = self.artifact(slot);
        let file = self.fs.open(&path, Open::Read).map_err(at(&path))?;
        let length = file.length().map_err(at(&path))?;
        if length != image.length || image_of(&*file, length).map_err(at(&path))? != image {
            return Err(SlotError::Damaged(path));
        }
        Ok(file)
    }

    /// Frees what a return to a slot does not need: the bytes that the other slot's version was made
    /// from, and what was moved out of its tree.
    pub(super) fn make_room(&self, slot: SlotId) -> Result<(), SlotError> {
        let other = self.dir(slot.other());
        let part = |name: &str| name == "made" || name.starts_with("artifact");
        for (name, _) in self.fs.list(&other).map_err(at(&other))? {
            let text = name.to_string_lossy().into_owned();
            if part(&text) || ["unpacked", "tree.was", "tree.new", "file.new"].contains(&&*text) {
                let path = other.join(name);
                self.fs.remove_tree(&path).map_err(at(&path))?;
            }
        }
        self.sync(slot.other())
    }

    pub(super) fn sync(&self, slot: SlotId) -> Result<(), SlotError> {
        let dir = self.dir(slot);
        self.fs.sync_dir(&dir).map_err(at(&dir))
    }
}

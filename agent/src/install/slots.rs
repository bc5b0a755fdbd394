//! The two slots' folders, and the artifacts in them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_delta::{ApplyError, ReadAt};
use tidegate_machine::fsm::SlotId;
use tidegate_protocol::Image;

use super::artifact::{Workshop, copy_file, image_of};
use super::{Order, SlotError, at};
use crate::fs::{Fs, FsFile, Kind, Mode, Open, is_held};

/// Highest number of a folder that was moved aside: each takes the room of a version.
const STUCK: u8 = 8;

/// Whether an error says that a file will not change, whoever tries: it is immutable, a mount, or on one
/// that is read-only.
pub(super) fn is_stuck(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    let kinds = [PermissionDenied, ReadOnlyFilesystem, ResourceBusy];
    kinds.contains(&error.kind()) && !is_held(error)
}

fn log_aside(dir: &Path, aside: &Path) {
    crate::log::line(&format!(
        "{}: something in it cannot be changed; moved to {} as it is: look for immutable files and mounts, and remove it",
        dir.display(),
        aside.display()
    ));
}

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
            slots.take_up_rebuilt(slot).map_err(at(&dir))?;
            slots.fs.create_dirs(&dir).map_err(at(&dir))?;
            // An artifact holds the private files of its version too. Earlier agents left it open.
            let artifact = slots.artifact(slot);
            let is_open = matches!(slots.fs.mode(&artifact), Ok(Some(mode)) if mode & 0o077 != 0);
            // Of a file alone: through a link somebody else's would be closed.
            if is_open && matches!(slots.fs.kind(&artifact), Ok(Some(Kind::File))) {
                let what = match slots.fs.set_mode(&artifact, 0o600) {
                    Ok(()) => "others could read this artifact; closed now".to_owned(),
                    Err(error) => format!("others can read this artifact: {error}"),
                };
                crate::log::line(&format!("{}: {what}", artifact.display()));
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
            match self.fs.remove_tree(&path) {
                // What will not go makes room as a whole.
                Err(error) if is_stuck(&error) => return self.set_aside(slot).map_err(at(&path)),
                other => other.map_err(at(&path))?,
            }
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
                let file = self.fs.open(&path, Open::Kept);
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
        let copy = self.fs.open_kept(&path, length).map_err(at(&path))?;
        let image = image_of(&*copy, length).map_err(at(&path))?;
        self.sync(slot)?;
        Ok(image)
    }

    /// Verifies that the artifact of a slot is an image, and returns it open.
    pub(super) fn verify(&self, slot: SlotId, image: Image) -> Result<Box<dyn FsFile>, SlotError> {
        let (path, file) = (self.artifact(slot), self.open_artifact(slot, image)?);
        if image_of(&*file, image.length).map_err(at(&path))? != image {
            return Err(SlotError::Damaged(path));
        }
        Ok(file)
    }

    /// Opens the artifact of a slot, if what is there can be an image at all.
    pub(super) fn open_artifact(
        &self,
        slot: SlotId,
        image: Image,
    ) -> Result<Box<dyn FsFile>, SlotError> {
        let path = self.artifact(slot);
        match self.fs.open_kept(&path, image.length) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                crate::log::line(&format!("{}: {error}", path.display()));
                Err(SlotError::Damaged(path))
            }
            opened => opened.map_err(at(&path)),
        }
    }

    /// Moves the folder of a slot to `slots/stuck.N`, with whatever cannot be changed or removed in it: a file
    /// that is immutable, a mount. Nothing below it is touched, since a mount is somebody's data.
    pub(super) fn set_aside(&self, slot: SlotId) -> io::Result<()> {
        let (dir, slots) = (self.dir(slot), self.root.join("slots"));
        let aside = self.name_aside()?;
        self.fs.rename(&dir, &aside)?;
        self.fs.create_dir(&dir)?;
        self.fs.sync_dir(&slots)?;
        log_aside(&dir, &aside);
        Ok(())
    }

    /// First free name for what is moved aside.
    fn name_aside(&self) -> io::Result<PathBuf> {
        let slots = self.root.join("slots");
        for number in 1..=STUCK {
            let name = slots.join(format!("stuck.{number}"));
            if self.fs.kind(&name)?.is_none() {
                return Ok(name);
            }
        }
        let what = format!("{STUCK} folders are stuck there already: remove them");
        Err(io::Error::other(what))
    }

    /// Folders in which a slot is built anew beside itself: until it is whole, and from then on.
    pub(super) fn beside(&self, slot: SlotId) -> [PathBuf; 2] {
        ["new", "whole"].map(|end| self.dir(slot).with_extension(end))
    }

    /// Puts what was built beside a slot in its place, which is moved aside as a whole. A cut in between is
    /// made good when the slots are opened.
    pub(super) fn exchange(&self, slot: SlotId) -> io::Result<()> {
        let (dir, slots) = (self.dir(slot), self.root.join("slots"));
        let [new, whole] = self.beside(slot);
        let aside = self.name_aside()?;
        self.fs.rename(&new, &whole)?;
        self.fs.sync_dir(&slots)?;
        self.fs.rename(&dir, &aside)?;
        self.fs.rename(&whole, &dir)?;
        self.fs.sync_dir(&slots)?;
        log_aside(&dir, &aside);
        Ok(())
    }

    /// Completes an exchange that was cut.
    fn take_up_rebuilt(&self, slot: SlotId) -> io::Result<()> {
        let (dir, [_, whole]) = (self.dir(slot), self.beside(slot));
        if self.fs.kind(&dir)?.is_none() && self.fs.kind(&whole)? == Some(Kind::Dir) {
            self.fs.rename(&whole, &dir)?;
            self.fs.sync_dir(&self.root.join("slots"))?;
        }
        Ok(())
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

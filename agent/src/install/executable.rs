//! A single executable: the file that people and services start, and `.tidegate-prev` beside it.
//!
//! Both versions are kept as artifacts in the agent's slots. Activating one copies it beside the
//! live file and renames the copy over that, so that writes to the live file never reach the slots.
//! The previous live file is kept as `.tidegate-prev`, where a person finds it without the agent; files of the
//! machine's owner have other names, and are never touched. Owner, mode and
//! extended attributes are those of the file that is replaced: they belong to this machine, not to a
//! version.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_delta::ReadAt;
use tidegate_delta::archive::PackOptions;
use tidegate_machine::fsm::{Activation, Medium, SlotId};
use tidegate_protocol::Image;

use super::artifact::{copy_file, image_of};
use super::slots::Slots;
use super::{Backend, Order, SlotError, at, check_free};
use crate::fs::{Fs, FsFile, Kind, Mode, Open};
use crate::host::platform;

/// Ending of the previous version beside the live one. Names beside it are the agent's own: what the
/// machine's owner keeps there, most often as `.prev`, `.old` or `.new`, is theirs.
const PREVIOUS: &str = ".tidegate-prev";
/// Endings of files under construction, which have a dot before their names as well.
pub(crate) const HALF: [&str; 2] = [".tidegate-new", ".tidegate-prev.new"];

/// One executable at a fixed path.
pub struct Executable {
    fs: Arc<dyn Fs>,
    slots: Slots,
    live: PathBuf,
}

impl Executable {
    /// Opens the backend for the executable at `live`, with slots below a state directory.
    pub fn open(fs: Arc<dyn Fs>, state: &Path, live: PathBuf) -> Result<Self, SlotError> {
        if live.file_name().is_none() || !live.is_absolute() {
            return Err(SlotError::Settings(format!(
                "{} is not an absolute path to an executable",
                live.display()
            )));
        }
        let slots = Slots::open(fs.clone(), state)?;
        Ok(Self { fs, slots, live })
    }

    /// Path of a file beside the live one.
    fn beside(&self, prefix: &str, suffix: &str) -> PathBuf {
        let name = self.live.file_name().unwrap_or_default().to_string_lossy();
        self.live.with_file_name(format!("{prefix}{name}{suffix}"))
    }

    fn folder_of_live(&self) -> &Path {
        self.live.parent().unwrap_or(Path::new("/"))
    }

    /// Returns whether the live file has a slot's bytes. The medium is compared, not a note: a file that
    /// was replaced by hand is not ours, and becomes the previous one at the next switch.
    fn is_live(&self, slot: SlotId) -> io::Result<bool> {
        self.holds(&self.live, slot)
    }

    /// Returns whether a file has a slot's bytes.
    fn holds(&self, file: &Path, slot: SlotId) -> io::Result<bool> {
        // What is no file, as a pipe in its place, holds nothing.
        let open = |path: &Path| match self.fs.open(path, self.how(path)) {
            Ok(file) => Ok(Some(file)),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidData
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        };
        let (Some(file), Some(kept)) = (open(file)?, open(&self.slots.artifact(slot))?) else {
            return Ok(false);
        };
        same(&*file, &*kept)
    }

    /// The live file may be a link of the owner's; what the agent keeps never is.
    fn how(&self, path: &Path) -> Open {
        if path == self.live {
            Open::Read
        } else {
            Open::Kept
        }
    }

    /// Copies `from` to `to`, with owner, mode and attributes of the live file. Durable, except for its
    /// name.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.remove_if_there(to)?;
        let file = self.fs.open(from, self.how(from))?;
        let (length, like) = (file.length()?, self.like()?);
        let mode = Mode::Executable;
        copy_file(&*self.fs, &*file, length, to, mode, like.as_deref())
    }

    /// Path of the file whose owner, mode and attributes the live one must have; `None` before the first
    /// version.
    fn like(&self) -> io::Result<Option<PathBuf>> {
        for path in [self.live.clone(), self.beside("", PREVIOUS)] {
            if matches!(self.fs.kind(&path)?, Some(Kind::File | Kind::Link)) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Keeps the live file under a second name: by a hard link where the file system has them, else
    /// by a copy. A link is enough, since the live file is replaced, not written to.
    fn keep(&self, previous: &Path) -> io::Result<()> {
        let kept = self.beside(".", HALF[1]);
        self.fs.remove_if_there(&kept)?;
        if self.fs.hard_link(&self.live, &kept).is_err() {
            self.copy(&self.live, &kept)?;
        }
        self.fs.rename(&kept, previous)?;
        // A rename of a file over another name of itself leaves both names.
        self.fs.remove_if_there(&kept)
    }

    /// Asks for the room of a copy where the live file is, in the name of its owner: quotas and reserved
    /// blocks do not show otherwise.
    fn ask_for_room(&self, length: u64) -> io::Result<()> {
        self.give_back()?;
        check_free(self.folder_of_live(), length)?;
        let new = self.beside(".", HALF[0]);
        let file = self.fs.open(&new, Open::New(Mode::Private))?;
        // A file without a name gives its room back whatever happens to this process.
        if cfg!(unix) {
            self.fs.remove_file(&new)?;
        }
        let like = self.like()?;
        let asked = like
            .map_or(Ok(()), |like| self.fs.take_attributes(&*file, &like))
            .and_then(|()| file.reserve(length));
        drop(file);
        self.fs.remove_if_there(&new)?;
        asked
    }

    /// Removes what a switch that was cut has left beside the live file.
    fn give_back(&self) -> io::Result<()> {
        for suffix in HALF {
            self.fs.remove_if_there(&self.beside(".", suffix))?;
        }
        Ok(())
    }

    fn put_live(&self, slot: SlotId) -> io::Result<()> {
        let (new, previous) = (self.beside(".", HALF[0]), self.beside("", PREVIOUS));
        if let Err(error) = self.copy(&self.slots.artifact(slot), &new) {
            // Part of a copy would only take the room that the next attempt needs.
            self.fs.remove_if_there(&new)?;
            // The previous file is a copy as well, most often of just this version, and has what could
            // not be given to another: a way back needs neither room nor rights.
            if !self.holds(&previous, slot).unwrap_or(false) {
                return Err(error);
            }
            self.fs.rename(&previous, &self.live)?;
            return self.fs.sync_dir(self.folder_of_live());
        }
        if self.fs.kind(&self.live)?.is_some() {
            self.keep(&previous)?;
            // Windows does not let a running program be replaced, but lets it be renamed.
            if cfg!(windows) {
                let away = self.beside(".", ".tidegate-away");
                let _ = self.fs.remove_if_there(&away);
                self.fs.rename(&self.live, &away)?;
            }
        }
        self.fs.rename(&new, &self.live)?;
        self.fs.sync_dir(self.folder_of_live())
    }
}

fn same(a: &dyn FsFile, b: &dyn FsFile) -> io::Result<bool> {
    let length = a.length()?;
    if length != b.length()? {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut offset = 0;
    while offset < length {
        let take = usize::try_from(length - offset)
            .unwrap_or(usize::MAX)
            .min(left.len());
        ReadAt::read_exact_at(a, &mut left[..take], offset)?;
        ReadAt::read_exact_at(b, &mut right[..take], offset)?;
        if left[..take] != right[..take] {
            return Ok(false);
        }
        offset += take as u64;
    }
    Ok(true)
}

impl Backend for Executable {
    fn formats(&self) -> &'static [&'static str] {
        &["raw"]
    }

    fn medium(&self) -> Result<Medium, SlotError> {
        for slot in [SlotId::A, SlotId::B] {
            if self.is_live(slot).map_err(at(&self.live))? {
                return Ok(Medium::only(Some(slot)));
            }
        }
        Ok(Medium::only(None))
    }

    fn stage(&self, order: Order<'_>) -> Result<(), SlotError> {
        let file = self.slots.make(order)?;
        let path = self.slots.artifact(order.slot);
        let found = image_of(&*file, order.image.length).map_err(at(&path))?;
        if found != order.image {
            return Err(SlotError::WrongImage);
        }
        self.slots.sync(order.slot)
    }

    fn activate(&self, slot: Option<SlotId>) -> Result<Activation, SlotError> {
        let result = match slot {
            Some(slot) => self.is_live(slot).and_then(|live| {
                if live {
                    // The switch may have been cut: what it took is given back, where that is possible.
                    let _ = self.give_back();
                    // Its name may not be durable yet.
                    self.fs.sync_dir(self.folder_of_live())
                } else {
                    self.put_live(slot)
                }
            }),
            None => self
                .fs
                .remove_if_there(&self.live)
                .and_then(|()| self.fs.sync_dir(self.folder_of_live())),
        };
        result.map_err(at(&self.live))?;
        Ok(Activation::Live)
    }

    fn verify(&self, slot: SlotId, image: Image) -> Result<(), SlotError> {
        self.slots.verify(slot, image).map(drop)
    }

    fn make_room(&self, slot: SlotId) -> Result<(), SlotError> {
        self.slots.make_room(slot)
    }

    fn discard(&self, slot: SlotId) -> Result<(), SlotError> {
        self.slots.empty(slot, None)
    }

    fn folder(&self, _: SlotId) -> PathBuf {
        self.folder_of_live().to_owned()
    }

    fn room(&self, length: u64) -> u64 {
        // The artifact and, if it lies there too, the live file.
        let elsewhere = platform::is_elsewhere(self.folder_of_live(), &self.slots.root);
        length.saturating_mul(if elsewhere { 1 } else { 2 })
    }

    fn check_room(&self, length: u64) -> Result<(), SlotError> {
        self.ask_for_room(length).map_err(at(&self.live))
    }

    fn elsewhere(&self) -> Option<PathBuf> {
        Some(self.folder_of_live().to_owned())
    }

    fn adopt(&self, slot: SlotId, from: &Path, _: PackOptions) -> Result<Image, SlotError> {
        let image = self.slots.copy_in(slot, from)?;
        // The running program is taken over as it is, never replaced in passing.
        let there = self.fs.kind(&self.live).map_err(at(&self.live))?.is_some();
        if there && !self.is_live(slot).map_err(at(&self.live))? {
            return Err(SlotError::Settings(format!(
                "{} is not the same as {}, which is to be adopted as what runs there: name {} itself, \
                 or the file that it was copied from",
                self.live.display(),
                from.display(),
                self.live.display()
            )));
        }
        Ok(image)
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests;

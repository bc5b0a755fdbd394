//! Raw images on two files or block devices, and the boot loader's switch.
//!
//! The header of an image, its first 128 KiB, is what makes it look like a file system or a kernel.
//! It is wiped before the first byte is written and written last, after everything else is
//! durable: no boot loader ever takes a half image for a whole one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_delta::archive::PackOptions;
use tidegate_delta::{ApplyError, ReadAt};
use tidegate_machine::fsm::{Activation, Medium, SlotId};
use tidegate_protocol::Image as Bytes;

use super::artifact::{Workshop, image_of};
use super::boot::{BootSwitch, activation};
use super::{Backend, Order, SlotError, at, check_free};
use crate::fs::{Fs, FsFile, Mode, Open};

/// Bytes that are written last.
const HEADER: u64 = 128 << 10;

/// Raw images in two places.
pub struct Image<B> {
    fs: Arc<dyn Fs>,
    state: PathBuf,
    places: [PathBuf; 2],
    switch: B,
    header: u64,
}

impl<B: BootSwitch> Image<B> {
    /// Opens the backend for images at two places, with notes below a state directory.
    pub fn open(
        fs: Arc<dyn Fs>,
        state: &Path,
        places: [PathBuf; 2],
        switch: B,
    ) -> Result<Self, SlotError> {
        let [a, b] = &places;
        if a == b || !a.is_absolute() || !b.is_absolute() {
            return Err(SlotError::Settings(
                "the images need two different absolute paths".into(),
            ));
        }
        let image = Self {
            fs,
            state: state.to_owned(),
            places,
            switch,
            header: HEADER,
        };
        for slot in [SlotId::A, SlotId::B] {
            let dir = image.notes(slot);
            image.fs.create_dirs(&dir).map_err(at(&dir))?;
        }
        Ok(image)
    }

    /// Sets the header size: tests have small images.
    #[cfg(test)]
    pub(crate) fn set_header(&mut self, bytes: u64) {
        self.header = bytes;
    }

    fn place(&self, slot: SlotId) -> &Path {
        match slot {
            SlotId::A => &self.places[0],
            SlotId::B => &self.places[1],
        }
    }

    fn notes(&self, slot: SlotId) -> PathBuf {
        self.state.join("slots").join(slot.name())
    }

    /// Path of the note on what a version left in its place, where that is not its image.
    fn left_note(&self, slot: SlotId) -> PathBuf {
        self.notes(slot).join("left")
    }

    /// Hashes the first bytes of a place.
    fn found(&self, slot: SlotId, length: u64) -> Result<Bytes, SlotError> {
        let path = self.place(slot);
        let device = self.fs.open(path, Open::Read).map_err(at(path))?;
        if device.length().map_err(at(path))? < length {
            return Err(SlotError::Damaged(path.to_owned()));
        }
        image_of(&*device, length).map_err(at(path))
    }
}

impl<B: BootSwitch> Backend for Image<B> {
    fn formats(&self) -> &'static [&'static str] {
        &["raw"]
    }

    fn medium(&self) -> Result<Medium, SlotError> {
        Ok(Medium {
            active: self.switch.booted()?,
            next: self.switch.next()?,
            falls_back: true,
        })
    }

    fn stage(&self, order: Order<'_>) -> Result<(), SlotError> {
        let running = self.switch.booted()?;
        if running == Some(order.slot) {
            // Whatever the journal says, the slot that the machine runs from is never overwritten.
            return Err(SlotError::Settings(format!(
                "the machine runs from slot {}: refusing to overwrite it",
                order.slot.name()
            )));
        }
        let (path, notes) = (self.place(order.slot), self.notes(order.slot));
        let note = self.left_note(order.slot);
        self.fs.remove_if_there(&note).map_err(at(&note))?;
        let device = self.fs.open(path, Open::Existing).map_err(at(path))?;
        let is_file = self.fs.kind(path).map_err(at(path))? == Some(crate::fs::Kind::File);
        let has = device.length().map_err(at(path))?;
        if !is_file && has < order.image.length {
            return Err(SlotError::TooSmall {
                path: path.to_owned(),
                has,
                wants: order.image.length,
            });
        }
        let held = notes.join("header");
        let header = self
            .fs
            .open(&held, Open::Update(Mode::Private))
            .map_err(at(&held))?;
        // From here on no boot loader may take what is there for a whole image.
        let wiped = vec![0; usize::try_from(self.header.min(has)).unwrap_or(0)];
        device
            .write_all_at(&wiped, 0)
            .and_then(|()| device.sync())
            .map_err(at(path))?;
        let old_path = order.old.map(|old| self.place(old));
        let old = match old_path {
            Some(old) => {
                let file = self.fs.open(old, Open::Read);
                Some(file.map_err(|e| SlotError::Apply(ApplyError::ReadOld(e)))?)
            }
            None => None,
        };
        let withheld = Withheld {
            device: &*device,
            header: &*header,
            size: self.header,
            is_file,
        };
        let shop = Workshop {
            fs: &*self.fs,
            dir: &notes,
            file: &withheld,
            path,
        };
        shop.make(order, old.as_ref().map(|old| &**old as &dyn ReadAt))?;
        let image = image_of(&withheld, order.image.length).map_err(at(path))?;
        if image != order.image {
            return Err(SlotError::WrongImage);
        }
        withheld.release(order.image.length).map_err(at(path))?;
        let image = image_of(&*device, order.image.length).map_err(at(path))?;
        if image != order.image {
            return Err(SlotError::WrongImage);
        }
        shop.close()?;
        self.fs.remove_if_there(&held).map_err(at(&held))
    }

    fn activate(&self, slot: Option<SlotId>) -> Result<Activation, SlotError> {
        let Some(slot) = slot else {
            return Err(SlotError::Settings(
                "a machine that boots from images always needs one in use".into(),
            ));
        };
        self.switch.set(slot)?;
        activation("next", slot, self.switch.booted()?, self.switch.next()?)
    }

    fn verify(&self, slot: SlotId, image: Bytes) -> Result<(), SlotError> {
        let path = self.place(slot);
        let found = self.found(slot, image.length)?;
        let note = self.left_note(slot);
        let left = self.fs.read(&note, 64).map_err(at(&note))?;
        let sha256 = found.sha256.to_string();
        if found == image || left.as_deref() == Some(sha256.as_bytes()) {
            return Ok(());
        }
        Err(SlotError::Damaged(path.to_owned()))
    }

    /// A system mounted for writing changes its own image: what it left is noted, so that a
    /// rollback to it needs no network.
    fn left(&self, slot: SlotId, image: Bytes) -> Result<(), SlotError> {
        let found = self.found(slot, image.length)?;
        if found == image {
            return Ok(());
        }
        let note = self.left_note(slot);
        crate::log::line(&format!(
            "{} was written to while it ran: deltas cannot start from it",
            self.place(slot).display()
        ));
        let sha256 = found.sha256.to_string();
        self.fs
            .replace(&note, sha256.as_bytes(), Mode::Private)
            .map_err(at(&note))
    }

    fn confirm(&self, slot: SlotId) -> Result<(), SlotError> {
        self.switch.confirm(slot)
    }

    fn folder(&self, _: SlotId) -> PathBuf {
        self.state.clone()
    }

    fn room(&self, _: u64) -> u64 {
        // The image itself goes elsewhere.
        HEADER
    }

    /// The folder of a slot that is a file; a device has its room.
    fn elsewhere(&self) -> Option<PathBuf> {
        let [place, _] = &self.places;
        let is_file = matches!(self.fs.kind(place), Ok(Some(crate::fs::Kind::File)));
        is_file
            .then(|| place.parent().map(Path::to_owned))
            .flatten()
    }

    /// Looks at the slot that is not in use: a device is long enough or never will be, a file grows.
    fn check_room(&self, length: u64) -> Result<(), SlotError> {
        let Some(slot) = self.switch.booted()?.map(SlotId::other) else {
            return Ok(());
        };
        let path = self.place(slot);
        let device = self.fs.open(path, Open::Read).map_err(at(path))?;
        let has = device.length().map_err(at(path))?;
        if self.fs.kind(path).map_err(at(path))? == Some(crate::fs::Kind::File) {
            let folder = path.parent().unwrap_or(path);
            let taken = taken(&*device, has);
            return check_free(folder, length.saturating_sub(taken)).map_err(at(path));
        }
        let path = path.to_owned();
        let wants = length;
        if has < wants {
            return Err(SlotError::TooSmall { path, has, wants });
        }
        Ok(())
    }

    /// Adopts the image in the slot in use, given the file that was written there: a device does
    /// not tell how long its image is.
    fn adopt(&self, slot: SlotId, from: &Path, _: PackOptions) -> Result<Bytes, SlotError> {
        let file = self.fs.open(from, Open::Read).map_err(at(from))?;
        let length = file.length().map_err(at(from))?;
        let wanted = image_of(&*file, length).map_err(at(from))?;
        let path = self.place(slot);
        let device = self.fs.open(path, Open::Read).map_err(at(path))?;
        if device.length().map_err(at(path))? < length
            || image_of(&*device, length).map_err(at(path))? != wanted
        {
            return Err(SlotError::Settings(format!(
                "{} does not hold {}: a mounted image must be read-only",
                path.display(),
                from.display()
            )));
        }
        Ok(wanted)
    }
}

/// Bytes of a file that have room already: its holes have none.
fn taken(file: &dyn FsFile, length: u64) -> u64 {
    #[cfg(unix)]
    if let Some(Ok(meta)) = file.as_file().map(std::fs::File::metadata) {
        return length.min(std::os::unix::fs::MetadataExt::blocks(&meta) * 512);
    }
    #[cfg(not(unix))]
    let _ = file;
    length
}

/// A device whose header is kept in a file until the end.
struct Withheld<'a> {
    device: &'a dyn FsFile,
    header: &'a dyn FsFile,
    size: u64,
    is_file: bool,
}

impl Withheld<'_> {
    /// Writes the header, once everything else is durable.
    fn release(&self, length: u64) -> std::io::Result<()> {
        let mut header = vec![0; usize::try_from(self.size.min(length)).unwrap_or(0)];
        self.header.read_exact_at(&mut header, 0)?;
        self.device.append(&header, 0)?;
        self.device.sync()
    }

    /// Number of the `length` bytes from `offset` on that belong to the header.
    fn split(&self, length: usize, offset: u64) -> usize {
        usize::try_from(self.size.saturating_sub(offset))
            .unwrap_or(usize::MAX)
            .min(length)
    }
}

impl ReadAt for Withheld<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        let (head, body) = buf.split_at_mut(self.split(buf.len(), offset));
        if !head.is_empty() {
            self.header.read_exact_at(head, offset)?;
        }
        if body.is_empty() {
            return Ok(());
        }
        self.device.read_exact_at(body, offset.max(self.size))
    }
}

impl FsFile for Withheld<'_> {
    fn length(&self) -> std::io::Result<u64> {
        self.device.length()
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        let (head, body) = bytes.split_at(self.split(bytes.len(), offset));
        if !head.is_empty() {
            self.header.write_all_at(head, offset)?;
        }
        if body.is_empty() {
            return Ok(());
        }
        self.device.write_all_at(body, offset.max(self.size))
    }

    fn append(&self, bytes: &[u8], end: u64) -> std::io::Result<()> {
        let (head, body) = bytes.split_at(self.split(bytes.len(), end));
        if !head.is_empty() {
            self.header.write_all_at(head, end)?;
        }
        if body.is_empty() {
            return Ok(());
        }
        self.device.append(body, end.max(self.size))
    }

    fn set_length(&self, length: u64) -> std::io::Result<()> {
        self.header.set_length(length.min(self.size))?;
        // The size of a device is fixed.
        if self.is_file && self.device.length()? > length.max(self.size) {
            return self.device.set_length(length.max(self.size));
        }
        Ok(())
    }

    fn sync(&self) -> std::io::Result<()> {
        self.header.sync()?;
        self.device.sync()
    }

    fn forget(&self) {
        self.device.forget();
        self.header.forget();
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::fs::{Appending, Real};

    #[test]
    fn zeros_of_an_image_on_a_file_become_holes_also_over_a_longer_one() {
        let dir = tempfile::tempdir().unwrap();
        let [path, held] = ["image", "header"].map(|name| dir.path().join(name));
        let blocks = || fs::metadata(&path).unwrap().blocks() * 512;
        fs::write(&path, "").unwrap();
        fs::File::create(&path).unwrap().set_len(4 << 20).unwrap();
        let has_holes = blocks() < 1 << 20;
        if !has_holes {
            println!("the file system of {} has no holes", path.display());
        }
        let mut bytes = vec![0; 3 << 20];
        bytes[0] = 7;
        bytes[(2 << 20) + 5] = 7;
        // Behind a link it is not known to be a file, and is not cut.
        for (is_file, length) in [(true, bytes.len()), (false, 4 << 20)] {
            fs::write(&path, vec![9; 4 << 20]).unwrap();
            let device = Real.open(&path, Open::Existing).unwrap();
            let header = Real.open(&held, Open::Update(Mode::Private)).unwrap();
            let image = Withheld {
                device: &*device,
                header: &*header,
                size: HEADER,
                is_file,
            };
            image.set_length(0).unwrap();
            let mut out = Appending {
                file: &image,
                at: 0,
            };
            for part in bytes.chunks(300_000) {
                out.write_all(part).unwrap();
            }
            out.flush().unwrap();
            image.release(bytes.len() as u64).unwrap();
            let found = fs::read(&path).unwrap();
            assert_eq!(found.len(), length);
            assert!(found[..bytes.len()] == bytes);
            assert!(found[bytes.len()..].iter().all(|byte| *byte == 9));
            let most = (length - bytes.len()) as u64 + (1 << 20);
            assert!(!has_holes || blocks() < most, "{} bytes", blocks());
            // What is left of the room is not counted on.
            assert_eq!(taken(&*device, length as u64), blocks().min(length as u64));
        }
    }
}

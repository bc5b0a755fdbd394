//! Directory slots: two folders and a pointer that is switched atomically.
//!
//! ```text
//! slots/a/artifact   the bytes as published: base of the next delta
//! slots/a/tree/      what was unpacked from them
//! slots/b/...
//! current            symbolic link to slots/a or slots/b (a small file on Windows)
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tidegate_delta::archive::{self, ArchiveError};
use tidegate_delta::{Applier, ApplyError, Hasher, Kept, Limits, Manifest, ReadAt};
use tidegate_protocol::{Explained, Image, Reason};

use crate::durable;
use crate::failpoint;
use crate::fsm::SlotId;

/// The slots of one device.
#[derive(Debug, Clone)]
pub struct Slots {
    root: PathBuf,
}

/// Why a version could not be put into its slot.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Reading or writing failed.
    #[error("{path}", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The payload does not apply.
    #[error("the payload does not apply")]
    Apply(#[source] ApplyError),
    /// The artifact cannot be unpacked.
    #[error("the artifact cannot be unpacked")]
    Archive(#[source] ArchiveError),
    /// What was written is not the signed image.
    #[error("what was read back is not the signed image")]
    WrongImage,
}

impl SlotError {
    /// The reason to report.
    pub fn explained(&self) -> Explained {
        let code = match self {
            Self::Io { source, .. } => io_reason(source),
            Self::Apply(ApplyError::Write(e) | ApplyError::ReadOld(e)) => io_reason(e),
            Self::Apply(ApplyError::ChunkCorrupt { .. }) => Reason::ChunkCorrupt,
            Self::Apply(ApplyError::WrongImage) | Self::WrongImage => Reason::ImageMismatch,
            // Also where there is no room to unpack the old image: another payload does without.
            Self::Apply(_) => Reason::DeltaFailed,
            Self::Archive(ArchiveError::Io { source, .. }) => io_reason(source),
            Self::Archive(_) => Reason::ArchiveRefused,
        };
        Explained::new(code, crate::log::chain(self))
    }
}

/// A full disk has its own reason: it can be mended from afar.
pub(crate) fn io_reason(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::DiskFull,
        _ => Reason::StorageError,
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SlotError + '_ {
    move |source| SlotError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Slots {
    /// The slots below a state directory; makes the folders.
    pub fn open(state: &Path) -> Result<Self, SlotError> {
        let slots = Self {
            root: state.to_owned(),
        };
        for slot in [SlotId::A, SlotId::B] {
            let dir = slots.dir(slot);
            // Something else in a slot's place is no slot: away with it.
            if fs::symlink_metadata(&dir).is_ok_and(|meta| !meta.is_dir()) {
                fs::remove_file(&dir).map_err(at(&dir))?;
            }
            fs::create_dir_all(&dir).map_err(at(&dir))?;
        }
        Ok(slots)
    }

    fn dir(&self, slot: SlotId) -> PathBuf {
        self.root.join("slots").join(slot.name())
    }

    /// Where the unpacked version is.
    pub fn tree(&self, slot: SlotId) -> PathBuf {
        self.dir(slot).join("tree")
    }

    fn artifact(&self, slot: SlotId) -> PathBuf {
        self.dir(slot).join("artifact")
    }

    fn pointer(&self) -> PathBuf {
        self.root.join("current")
    }

    /// The slot that the pointer names: read from the medium, never from the journal.
    pub fn current(&self) -> Option<SlotId> {
        let pointer = self.pointer();
        #[cfg(unix)]
        let name = fs::read_link(&pointer).ok()?;
        #[cfg(not(unix))]
        let name = PathBuf::from(fs::read_to_string(&pointer).ok()?);
        match name.file_name()?.to_str()? {
            "a" => Some(SlotId::A),
            "b" => Some(SlotId::B),
            _ => None,
        }
    }

    /// Points to a slot, or to none: one atomic, idempotent, durable operation.
    pub fn activate(&self, slot: Option<SlotId>) -> Result<(), SlotError> {
        let pointer = self.pointer();
        failpoint::point("before the switch");
        let result = match slot {
            None => match fs::remove_file(&pointer) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
            .and_then(|()| durable::sync_dir(&self.root)),
            Some(slot) => self.point_to(slot),
        };
        failpoint::point("after the switch");
        result.map_err(at(&pointer))
    }

    #[cfg(unix)]
    fn point_to(&self, slot: SlotId) -> io::Result<()> {
        let temporary = self.root.join(".current.new");
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::os::unix::fs::symlink(Path::new("slots").join(slot.name()), &temporary)?;
        fs::rename(&temporary, self.pointer())?;
        durable::sync_dir(&self.root)
    }

    #[cfg(not(unix))]
    fn point_to(&self, slot: SlotId) -> io::Result<()> {
        durable::replace(&self.pointer(), slot.name().as_bytes(), false)
    }

    /// Makes a version in a slot from a payload and, for a delta, the artifact in use. Idempotent:
    /// it begins by emptying the slot, but for what an attempt at the same image has written:
    /// there it goes on. When it returns, every byte is verified and durable.
    pub fn stage(
        &self,
        slot: SlotId,
        manifest: &Manifest,
        payload: &File,
        old: Option<SlotId>,
        image: Image,
    ) -> Result<(), SlotError> {
        if manifest.to != image {
            return Err(SlotError::WrongImage);
        }
        let part = self.part(slot, image);
        self.empty(slot, Some(&part))?;
        let old = match old {
            Some(old) => {
                let path = self.artifact(old);
                Some(File::open(&path).map_err(at(&path))?)
            }
            None => None,
        };
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part)
            .map_err(at(&part))?;
        failpoint::point("artifact opened");
        let unpacked = self.unpacked(slot);
        let scratch = match manifest.scratch {
            0 => None,
            _ => Some(options.open(&unpacked).map_err(at(&unpacked))?),
        };
        let around = Around {
            old: old.as_ref().map(|f| f as &dyn ReadAt),
            scratch: scratch.as_ref(),
        };
        let there = file.metadata().map_err(at(&part))?.len();
        match apply(manifest, payload, around, &file, there) {
            // What was there is not what it should be: a power cut may leave anything.
            Err(SlotError::Apply(ApplyError::WrongImage)) if there > 0 => {
                apply(manifest, payload, around, &file, 0)?;
            }
            other => other?,
        }
        if scratch.is_some() {
            fs::remove_file(&unpacked).map_err(at(&unpacked))?;
        }
        // Closed here: an open file keeps its room, which the tree may need.
        drop(scratch);
        file.sync_all().map_err(at(&part))?;
        let path = self.artifact(slot);
        fs::rename(&part, &path).map_err(at(&path))?;
        failpoint::point("artifact written");
        self.unpack(slot, &file, image)
    }

    /// Takes an installed folder over as a slot: packs it, which gives the base of deltas.
    pub fn adopt(&self, slot: SlotId, folder: &Path) -> Result<Image, SlotError> {
        self.empty(slot, None)?;
        let path = self.artifact(slot);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(at(&path))?;
        let writer = BufWriter::new(&file);
        let mut writer = archive::pack(folder, writer).map_err(SlotError::Archive)?;
        writer.flush().map_err(at(&path))?;
        drop(writer);
        file.sync_all().map_err(at(&path))?;
        let mut hashing = Hashing {
            inner: rewound(&file).map_err(at(&path))?,
            hasher: Hasher::new(),
        };
        io::copy(&mut hashing, &mut io::sink()).map_err(at(&path))?;
        let image = hashing.hasher.finish();
        self.unpack(slot, &file, image)?;
        Ok(image)
    }

    /// Where the old artifact is unpacked while a delta that needs that is applied.
    fn unpacked(&self, slot: SlotId) -> PathBuf {
        self.dir(slot).join("unpacked")
    }

    /// Where an artifact is while it is made: named after what it is to be.
    fn part(&self, slot: SlotId, image: Image) -> PathBuf {
        self.dir(slot).join(format!("artifact.{}", image.sha256))
    }

    /// Removes everything from a slot but the file `keep`.
    fn empty(&self, slot: SlotId, keep: Option<&Path>) -> Result<(), SlotError> {
        let dir = self.dir(slot);
        for entry in fs::read_dir(&dir).map_err(at(&dir))? {
            let entry = entry.map_err(at(&dir))?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(at(&dir))?);
            if kind.is_dir() {
                durable::remove_tree(&path).map_err(at(&path))?;
            } else if !kind.is_file() || keep != Some(path.as_path()) {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        failpoint::point("slot emptied");
        Ok(())
    }

    /// Unpacks the very file that was written, hashing what is read: what is installed is what
    /// was verified.
    fn unpack(&self, slot: SlotId, file: &File, image: Image) -> Result<(), SlotError> {
        let path = self.artifact(slot);
        let tree = self.tree(slot);
        fs::create_dir(&tree).map_err(at(&tree))?;
        let mut reader = Hashing {
            inner: rewound(file).map_err(at(&path))?,
            hasher: Hasher::new(),
        };
        let unpacked = archive::unpack(&mut reader, &tree);
        // What follows the archive's end is part of the image too.
        io::copy(&mut reader, &mut io::sink()).map_err(at(&path))?;
        if reader.hasher.finish() != image {
            return Err(SlotError::WrongImage);
        }
        unpacked.map_err(SlotError::Archive)?;
        let dir = self.dir(slot);
        durable::sync_dir(&dir).map_err(at(&dir))?;
        failpoint::point("tree written");
        Ok(())
    }
}

/// Makes durable what it has when it is flushed: at the end of each frame.
struct Durable<'a>(&'a File);

impl Write for Durable<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        failpoint::point("frame written");
        self.0.sync_data()
    }
}

/// What a delta is applied with: the old image, and a file to unpack it into.
#[derive(Clone, Copy)]
struct Around<'a> {
    old: Option<&'a dyn ReadAt>,
    scratch: Option<&'a File>,
}

/// Feeds the chunks of a payload, each verified before it is decoded. The first `there` bytes of
/// `out` are from an attempt before this one.
fn apply(
    manifest: &Manifest,
    payload: &File,
    around: Around<'_>,
    mut out: &File,
    there: u64,
) -> Result<(), SlotError> {
    let limits = Limits::default();
    let length = there.min(manifest.to.length);
    let failed = |e| SlotError::Apply(ApplyError::Write(e));
    out.set_len(length).map_err(failed)?;
    io::Seek::seek(&mut out, io::SeekFrom::End(0)).map_err(failed)?;
    let kept = Kept { bytes: out, length };
    let writer = BufWriter::with_capacity(256 << 10, Durable(out));
    let mut applier = Applier::resuming(manifest, around.old, Some(kept), writer, &limits)
        .map_err(SlotError::Apply)?;
    if let Some(scratch) = around.scratch {
        applier = applier.with_scratch(scratch);
    }
    let mut buffer = Vec::new();
    let mut offset = 0;
    for chunk in &manifest.chunks {
        buffer.resize(chunk.length as usize, 0);
        ReadAt::read_exact_at(payload, &mut buffer, offset)
            .map_err(|e| SlotError::Apply(ApplyError::ReadOld(e)))?;
        applier.push_chunk(&buffer).map_err(SlotError::Apply)?;
        offset += u64::from(chunk.length);
    }
    let mut writer = applier.finish().map_err(SlotError::Apply)?;
    writer.flush().map_err(failed)
}

fn rewound(file: &File) -> io::Result<io::BufReader<File>> {
    let mut file = file.try_clone()?;
    io::Seek::rewind(&mut file)?;
    Ok(io::BufReader::with_capacity(256 << 10, file))
}

struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.hasher.update(&buf[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(dir: &Path, name: &str, text: &str) -> PathBuf {
        let tree = dir.join(name);
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("VERSION"), text).unwrap();
        tree
    }

    /// A verified image in slot A, and the handle through which it was written.
    fn written(slots: &Slots, dir: &Path) -> (File, Image) {
        let folder = tree(dir, "good", "good");
        let image = slots.adopt(SlotId::A, &folder).unwrap();
        durable::remove_tree(&slots.tree(SlotId::A)).unwrap();
        let file = File::options()
            .read(true)
            .write(true)
            .open(slots.artifact(SlotId::A))
            .unwrap();
        (file, image)
    }

    #[test]
    fn a46_what_is_installed_is_the_file_that_was_verified_whatever_stands_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path()).unwrap();
        let (file, image) = written(&slots, dir.path());
        // Another file, or a link to one, takes the name between writing and unpacking.
        let evil = dir.path().join("evil.tar");
        let mut packed = File::create(&evil).unwrap();
        archive::pack(&tree(dir.path(), "bad", "evil"), &mut packed).unwrap();
        let path = slots.artifact(SlotId::A);
        fs::remove_file(&path).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&evil, &path).unwrap();
        slots.unpack(SlotId::A, &file, image).unwrap();
        let found = fs::read_to_string(slots.tree(SlotId::A).join("VERSION")).unwrap();
        assert_eq!(found, "good");
    }

    #[test]
    fn a46_bytes_changed_under_the_same_handle_are_found_when_they_are_read_again() {
        use std::io::{Seek as _, SeekFrom};
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path()).unwrap();
        let (mut file, image) = written(&slots, dir.path());
        file.seek(SeekFrom::Start(512)).unwrap();
        file.write_all(b"evil").unwrap();
        let result = slots.unpack(SlotId::A, &file, image);
        assert!(matches!(result, Err(SlotError::WrongImage)), "{result:?}");
    }

    #[test]
    fn without_room_to_unpack_the_old_image_another_payload_is_tried() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let code = |error| SlotError::Apply(error).explained().code;
        assert_eq!(code(ApplyError::Scratch(full())), Reason::DeltaFailed);
        assert_eq!(code(ApplyError::Write(full())), Reason::DiskFull);
    }

    #[test]
    fn staging_goes_on_where_an_attempt_was_cut_whatever_it_left() {
        use tidegate_delta::{DeltaOptions, Encoding, make_delta};
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path()).unwrap();
        let text = |seed: u64| -> String {
            let lines: Vec<String> = (0..40_000u64).map(|i| (i * i % seed).to_string()).collect();
            lines.join("\n")
        };
        let old_tree = tree(dir.path(), "old", &text(9_973));
        let old = slots.adopt(SlotId::A, &old_tree).unwrap();
        let new_tree = tree(dir.path(), "new", &text(9_967));
        let new = slots.adopt(SlotId::B, &new_tree).unwrap();
        let read = |slot| fs::read(slots.artifact(slot)).unwrap();
        let (old_bytes, new_bytes) = (read(SlotId::A), read(SlotId::B));
        let mut payload = tempfile::tempfile().unwrap();
        let options = DeltaOptions {
            frame: 1 << 16,
            ..DeltaOptions::new(Encoding::Dense)
        };
        let manifest = make_delta(&old_bytes, &new_bytes, &mut payload, &options).unwrap();
        assert_eq!((manifest.from, manifest.to), (Some(old), new));
        let half = &new_bytes[..new_bytes.len() / 2];
        let garbage = vec![7; new_bytes.len() + 5];
        for left in [&b""[..], half, &new_bytes, &garbage] {
            slots.empty(SlotId::B, None).unwrap();
            fs::write(slots.part(SlotId::B, new), left).unwrap();
            fs::write(
                slots.dir(SlotId::B).join("artifact.other"),
                "of another image",
            )
            .unwrap();
            slots
                .stage(SlotId::B, &manifest, &payload, Some(SlotId::A), new)
                .unwrap();
            assert!(read(SlotId::B) == new_bytes);
            let mut names: Vec<_> = fs::read_dir(slots.dir(SlotId::B))
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            names.sort();
            assert_eq!(names, ["artifact", "tree"]);
        }
    }
}

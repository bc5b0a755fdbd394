//! Directory slots: two folders and a pointer that is switched atomically.
//!
//! ```text
//! slots/a/artifact   the bytes as published: base of the next delta
//! slots/a/tree/      what was unpacked from them
//! slots/b/...
//! slots/left/        what somebody wrote into the version whose slot was used again last
//! current            symbolic link to slots/a or slots/b (a small file on Windows)
//! ```

#[cfg(target_os = "linux")]
#[cfg(test)]
mod hostile;
mod left;
mod mend;
#[cfg(any(windows, target_os = "macos", test))]
mod names;

use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_delta::archive::{self, PackOptions, Tree};
use tidegate_machine::fsm::{Activation, Medium, SlotId};
use tidegate_protocol::{Image, Reason};

pub(crate) use left::{LEFT, look_left};

use super::artifact::{Hashing, image_of};
use super::slots::Slots;
use super::{Backend, Order, SlotError, at};
use crate::fs::{Appending, Fs, FsFile, Kind, Mode, Open, Sequential, TreeAt, io_reason};
use crate::host::platform;

/// Two folders below the agent's, and a pointer to one of them.
#[derive(Clone)]
pub struct Directory {
    fs: Arc<dyn Fs>,
    slots: Slots,
}

impl Directory {
    /// The slots below a state directory; makes the folders.
    pub fn open(fs: Arc<dyn Fs>, state: &Path) -> Result<Self, SlotError> {
        let slots = Slots::open(fs.clone(), state)?;
        Ok(Self { fs, slots })
    }

    /// Path of the unpacked version.
    fn tree(&self, slot: SlotId) -> PathBuf {
        self.slots.dir(slot).join("tree")
    }

    /// Path of the mark of a tree that is not whole yet.
    fn unpacking(&self, slot: SlotId) -> PathBuf {
        self.slots.dir(slot).join("unpacking")
    }

    fn pointer(&self) -> PathBuf {
        self.slots.root.join("current")
    }

    /// The slot that the pointer names: read from the medium, never from the journal.
    fn current(&self) -> Result<Option<SlotId>, SlotError> {
        let pointer = self.pointer();
        let name = match self.fs.kind(&pointer).map_err(at(&pointer))? {
            Some(Kind::Link) => self.fs.read_link(&pointer).map_err(at(&pointer))?,
            Some(Kind::File) => {
                let text = self.fs.read(&pointer, 16).map_err(at(&pointer))?;
                PathBuf::from(String::from_utf8_lossy(&text.unwrap_or_default()).trim())
            }
            _ => return Ok(None),
        };
        // Only a pointer to our slots counts: another folder of that name may hold anything.
        let leads_to = |slot: &SlotId| {
            name == Path::new(slot.name())
                || name == Path::new("slots").join(slot.name())
                || name == self.slots.dir(*slot)
        };
        Ok([SlotId::A, SlotId::B].into_iter().find(leads_to))
    }

    fn point_to(&self, slot: SlotId) -> io::Result<()> {
        let pointer = self.pointer();
        if cfg!(not(unix)) {
            return self
                .fs
                .replace(&pointer, slot.name().as_bytes(), Mode::Plain);
        }
        let temporary = self.slots.root.join(".current.new");
        self.fs
            .remove_if_there(&temporary)
            .or_else(|_| self.fs.remove_tree(&temporary))?;
        // A folder in the pointer's place is not ours, but in the way; move it aside, it may hold
        // data.
        if self.fs.kind(&pointer)? == Some(Kind::Dir) {
            let aside = self.slots.root.join("current.was");
            self.fs.remove_tree(&aside)?;
            self.fs.rename(&pointer, &aside)?;
        }
        let target = Path::new("slots").join(slot.name());
        match self.fs.symlink(&target, &temporary) {
            // A new link takes space that a full disk may not have: the one back exists already.
            Err(error) if io_reason(&error) == Reason::DiskFull && self.leads_back_to(slot) => {
                self.fs.rename(&self.way_back(), &pointer)?;
            }
            made => {
                made?;
                self.fs.rename(&temporary, &pointer)?;
            }
        }
        self.fs.sync_dir(&self.slots.root)
    }

    /// Path of a pointer to the previous version, made while there is space for it.
    fn way_back(&self) -> PathBuf {
        self.slots.root.join(".current.back")
    }

    fn leads_back_to(&self, slot: SlotId) -> bool {
        let target = Path::new("slots").join(slot.name());
        self.fs
            .read_link(&self.way_back())
            .is_ok_and(|to| to == target)
    }

    fn keep_way_back(&self, from: SlotId) -> io::Result<()> {
        if !cfg!(unix) || self.leads_back_to(from) {
            return Ok(());
        }
        let back = self.way_back();
        self.fs.remove_if_there(&back)?;
        self.fs
            .symlink(&Path::new("slots").join(from.name()), &back)
    }

    /// Unpacks the very file that was written and hashes what is read: what is installed is what
    /// was verified.
    fn unpack(&self, slot: SlotId, file: &dyn FsFile, image: Image) -> Result<(), SlotError> {
        // Until the tree is whole, what is in it is nobody's data.
        let mark = self.unpacking(slot);
        let how = Open::Update(Mode::Private);
        self.fs.open(&mark, how).map_err(at(&mark)).map(drop)?;
        self.unpack_at(&self.tree(slot), slot, file, image)?;
        self.fs.remove_if_there(&mark).map_err(at(&mark))?;
        self.slots.sync(slot)
    }

    /// Unpacks into a new folder, which others may enter only when it is whole.
    fn unpack_at(
        &self,
        root: &Path,
        slot: SlotId,
        file: &dyn FsFile,
        image: Image,
    ) -> Result<(), SlotError> {
        self.fs.create_dir(root).map_err(at(root))?;
        self.fs.set_mode(root, 0o700).map_err(at(root))?;
        let mut tree = TreeAt {
            fs: &*self.fs,
            root,
        };
        self.walk(slot, file, Some(image), &mut tree)
    }

    /// Passes the entries of an artifact to a tree, and verifies what was read, if it is known.
    fn walk(
        &self,
        slot: SlotId,
        file: &dyn FsFile,
        image: Option<Image>,
        tree: &mut dyn Tree,
    ) -> Result<(), SlotError> {
        let path = self.slots.artifact(slot);
        file.forget();
        let length = file.length().map_err(at(&path))?;
        let whole = Sequential::whole(file, length);
        let mut reader = Hashing::new(BufReader::with_capacity(256 << 10, whole));
        let unpacked = archive::unpack_to(&mut reader, tree);
        // Bytes after the archive's end are part of the image too.
        let found = reader.rest().map_err(at(&path))?;
        if image.is_some_and(|image| image != found) {
            return Err(SlotError::WrongImage);
        }
        unpacked.map_err(SlotError::Archive)
    }
}

impl Backend for Directory {
    fn formats(&self) -> &'static [&'static str] {
        &["tar"]
    }

    fn medium(&self) -> Result<Medium, SlotError> {
        Ok(Medium::only(self.current()?))
    }

    fn stage(&self, order: Order<'_>) -> Result<(), SlotError> {
        self.keep_what_was_added(order.slot)?;
        let file = self.slots.make(order)?;
        // Elsewhere any name is held that an archive can have.
        #[cfg(any(windows, target_os = "macos"))]
        names::check(&*file, tidegate_delta::archive::names::System::HERE)?;
        self.unpack(order.slot, &*file, order.image)?;
        if let Err(error) = self.keep_way_back(order.slot.other()) {
            // It is needed only when the disk is full.
            crate::log::line(&format!("{}: {error}", self.way_back().display()));
        }
        Ok(())
    }

    fn activate(&self, slot: Option<SlotId>) -> Result<Activation, SlotError> {
        let pointer = self.pointer();
        let result = match slot {
            None => self
                .fs
                .remove_if_there(&pointer)
                .and_then(|()| self.fs.sync_dir(&self.slots.root)),
            Some(slot) => self.point_to(slot),
        };
        result.map_err(at(&pointer))?;
        Ok(Activation::Live)
    }

    fn verify(&self, slot: SlotId, image: Image) -> Result<(), SlotError> {
        self.verify_or_mend(slot, image, false)
    }

    fn make_room(&self, slot: SlotId) -> Result<(), SlotError> {
        self.slots.make_room(slot)
    }

    fn repair(&self, slot: SlotId, image: Image) -> Result<(), SlotError> {
        self.verify_or_mend(slot, image, true)
    }

    fn is_there(&self, slot: SlotId) -> bool {
        matches!(self.fs.kind(&self.tree(slot)), Ok(Some(Kind::Dir)))
    }

    fn discard(&self, slot: SlotId) -> Result<(), SlotError> {
        self.keep_what_was_added(slot)?;
        self.slots.empty(slot, None)
    }

    fn folder(&self, slot: SlotId) -> PathBuf {
        self.tree(slot)
    }

    fn room(&self, length: u64) -> u64 {
        // The artifact and what is unpacked from it.
        length.saturating_mul(2)
    }

    /// Packs an installed folder, as the base of deltas.
    fn adopt(&self, slot: SlotId, folder: &Path, options: PackOptions) -> Result<Image, SlotError> {
        let options = PackOptions {
            owner: platform::user_id(),
            ..options
        };
        self.slots.empty(slot, None)?;
        let path = self.slots.artifact(slot);
        let file = self
            .fs
            .open(&path, Open::New(Mode::Private))
            .map_err(at(&path))?;
        let out = Appending {
            file: &*file,
            at: 0,
        };
        let writer = BufWriter::with_capacity(256 << 10, out);
        let packed = archive::pack_with(folder, writer, options);
        let (mut writer, changes) = packed.map_err(SlotError::Archive)?;
        for change in changes.sentences() {
            crate::log::line(&change);
        }
        writer.flush().map_err(at(&path))?;
        drop(writer);
        let length = file.length().map_err(at(&path))?;
        let image = image_of(&*file, length).map_err(at(&path))?;
        self.unpack(slot, &*file, image)?;
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tidegate_delta::ApplyError;

    use super::*;
    use crate::fs::Real;
    use crate::install::Payload;

    fn tree(dir: &Path, name: &str, text: &str) -> PathBuf {
        let tree = dir.join(name);
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("VERSION"), text).unwrap();
        tree
    }

    fn directory(dir: &Path) -> Directory {
        Directory::open(Arc::new(Real), dir).unwrap()
    }

    /// A verified image in slot A, and the handle through which it was written.
    fn written(slots: &Directory, dir: &Path) -> (Box<dyn FsFile>, Image) {
        let folder = tree(dir, "good", "good");
        let image = slots
            .adopt(SlotId::A, &folder, PackOptions::default())
            .unwrap();
        slots.fs.remove_tree(&slots.tree(SlotId::A)).unwrap();
        let path = slots.slots.artifact(SlotId::A);
        (Real.open(&path, Open::Existing).unwrap(), image)
    }

    #[test]
    fn a46_what_is_installed_is_the_file_that_was_verified_whatever_stands_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let slots = directory(dir.path());
        let (file, image) = written(&slots, dir.path());
        // Another file, or a link to one, takes the name between writing and unpacking.
        let evil = dir.path().join("evil.tar");
        let mut packed = fs::File::create(&evil).unwrap();
        archive::pack(&tree(dir.path(), "bad", "evil"), &mut packed).unwrap();
        let path = slots.slots.artifact(SlotId::A);
        fs::remove_file(&path).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&evil, &path).unwrap();
        slots.unpack(SlotId::A, &*file, image).unwrap();
        let found = fs::read_to_string(slots.tree(SlotId::A).join("VERSION")).unwrap();
        assert_eq!(found, "good");
    }

    #[test]
    fn a46_bytes_changed_under_the_same_handle_are_found_when_they_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let slots = directory(dir.path());
        let (file, image) = written(&slots, dir.path());
        file.write_all_at(b"evil", 512).unwrap();
        let result = slots.unpack(SlotId::A, &*file, image);
        assert!(matches!(result, Err(SlotError::WrongImage)), "{result:?}");
    }

    #[test]
    fn without_room_to_unpack_the_old_image_another_payload_is_tried() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let code = |error| SlotError::Apply(error).explained().code;
        assert_eq!(code(ApplyError::Scratch(full())), Reason::DeltaFailed);
        assert_eq!(code(ApplyError::Write(full())), Reason::DiskFull);
        // An old image that its storage has lost is not fatal either.
        let lost = || io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(code(ApplyError::ReadOld(lost())), Reason::DeltaFailed);
    }

    struct Bytes(Vec<u8>, tidegate_delta::Manifest);

    impl Payload for Bytes {
        fn chunk(&self, index: usize, buf: &mut [u8]) -> io::Result<()> {
            let offset = usize::try_from(self.1.offset(index)).unwrap();
            buf.copy_from_slice(&self.0[offset..offset + buf.len()]);
            Ok(())
        }
    }

    /// Paths of the files below a folder, with their text.
    fn texts(root: &Path) -> Vec<(String, String)> {
        let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(root).unwrap().display().to_string();
                    found.push((name, fs::read_to_string(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn what_somebody_wrote_into_a_version_is_kept_once_wherever_the_next_staging_is_cut() {
        use tidegate_delta::{DeltaOptions, Encoding, make_delta};
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let pairs = pairs.iter();
            pairs
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        let mut cut_at = 0;
        loop {
            cut_at += 1;
            let dir = tempfile::tempdir().unwrap();
            let slots = directory(dir.path());
            let adopt = |slot, name: &str| {
                let folder = tree(dir.path(), name, name);
                fs::create_dir_all(folder.join("conf")).unwrap();
                fs::write(folder.join("conf/app.ini"), "as shipped").unwrap();
                let image = slots.adopt(slot, &folder, PackOptions::default()).unwrap();
                (image, fs::read(slots.slots.artifact(slot)).unwrap())
            };
            let (third, third_bytes) = adopt(SlotId::A, "3");
            let (_, second_bytes) = adopt(SlotId::B, "2");
            adopt(SlotId::A, "1");
            let mut payload = Vec::new();
            let options = DeltaOptions::new(Encoding::Dense);
            let manifest = make_delta(&second_bytes, &third_bytes, &mut payload, &options).unwrap();
            let payload = Bytes(payload, manifest.clone());
            let order = Order {
                slot: SlotId::A,
                manifest: &manifest,
                payload: &payload,
                old: Some(SlotId::B),
                image: third,
                decoder: None,
            };
            let (tree, left) = (slots.tree(SlotId::A), dir.path().join("slots/left"));
            // Of a mend before, added, changed, and in the place of a file.
            fs::create_dir(slots.slots.dir(SlotId::A).join("tree.was")).unwrap();
            fs::write(slots.slots.dir(SlotId::A).join("tree.was/old.db"), "older").unwrap();
            fs::create_dir_all(tree.join("logs/today")).unwrap();
            fs::write(tree.join("logs/today/1"), "a line").unwrap();
            fs::write(tree.join("data.db"), "rows").unwrap();
            fs::write(tree.join("conf/app.ini"), "as the user wants").unwrap();
            // From that step on nothing is done any more, as if the process were gone.
            let gone = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let is_gone = gone.clone();
            let cutting = crate::fs::Crashing::new(Real, move |number, _, _| {
                if number >= cut_at {
                    is_gone.store(true, std::sync::atomic::Ordering::SeqCst);
                    return Err(io::Error::other("cut"));
                }
                Ok(true)
            });
            let first = Directory::open(Arc::new(cutting), dir.path());
            let _ = first.and_then(|slots| slots.stage(order));
            let cut = gone.load(std::sync::atomic::Ordering::SeqCst);
            slots.stage(order).unwrap();
            let kept = [
                ("conf/app.ini", "as the user wants"),
                ("data.db", "rows"),
                ("logs/today/1", "a line"),
                ("old.db", "older"),
            ];
            assert_eq!(texts(&left), owned(&kept), "cut at {cut_at}");
            let shipped = owned(&[("VERSION", "3"), ("conf/app.ini", "as shipped")]);
            assert_eq!(texts(&tree), shipped, "cut at {cut_at}");
            if cut {
                continue;
            }
            // Nothing new: it stays. Something new: only that.
            slots.stage(order).unwrap();
            assert_eq!(texts(&left), owned(&kept));
            fs::write(tree.join("data.db"), "more rows").unwrap();
            slots.stage(order).unwrap();
            assert_eq!(texts(&left), owned(&[("data.db", "more rows")]));
            break;
        }
        assert!(cut_at > 20, "only {cut_at} steps");
    }

    #[cfg(unix)]
    #[test]
    fn a137_files_of_a_private_folder_are_private_while_they_are_mended_and_kept() {
        use std::os::unix::fs::PermissionsExt as _;
        use std::sync::Mutex;
        /// Secrets that others can come to.
        fn seen(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let mode = meta.permissions().mode();
                if meta.is_dir() && mode & 0o001 != 0 {
                    seen(&path, found);
                } else if meta.is_file() && mode & 0o004 != 0 {
                    let text = fs::read_to_string(&path).unwrap();
                    found.extend(text.contains("secret").then_some(path));
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let folder = tree(dir.path(), "own", "1");
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir(folder.join("private")).unwrap();
        fs::write(folder.join("private/key"), "secret key").unwrap();
        set(&folder.join("private"), 0o700);
        set(&folder.join("private/key"), 0o644);
        set(&folder, 0o755);
        let adopted = directory(dir.path()).adopt(SlotId::A, &folder, PackOptions::default());
        let image = adopted.unwrap();
        let root = dir.path().join("slots");
        let found = Arc::new(Mutex::new(Vec::new()));
        let (below, noted) = (root.clone(), found.clone());
        let watching = crate::fs::Crashing::new(Real, move |_, _, _| {
            seen(&below, &mut noted.lock().unwrap());
            Ok(true)
        });
        let slots = Directory::open(Arc::new(watching), dir.path()).unwrap();
        let private = slots.tree(SlotId::A).join("private");
        let damages: [fn(&Path); 3] = [
            |private| fs::write(private.join("key"), "another secret").unwrap(),
            |private| fs::remove_file(private.join("key")).unwrap(),
            |private| fs::remove_dir_all(private).unwrap(),
        ];
        for damage in damages {
            damage(&private);
            slots.verify(SlotId::A, image).unwrap();
            assert_eq!(fs::read(private.join("key")).unwrap(), b"secret key");
        }
        fs::write(private.join("own.txt"), "a secret of a person").unwrap();
        set(&private.join("own.txt"), 0o644);
        slots.keep_what_was_added(SlotId::A).unwrap();
        assert!(root.join("left/private/own.txt").exists());
        seen(&root, &mut found.lock().unwrap());
        let found = found.lock().unwrap();
        assert!(found.is_empty(), "{found:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_with_holes_takes_the_room_of_its_data_in_artifact_and_tree() {
        use std::os::unix::fs::MetadataExt as _;
        use tidegate_delta::{DeltaOptions, Encoding, make_delta};
        const LENGTH: u64 = 4 << 20;
        let dir = tempfile::tempdir().unwrap();
        let slots = directory(dir.path());
        let folder = tree(dir.path(), "new", "2");
        let disk = folder.join("disk.img");
        let file = fs::File::create(&disk).unwrap();
        file.set_len(LENGTH).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", 2 << 20).unwrap();
        if fs::metadata(&disk).unwrap().blocks() * 512 > LENGTH / 8 {
            println!(
                "skipped: the file system of {} has no holes",
                disk.display()
            );
            return;
        }
        let takes = |slot| {
            let tree = slots.tree(slot).join("disk.img");
            [slots.slots.artifact(slot), tree].map(|path| {
                let meta = fs::metadata(path).unwrap();
                assert!(meta.len() >= LENGTH);
                meta.blocks() * 512
            })
        };
        // Packed and unpacked.
        let options = PackOptions::default();
        let image = slots.adopt(SlotId::A, &folder, options).unwrap();
        assert!(takes(SlotId::A).iter().all(|bytes| *bytes < LENGTH / 8));
        let new_bytes = fs::read(slots.slots.artifact(SlotId::A)).unwrap();
        // Decoded from a payload.
        let old = tree(dir.path(), "old", "1");
        slots.adopt(SlotId::B, &old, options).unwrap();
        let old_bytes = fs::read(slots.slots.artifact(SlotId::B)).unwrap();
        let mut payload = Vec::new();
        let options = DeltaOptions::new(Encoding::Quick);
        let manifest = make_delta(&old_bytes, &new_bytes, &mut payload, &options).unwrap();
        let order = Order {
            slot: SlotId::A,
            manifest: &manifest,
            payload: &Bytes(payload, manifest.clone()),
            old: Some(SlotId::B),
            image,
            decoder: None,
        };
        slots.stage(order).unwrap();
        assert!(fs::read(slots.slots.artifact(SlotId::A)).unwrap() == new_bytes);
        assert!(takes(SlotId::A).iter().all(|bytes| *bytes < LENGTH / 8));
    }

    #[test]
    fn staging_goes_on_where_an_attempt_was_cut_whatever_it_left() {
        use tidegate_delta::{DeltaOptions, Encoding, make_delta};
        let dir = tempfile::tempdir().unwrap();
        let slots = directory(dir.path());
        let text = |seed: u64| -> String {
            let lines: Vec<String> = (0..8_000u64).map(|i| (i * i % seed).to_string()).collect();
            lines.join("\n")
        };
        let old_tree = tree(dir.path(), "old", &text(9_973));
        let old = slots
            .adopt(SlotId::A, &old_tree, PackOptions::default())
            .unwrap();
        let new_tree = tree(dir.path(), "new", &text(9_967));
        let new = slots
            .adopt(SlotId::B, &new_tree, PackOptions::default())
            .unwrap();
        let read = |slot| fs::read(slots.slots.artifact(slot)).unwrap();
        let (old_bytes, new_bytes) = (read(SlotId::A), read(SlotId::B));
        let mut payload = Vec::new();
        let options = DeltaOptions {
            frame: 1 << 14,
            ..DeltaOptions::new(Encoding::Dense)
        };
        let manifest = make_delta(&old_bytes, &new_bytes, &mut payload, &options).unwrap();
        assert_eq!((manifest.from, manifest.to), (Some(old), new));
        let payload = Bytes(payload, manifest.clone());
        let half = &new_bytes[..new_bytes.len() / 2];
        let garbage = vec![7; new_bytes.len() + 5];
        for left in [&b""[..], half, &new_bytes, &garbage] {
            // Also with a note that is wrong, as storage may make it.
            for noted in [0, left.len()] {
                slots.slots.empty(SlotId::B, None).unwrap();
                let folder = slots.slots.dir(SlotId::B);
                fs::write(slots.slots.part(SlotId::B, new), left).unwrap();
                fs::write(folder.join("made"), format!("{} {noted}\n", new.sha256)).unwrap();
                fs::write(folder.join("artifact.other"), "of another image").unwrap();
                let order = Order {
                    slot: SlotId::B,
                    manifest: &manifest,
                    payload: &payload,
                    old: Some(SlotId::A),
                    image: new,
                    decoder: None,
                };
                slots.stage(order).unwrap();
                assert!(read(SlotId::B) == new_bytes);
                let mut names: Vec<_> = fs::read_dir(&folder)
                    .unwrap()
                    .map(|e| e.unwrap().file_name())
                    .collect();
                names.sort();
                assert_eq!(names, ["artifact", "tree"]);
                #[cfg(unix)]
                assert!(slots.leads_back_to(SlotId::A));
            }
        }
    }
}

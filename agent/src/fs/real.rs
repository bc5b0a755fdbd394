//! The machine's file system.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tidegate_delta::ReadAt;

#[cfg(unix)]
use super::Mode;
#[cfg(unix)]
use super::attributes::{self, fits, nofollow, nonblock};
use super::held::patiently;
use super::{Fs, FsFile, Kind, Open, no_file};

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Real;

struct RealFile(File);

/// Bytes of zeros that are left out of a new file, at multiples of their number.
const HOLE: usize = 64 << 10;
/// Fewest of them: below it a file system has no hole.
const PAGE: usize = 4 << 10;

impl RealFile {
    /// Makes a hole of a part of a file; false where that is not possible, or takes room that is not
    /// there.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn empty(&self, at: u64, length: u64) -> bool {
        use rustix::fs::FallocateFlags as Flags;
        let flags = Flags::PUNCH_HOLE | Flags::KEEP_SIZE;
        rustix::fs::fallocate(&self.0, flags, at, length).is_ok()
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn empty(&self, _: u64, _: u64) -> bool {
        false
    }
}

impl ReadAt for RealFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        ReadAt::read_exact_at(&self.0, buf, offset)
    }
}

impl FsFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        let meta = self.0.metadata()?;
        if meta.is_file() {
            return Ok(meta.len());
        }
        // The size of a block device is the position of its end.
        io::Seek::seek(&mut &self.0, io::SeekFrom::End(0))
    }

    #[cfg(unix)]
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
    }

    #[cfg(windows)]
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = std::os::windows::fs::FileExt::seek_write(&self.0, bytes, offset)?;
            bytes = &bytes[written..];
            offset += written as u64;
        }
        Ok(())
    }

    fn append(&self, bytes: &[u8], end: u64) -> io::Result<()> {
        let meta = self.0.metadata()?;
        // A device keeps what is not written to it.
        if !meta.is_file() {
            return self.write_all_at(bytes, end);
        }
        // What is not written behind the end of a file is zero. Before it, a hole has to be made.
        let (mut from, mut to) = (0, 0);
        while to < bytes.len() {
            let at = end + to as u64;
            let take = HOLE - usize::try_from(at % HOLE as u64).unwrap_or(0);
            let block = &bytes[to..bytes.len().min(to + take)];
            if block.len() >= PAGE
                && block.iter().all(|byte| *byte == 0)
                && (at >= meta.len() || self.empty(at, block.len() as u64))
            {
                self.write_all_at(&bytes[from..to], end + from as u64)?;
                from = to + block.len();
            }
            to += block.len();
        }
        self.write_all_at(&bytes[from..], end + from as u64)?;
        let end = end + from as u64;
        if from == bytes.len() && end > meta.len() {
            self.set_length(end)?;
        }
        Ok(())
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn reserve(&self, length: u64) -> io::Result<()> {
        use rustix::io::Errno;
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(&self.0, flags, 0, length) {
            // Nothing to take, or a file system that cannot say so in advance.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }

    #[cfg(windows)]
    fn reserve(&self, length: u64) -> io::Result<()> {
        self.set_length(length)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        patiently(|| self.0.set_len(length))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn forget(&self) {
        let advice = rustix::fs::Advice::DontNeed;
        let _ = rustix::fs::fadvise(&self.0, 0, None, advice);
    }

    fn as_file(&self) -> Option<&File> {
        Some(&self.0)
    }
}

impl Fs for Real {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn FsFile>> {
        let mut options = File::options();
        options.read(true);
        let mode = match how {
            Open::Read | Open::Kept => None,
            Open::Existing | Open::Sole => {
                options.write(true);
                None
            }
            Open::Update(mode) => {
                options.write(true).create(true).truncate(false);
                Some(mode)
            }
            Open::New(mode) => {
                options.write(true).create_new(true);
                Some(mode)
            }
        };
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.custom_flags(match how {
                Open::Kept | Open::Sole | Open::Update(_) => nofollow() | nonblock(),
                Open::Read | Open::Existing | Open::New(_) => nonblock(),
            });
            options.mode(match mode {
                Some(Mode::Executable) => 0o755,
                Some(Mode::Plain) => 0o644,
                Some(Mode::Private | Mode::Exact(_)) | None => 0o600,
            });
        }
        let file =
            patiently(|| options.open(path)).map_err(|error| not_a_file(path, how, error))?;
        let meta = file.metadata()?;
        if !is_usable(&meta, how) {
            return Err(no_file());
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
            if how == Open::Sole && meta.nlink() != 1 {
                return Err(io::Error::other("the file has another name elsewhere"));
            }
            if let Some(Mode::Exact(bits)) = mode {
                fits(file.set_permissions(fs::Permissions::from_mode(bits)))?;
            }
        }
        #[cfg(not(unix))]
        let _ = mode;
        Ok(Box::new(RealFile(file)))
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        match patiently(|| fs::symlink_metadata(path)) {
            Ok(meta) => Ok(Some(kind_of(meta.file_type()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        patiently(|| fs::read_dir(dir))?
            .map(|entry| {
                let entry = entry?;
                Ok((entry.file_name(), kind_of(entry.file_type()?)))
            })
            .collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        #[cfg_attr(not(unix), expect(unused_mut, reason = "folders have modes elsewhere"))]
        let mut builder = fs::DirBuilder::new();
        // The umask is not asked where the folder above has a default access list.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
        patiently(|| builder.create(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        patiently(|| fs::rename(from, to))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        patiently(|| fs::hard_link(from, to))
    }

    #[cfg(unix)]
    fn symlink(&self, to: &Path, path: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(to, path)
    }

    #[cfg(not(unix))]
    fn symlink(&self, _: &Path, _: &Path) -> io::Result<()> {
        // Symbolic links need a privilege there that services do not have.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        patiently(|| fs::remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        patiently(|| fs::remove_dir(path))
    }

    #[cfg(target_os = "linux")]
    fn is_mount(&self, dir: &Path) -> bool {
        use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
        let found = statx(CWD, dir, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
        // Before Linux 5.8 it is never set.
        found.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Windows has no handle to a folder that could be synced.
        if cfg!(unix) {
            File::open(dir)?.sync_all()
        } else {
            Ok(())
        }
    }

    #[cfg(unix)]
    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        use std::os::unix::fs::PermissionsExt as _;
        let meta = fs::symlink_metadata(path)?;
        Ok(Some(meta.permissions().mode() & 0o777))
    }

    #[cfg(unix)]
    fn set_mode(&self, path: &Path, bits: u32) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        fits(fs::set_permissions(path, fs::Permissions::from_mode(bits)))
    }

    #[cfg(unix)]
    fn take_attributes(&self, to: &dyn FsFile, from: &Path) -> io::Result<()> {
        to.as_file().map_or(Ok(()), |to| attributes::take(to, from))
    }
}

/// Names what cannot be opened for what it is, as a link or a socket; other errors are left as they are.
fn not_a_file(path: &Path, how: Open, error: io::Error) -> io::Error {
    let kind = fs::symlink_metadata(path).map(|meta| meta.file_type());
    match kind {
        Ok(kind) if how == Open::Kept && !kind.is_file() => no_file(),
        _ => error,
    }
}

/// Whether bytes at an offset mean anything in what was opened: an image may be on a block device.
fn is_usable(meta: &fs::Metadata, how: Open) -> bool {
    #[cfg(unix)]
    let is_device = std::os::unix::fs::FileTypeExt::is_block_device(&meta.file_type());
    #[cfg(not(unix))]
    let is_device = !meta.is_dir();
    meta.is_file() || (is_device && how != Open::Kept)
}

fn kind_of(kind: fs::FileType) -> Kind {
    if kind.is_symlink() {
        Kind::Link
    } else if kind.is_dir() {
        Kind::Dir
    } else if kind.is_file() {
        Kind::File
    } else {
        Kind::Other
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::fs::Appending;

    fn blocks(path: &Path) -> u64 {
        fs::metadata(path).unwrap().blocks() * 512
    }

    /// Whether files have holes here.
    fn has_holes(dir: &Path) -> bool {
        let path = dir.join("hole");
        File::create(&path).unwrap().set_len(64 << 20).unwrap();
        let has = blocks(&path) < 1 << 20;
        if !has {
            println!("skipped: the file system of {} has no holes", dir.display());
        }
        has
    }

    #[test]
    fn long_runs_of_zeros_become_holes_and_every_byte_is_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 8 << 20];
        for at in [0, 100_000, 4 << 20, (6 << 20) + 5] {
            bytes[at] = 7;
        }
        // Whatever the pieces, at the end a hole, half a block or data.
        for (piece, length) in [
            (1 << 20, 8 << 20),
            (77_777, 5_000_000),
            (300_000, (6 << 20) + 6),
        ] {
            let path = dir.path().join(piece.to_string());
            let file = Real.open(&path, Open::New(Mode::Plain)).unwrap();
            let mut out = Appending {
                file: &*file,
                at: 0,
            };
            for part in bytes[..length].chunks(piece) {
                out.write_all(part).unwrap();
            }
            out.flush().unwrap();
            assert!(fs::read(&path).unwrap() == bytes[..length], "{piece}");
            if has_holes(dir.path()) {
                assert!(blocks(&path) <= 1 << 20, "{} bytes", blocks(&path));
            }
        }
    }

    #[test]
    fn zeros_that_are_written_over_older_bytes_are_zeros_and_holes_and_nothing_beside_them_is() {
        let dir = tempfile::tempdir().unwrap();
        for (from, to) in [(0, 1 << 20), (77_777, 900_000), (1 << 20, (2 << 20) + 5)] {
            let path = dir.path().join("old");
            fs::write(&path, vec![9; 2 << 20]).unwrap();
            let file = Real.open(&path, Open::Existing).unwrap();
            let mut out = Appending {
                file: &*file,
                at: from as u64,
            };
            for part in vec![0; to - from].chunks(300_000) {
                out.write_all(part).unwrap();
            }
            let mut wanted = vec![9; to.max(2 << 20)];
            wanted[from..to].fill(0);
            assert!(fs::read(&path).unwrap() == wanted, "{from} to {to}");
            if has_holes(dir.path()) {
                assert!(blocks(&path) < 3 << 19, "{} bytes", blocks(&path));
            }
        }
    }

    #[test]
    fn a133_a_folder_is_writable_by_its_owner_alone_whatever_the_access_list_above_it_says() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        // Version 2; the owner, user 65534, the group, the mask and others may do everything.
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, id) in [
            (1_u16, u32::MAX),
            (2, 65_534),
            (4, u32::MAX),
            (16, u32::MAX),
            (32, u32::MAX),
        ] {
            list.extend(tag.to_le_bytes());
            list.extend(7_u16.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        let flags = rustix::fs::XattrFlags::empty();
        let name = "system.posix_acl_default";
        if let Err(error) = rustix::fs::setxattr(dir.path(), name, &list, flags) {
            println!("skipped: no default access list here: {error}");
            return;
        }
        let path = dir.path().join("slots");
        (&Real as &dyn Fs).create_dirs(&path.join("a")).unwrap();
        for (name, mode) in [("plain", Mode::Plain), ("private", Mode::Private)] {
            Real.open(&path.join(name), Open::New(mode)).unwrap();
        }
        // Where there is a list, the bits of the group are the most that it gives to anybody.
        let bits = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(bits(&path), 0o755);
        assert_eq!(bits(&path.join("a")), 0o755);
        assert_eq!(bits(&path.join("plain")), 0o644);
        assert_eq!(bits(&path.join("private")), 0o600);
    }

    #[test]
    fn what_is_mounted_in_a_tree_is_not_removed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (own, tree) = (dir.path().join("own"), dir.path().join("tree"));
        fs::create_dir_all(tree.join("data")).unwrap();
        fs::create_dir(&own).unwrap();
        fs::write(own.join("precious"), "data").unwrap();
        let run = |program: &str, arguments: &[&Path]| {
            let status = std::process::Command::new(program).args(arguments).status();
            status.is_ok_and(|status| status.success())
        };
        let data = tree.join("data");
        if !run("mount", &[Path::new("--bind"), &own, &data]) {
            assert!(
                std::env::var_os("TIDEGATE_REQUIRE_POWER_CUT").is_none(),
                "a folder must be mounted here and cannot be"
            );
            println!("skipped: nothing can be mounted here");
            return;
        }
        let refused = crate::fs::system().remove_tree(&tree);
        let kept = own.join("precious").exists();
        assert!(run("umount", &[&data]));
        assert!(kept);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        crate::fs::system().remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}

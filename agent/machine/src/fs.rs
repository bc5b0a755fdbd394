//! File system interface: the agent implements it on the machine's files, its tests on media that
//! power cuts leave. Nothing in this crate opens a file by another way.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use tidegate_delta::ReadAt;
use tidegate_protocol::Reason;

/// Type of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Link,
    /// A device, a pipe, a socket.
    Other,
}

/// Permissions of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Readable and writable by its owner only.
    Private,
    /// Readable by everybody.
    Plain,
    /// Readable and executable by everybody.
    Executable,
    /// These permission bits, whatever the process's umask is.
    Exact(u32),
}

/// Mode in which a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Read only; the file must exist.
    Read,
    /// Read only, a file that the agent keeps: it must be a regular one under this very name, and no link to
    /// one. Whoever ran meanwhile may have put anything in its place.
    Kept,
    /// Read and write; the file must exist.
    Existing,
    /// Read and write; the file must exist under this name alone: no link to it is followed, and it
    /// has no second name through which something else would be written to.
    Sole,
    /// Read and write; created if missing, otherwise left as it is.
    Update(Mode),
    /// Read and write; the file must not exist.
    New(Mode),
}

/// Error for something in a file's place that is none: a link, a pipe, a socket, a device, a folder.
pub fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file")
}

/// A file system. A change is durable only after the file, or the folder of a name, was synced.
pub trait Fs: Send + Sync {
    /// Opens a file. Never waits for another process, and refuses pipes, sockets and the like ([`no_file`]).
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn FsFile>>;
    /// Returns the type of an entry; links are not followed. `None` if there is none.
    fn kind(&self, path: &Path) -> io::Result<Option<Kind>>;
    /// Lists the entries of a folder, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Kind)>>;
    /// Creates one folder.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file, replacing whatever has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a hard link to a file.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a symbolic link at `path` that leads to `to`.
    fn symlink(&self, to: &Path, path: &Path) -> io::Result<()>;
    /// Returns the target of a symbolic link.
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;
    /// Removes a file or a link.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Returns whether something else is mounted on a folder, as far as the system tells.
    fn is_mount(&self, _dir: &Path) -> bool {
        false
    }
    /// Makes a folder's entries durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Returns the nine permission bits of a file or folder; `None` where there are none.
    fn mode(&self, _path: &Path) -> io::Result<Option<u32>> {
        Ok(None)
    }
    /// Gives a new file what the one at a path has beside its bytes, where there is such a thing: owner,
    /// permissions with the special bits, extended attributes with file capabilities. Of a link only
    /// the permissions of what it leads to. Synced with the file.
    fn take_attributes(&self, _to: &dyn FsFile, _from: &Path) -> io::Result<()> {
        Ok(())
    }
    /// Sets the permission bits of a file or folder, where there are any; synced with it.
    fn set_mode(&self, _path: &Path, _bits: u32) -> io::Result<()> {
        Ok(())
    }
}

/// An open file.
pub trait FsFile: ReadAt + Send + Sync {
    /// Length in bytes; the size of a block device.
    fn length(&self) -> io::Result<u64>;
    /// Writes all bytes at an offset.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes all bytes at an offset, not behind the end of a file, which may keep long runs of zeros as
    /// holes.
    fn append(&self, bytes: &[u8], end: u64) -> io::Result<()> {
        self.write_all_at(bytes, end)
    }
    /// Takes room for this many bytes in an empty file: fails now where a write would fail later, as by a
    /// quota.
    fn reserve(&self, _length: u64) -> io::Result<()> {
        Ok(())
    }
    /// Truncates or extends the file.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Makes bytes and length durable.
    fn sync(&self) -> io::Result<()>;
    /// Drops the file from the page cache, so that the next read is from the medium. Best effort.
    fn forget(&self) {}
    /// The operating system's file, if there is one: for data that need not be durable.
    fn as_file(&self) -> Option<&std::fs::File> {
        None
    }
}

impl dyn Fs + '_ {
    /// Replaces a file atomically and durably, by a temporary file, sync, rename and sync of the
    /// folder: after a power cut it is either the old or the new one.
    pub fn replace(&self, path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = dir.join(format!(".{name}.new"));
        // Whatever has this name, even a folder, is removed: the name is ours.
        self.remove_if_there(&temporary)
            .or_else(|_| self.remove_tree(&temporary))?;
        let file = self.open(&temporary, Open::New(mode))?;
        file.write_all_at(bytes, 0)?;
        file.sync()?;
        drop(file);
        self.rename(&temporary, path)?;
        self.sync_dir(dir)
    }

    /// Reads a file, up to `limit` bytes; `None` if there is none.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open(path, Open::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let length = file.length()?.min(limit);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    }

    /// Opens a file that the agent keeps and whose length it knows. Nothing of another one is read: it may
    /// be of any length.
    pub fn open_kept(&self, path: &Path, length: u64) -> io::Result<Box<dyn FsFile>> {
        let file = self.open(path, Open::Kept)?;
        let found = file.length()?;
        if found != length {
            let what = format!("it has {found} bytes instead of {length}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(file)
    }

    /// Creates a folder and its missing parents, durably.
    pub fn create_dirs(&self, dir: &Path) -> io::Result<()> {
        if self.kind(dir)?.is_some() {
            return Ok(());
        }
        let Some(above) = dir.parent() else {
            return self.create_dir(dir);
        };
        self.create_dirs(above)?;
        self.create_dir(dir)?;
        self.sync_dir(above)
    }

    /// Removes a file or link; a missing one is not an error.
    pub fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes a tree, links and all, without following any; a missing one is not an error. Refuses to go into
    /// what is mounted in it, which is somebody else's.
    pub fn remove_tree(&self, path: &Path) -> io::Result<()> {
        match self.kind(path)? {
            None => Ok(()),
            Some(Kind::Dir) if self.is_mount(path) => Err(io::ErrorKind::ResourceBusy.into()),
            Some(Kind::Dir) => {
                for (name, _) in self.list(path)? {
                    self.remove_tree(&path.join(name))?;
                }
                self.remove_dir(path)
            }
            Some(_) => self.remove_file(path),
        }
    }
}

/// Returns whether an error says something about this moment or this place and nothing about the
/// bytes: the machine lacks open files or memory, a file is in use, a name cannot be moved across
/// file systems. It is tried again; it never counts as damage, nor against a release.
pub fn is_momentary(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    /// EMFILE and ENFILE, which have no kind; on Windows too many open files, and no resources.
    const CODES: [i32; 3] = if cfg!(windows) {
        [4, 8, 1450]
    } else {
        [24, 23, 24]
    };
    matches!(
        error.kind(),
        E::CrossesDevices
            | E::ResourceBusy
            | E::Interrupted
            | E::OutOfMemory
            | E::ExecutableFileBusy
            | E::WouldBlock
    ) || error
        .raw_os_error()
        .is_some_and(|code| CODES.contains(&code))
}

/// Maps an I/O error to a reason. Those that can be fixed remotely have their own: a full disk, a
/// read-only one.
pub fn io_reason(error: &io::Error) -> Reason {
    match error.kind() {
        // `FileTooLarge`: for its file system, or for what this process may write.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Reason::DiskFull
        }
        io::ErrorKind::ReadOnlyFilesystem => Reason::ReadOnly,
        _ => Reason::StorageError,
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_place_has_a_reason_that_is_no_verdict_on_a_release() {
        // ENOSPC, EDQUOT, EFBIG; EROFS; EXDEV, EBUSY, ETXTBSY, ENFILE, EMFILE, ENOMEM, EACCES, EPERM, EIO.
        let full = [28, 122, 27].map(|code| (code, Reason::DiskFull));
        let others = [18, 16, 26, 23, 24, 12, 13, 1, 5].map(|code| (code, Reason::StorageError));
        let all = full
            .into_iter()
            .chain([(30, Reason::ReadOnly)])
            .chain(others);
        for (code, reason) in all {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(io_reason(&error), reason, "{error}");
            assert!(reason.is_of_the_place() && reason.retryable(), "{error}");
        }
    }
}

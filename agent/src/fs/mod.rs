//! File system interface of the agent, so that a power cut can be tried between any two operations.
//!
//! [`Real`] is the machine's. In a debug build it can be told to kill the process before the N-th
//! operation ([`system`]). Tests use a simulated one, which models what a power cut may leave of
//! unsynced data, and one that stops at an operation.

mod crashing;
mod held;
mod real;
#[cfg(test)]
pub(crate) mod sim;
mod tree;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_delta::ReadAt;

#[cfg(any(test, debug_assertions))]
pub(crate) use crashing::Crashing;
pub(crate) use held::is_held;
pub use real::Real;
pub(crate) use tree::{Compared, TreeAt};

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
}

/// Mode in which a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Read only; the file must exist.
    Read,
    /// Read and write; the file must exist.
    Existing,
    /// Read and write; created if missing, otherwise left as it is.
    Update(Mode),
    /// Read and write; the file must not exist.
    New(Mode),
}

/// A file system. A change is durable only after the file, or the folder of a name, was synced.
pub trait Fs: Send + Sync {
    /// Opens a file.
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
    /// Makes a folder's entries durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file.
pub trait FsFile: ReadAt + Send + Sync {
    /// Length in bytes; the size of a block device.
    fn length(&self) -> io::Result<u64>;
    /// Writes all bytes at an offset.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
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

/// The machine's file system. In a debug build, `TIDEGATE_CRASH_AT=N` kills the process with
/// SIGKILL before its N-th operation that changes something: no destructor runs, no buffer is
/// flushed. A release build has no such code.
pub fn system() -> Arc<dyn Fs> {
    #[cfg(all(debug_assertions, unix))]
    if let Some(at) = std::env::var("TIDEGATE_CRASH_AT")
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
    {
        return Arc::new(Crashing::new(Real, move |number, what, path| {
            if number == at {
                crashing::kill(at, what, path);
            }
            Ok(true)
        }));
    }
    Arc::new(Real)
}

impl dyn Fs + '_ {
    /// Replaces a file atomically and durably, by a temporary file, sync, rename and sync of the
    /// folder: after a power cut it is either the old or the new one.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
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
    pub(crate) fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
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

    /// Creates a folder and its missing parents, durably.
    pub(crate) fn create_dirs(&self, dir: &Path) -> io::Result<()> {
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
    pub(crate) fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes a tree, links and all, without following any; a missing one is not an error.
    pub(crate) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        match self.kind(path)? {
            None => Ok(()),
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

/// Sequential reader of a file from an offset.
pub(crate) struct Sequential<'a> {
    pub(crate) file: &'a dyn FsFile,
    pub(crate) at: u64,
    pub(crate) end: u64,
}

impl<'a> Sequential<'a> {
    /// Reads a file from its start to its end.
    pub(crate) fn whole(file: &'a dyn FsFile, length: u64) -> Self {
        Self {
            file,
            at: 0,
            end: length,
        }
    }
}

impl Read for Sequential<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let take = buf.len().min(left);
        self.file.read_exact_at(&mut buf[..take], self.at)?;
        self.at += take as u64;
        Ok(take)
    }
}

/// Sequential writer to a file; [`Write::flush`] makes what was written durable.
pub(crate) struct Appending<'a> {
    pub(crate) file: &'a dyn FsFile,
    pub(crate) at: u64,
}

impl Write for Appending<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(buf, self.at)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

//! File system wrapper that can stop before any operation that changes something.
#![cfg(any(test, debug_assertions))]

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_delta::ReadAt;

use super::{Fs, FsFile, Kind, Open};

/// Called before each operation with its number, from 1, its name and its path. An error becomes
/// the operation's; `false` skips the operation.
type Hook = dyn Fn(u64, &str, &Path) -> io::Result<bool> + Send + Sync;

/// Wraps a file system and counts the operations that change it.
pub(crate) struct Crashing<F> {
    inner: F,
    counter: Arc<Counter>,
}

struct Counter {
    count: AtomicU64,
    hook: Box<Hook>,
}

impl Counter {
    fn next(&self, what: &str, path: &Path) -> io::Result<bool> {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        (self.hook)(number, what, path)
    }
}

impl<F: Fs> Crashing<F> {
    pub(crate) fn new(
        inner: F,
        hook: impl Fn(u64, &str, &Path) -> io::Result<bool> + Send + Sync + 'static,
    ) -> Self {
        let counter = Arc::new(Counter {
            count: AtomicU64::new(0),
            hook: Box::new(hook),
        });
        Self { inner, counter }
    }

    fn next(&self, what: &str, path: &Path) -> io::Result<bool> {
        self.counter.next(what, path)
    }
}

/// Kills this process at once.
#[cfg(all(debug_assertions, unix))]
pub(super) fn kill(at: u64, what: &str, path: &Path) {
    let path = path.display();
    crate::log::line(&format!("killed before operation {at}: {what} {path}"));
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // The signal may take a moment to arrive.
    loop {
        std::thread::park();
    }
}

struct CrashingFile {
    inner: Box<dyn FsFile>,
    counter: Arc<Counter>,
    path: PathBuf,
}

impl CrashingFile {
    fn next(&self, what: &str) -> io::Result<bool> {
        self.counter.next(what, &self.path)
    }
}

impl ReadAt for CrashingFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(buf, offset)
    }
}

impl FsFile for CrashingFile {
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.next("write")? {
            self.inner.write_all_at(bytes, offset)
        } else {
            Ok(())
        }
    }

    fn append(&self, bytes: &[u8], end: u64) -> io::Result<()> {
        if self.next("write")? {
            self.inner.append(bytes, end)
        } else {
            Ok(())
        }
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        if self.next("reserve")? {
            self.inner.reserve(length)
        } else {
            Ok(())
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        if self.next("cut")? {
            self.inner.set_length(length)
        } else {
            Ok(())
        }
    }

    fn sync(&self) -> io::Result<()> {
        if self.next("sync")? {
            self.inner.sync()
        } else {
            Ok(())
        }
    }

    fn forget(&self) {
        self.inner.forget();
    }

    fn as_file(&self) -> Option<&std::fs::File> {
        self.inner.as_file()
    }
}

impl<F: Fs> Fs for Crashing<F> {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn FsFile>> {
        if !matches!(how, Open::Read | Open::Kept) {
            self.next("open", path)?;
        }
        Ok(Box::new(CrashingFile {
            inner: self.inner.open(path, how)?,
            counter: self.counter.clone(),
            path: path.to_owned(),
        }))
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        self.inner.kind(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if self.next("create folder", dir)? {
            self.inner.create_dir(dir)
        } else {
            Ok(())
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.next("rename to", to)? {
            self.inner.rename(from, to)
        } else {
            Ok(())
        }
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.next("hard link", to)? {
            self.inner.hard_link(from, to)
        } else {
            Ok(())
        }
    }

    fn symlink(&self, to: &Path, path: &Path) -> io::Result<()> {
        if self.next("link", path)? {
            self.inner.symlink(to, path)
        } else {
            Ok(())
        }
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.read_link(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if self.next("remove", path)? {
            self.inner.remove_file(path)
        } else {
            Ok(())
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        if self.next("remove folder", path)? {
            self.inner.remove_dir(path)
        } else {
            Ok(())
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.next("sync folder", dir)? {
            self.inner.sync_dir(dir)
        } else {
            Ok(())
        }
    }

    fn is_mount(&self, dir: &Path) -> bool {
        self.inner.is_mount(dir)
    }

    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        self.inner.mode(path)
    }

    fn set_mode(&self, path: &Path, bits: u32) -> io::Result<()> {
        if self.next("set mode", path)? {
            self.inner.set_mode(path, bits)
        } else {
            Ok(())
        }
    }

    fn take_attributes(&self, to: &dyn FsFile, from: &Path) -> io::Result<()> {
        if self.next("take attributes of", from)? {
            self.inner.take_attributes(to, from)
        } else {
            Ok(())
        }
    }
}

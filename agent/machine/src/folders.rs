//! Plain files as a file system, for the tests of this crate.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use tidegate_delta::ReadAt;

use crate::fs::{Fs, FsFile, Kind, Open};

/// The machine's folders, without modes and without patience for files that others hold.
pub(crate) struct Folders;

struct Plain(File);

impl ReadAt for Plain {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

impl FsFile for Plain {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut file = &self.0;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

fn kind_of(kind: fs::FileType) -> Kind {
    if kind.is_dir() { Kind::Dir } else { Kind::File }
}

impl Fs for Folders {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn FsFile>> {
        let mut options = File::options();
        let reads = matches!(how, Open::Read | Open::Kept);
        options.read(true).write(!reads);
        match how {
            Open::Read | Open::Kept | Open::Existing | Open::Sole => {}
            Open::Update(_) => {
                options.create(true).truncate(false);
            }
            Open::New(_) => {
                options.create_new(true);
            }
        }
        Ok(Box::new(Plain(options.open(path)?)))
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some(kind_of(meta.file_type()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        let entries = fs::read_dir(dir)?;
        entries
            .map(|entry| entry.and_then(|e| Ok((e.file_name(), kind_of(e.file_type()?)))))
            .collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn symlink(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

//! Archive trees on a file system: unpacked, or compared with what is there.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use tidegate_delta::archive::Tree;

use super::{Appending, Fs, Kind, Mode, Open, Sequential};

/// Unpacks the tree of an archive below a folder.
pub(crate) struct TreeAt<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) root: &'a Path,
}

impl Tree for TreeAt<'_> {
    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        self.fs.create_dir(&self.root.join(path))
    }

    fn make_file(&mut self, path: &Path, mode: u32, contents: &mut dyn Read) -> io::Result<()> {
        let how = Open::New(Mode::Exact(mode));
        let file = self.fs.open(&self.root.join(path), how)?;
        let mut out = io::BufWriter::with_capacity(
            64 << 10,
            Appending {
                file: &*file,
                at: 0,
            },
        );
        io::copy(contents, &mut out)?;
        // Flushing syncs.
        out.flush()
    }

    fn make_link(&mut self, path: &Path, to: &Path) -> io::Result<()> {
        self.fs.symlink(to, &self.root.join(path))
    }

    fn close_dir(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let path = self.root.join(path);
        self.fs.set_mode(&path, mode)?;
        self.fs.sync_dir(&path)
    }
}

/// Compares an existing tree with an archive: bytes, permission bits and names, with nothing
/// added.
pub(crate) struct Compared<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) root: &'a Path,
    /// Entries that the archive has, by folder.
    pub(crate) entries: BTreeMap<PathBuf, usize>,
}

impl<'a> Compared<'a> {
    pub(crate) fn new(fs: &'a dyn Fs, root: &'a Path) -> Self {
        Self {
            fs,
            root,
            entries: BTreeMap::new(),
        }
    }

    fn is(&mut self, path: &Path, kind: Kind) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new(""));
        *self.entries.entry(folder.to_owned()).or_default() += 1;
        let found = self.fs.kind(&self.root.join(path))?;
        same(found == Some(kind))
    }

    fn has_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let found = self.fs.mode(&self.root.join(path))?;
        same(found.is_none_or(|found| found == mode))
    }
}

fn same(is: bool) -> io::Result<()> {
    if is {
        Ok(())
    } else {
        Err(io::Error::other("it differs from what was installed"))
    }
}

impl Tree for Compared<'_> {
    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        self.is(path, Kind::Dir)
    }

    fn make_file(&mut self, path: &Path, mode: u32, contents: &mut dyn Read) -> io::Result<()> {
        self.is(path, Kind::File)?;
        self.has_mode(path, mode)?;
        let file = self.fs.open(&self.root.join(path), Open::Kept)?;
        file.forget();
        let mut there = Sequential::whole(&*file, file.length()?);
        let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        loop {
            let read = contents.read(&mut left)?;
            if read == 0 {
                return same(there.at == there.end);
            }
            same(there.end - there.at >= read as u64)?;
            there.read_exact(&mut right[..read])?;
            same(left[..read] == right[..read])?;
        }
    }

    fn make_link(&mut self, path: &Path, to: &Path) -> io::Result<()> {
        self.is(path, Kind::Link)?;
        same(self.fs.read_link(&self.root.join(path))? == to)
    }

    fn close_dir(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        self.has_mode(path, mode)?;
        let known = self.entries.get(path).copied().unwrap_or(0);
        same(self.fs.list(&self.root.join(path))?.len() == known)
    }
}

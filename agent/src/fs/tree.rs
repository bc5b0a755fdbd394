//! Archive trees on a file system: unpacked, or compared with what is there.

use std::io::{self, Read, Write as _};
use std::path::Path;

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

    fn make_file(
        &mut self,
        path: &Path,
        executable: bool,
        contents: &mut dyn Read,
    ) -> io::Result<()> {
        let mode = if executable {
            Mode::Executable
        } else {
            Mode::Plain
        };
        let file = self.fs.open(&self.root.join(path), Open::New(mode))?;
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

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.fs.sync_dir(&self.root.join(path))
    }
}

/// Compares an existing tree with an archive: each entry must match. Extra entries are ignored.
pub(crate) struct Compared<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) root: &'a Path,
}

impl Compared<'_> {
    fn is(&self, path: &Path, kind: Kind) -> io::Result<()> {
        let found = self.fs.kind(&self.root.join(path))?;
        same(found == Some(kind))
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

    fn make_file(&mut self, path: &Path, _: bool, contents: &mut dyn Read) -> io::Result<()> {
        self.is(path, Kind::File)?;
        let file = self.fs.open(&self.root.join(path), Open::Read)?;
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

    fn sync_dir(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

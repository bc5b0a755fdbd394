//! Mending a tree from its archive, file by file.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use tidegate_delta::archive::Tree;

use super::{Appending, Fs, FsFile, Kind, Mode, Open, Sequential, io_reason};
use crate::log;
use tidegate_protocol::Reason;

/// Bytes compared and written at a time.
const BLOCK: usize = 64 << 10;
/// Entries put aside that the log names: an application may have written thousands.
const NAMED: usize = 20;

/// Makes an existing tree that of an archive and touches only what differs. Idempotent: a power cut
/// in the middle leaves a tree that differs, and that is mended again before it is used.
pub(crate) struct Mended<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) root: &'a Path,
    /// Folder that takes what is not the archive's: somebody may have written it.
    pub(crate) was: &'a Path,
    /// Path of a file under construction, on the tree's file system.
    pub(crate) new: &'a Path,
    /// Write over the files themselves, as there is no room beside them.
    pub(crate) in_place: bool,
    /// Names that the archive has, by folder.
    pub(super) names: BTreeMap<PathBuf, BTreeSet<OsString>>,
    /// Number of entries that were put aside.
    pub(super) aside: Cell<usize>,
}

impl<'a> Mended<'a> {
    pub(crate) fn new(
        fs: &'a dyn Fs,
        root: &'a Path,
        [was, new]: [&'a Path; 2],
        in_place: bool,
    ) -> Self {
        Self {
            fs,
            root,
            was,
            new,
            in_place,
            names: BTreeMap::new(),
            aside: Cell::new(0),
        }
    }

    /// Notes a name as the archive's, and returns its path and what is there.
    pub(super) fn look(&mut self, path: &Path) -> io::Result<(PathBuf, Option<Kind>)> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let names = self.names.entry(folder.to_owned()).or_default();
        names.insert(path.file_name().unwrap_or_default().to_owned());
        let full = self.root.join(path);
        let kind = self.fs.kind(&full)?;
        Ok((full, kind))
    }

    /// Moves what is not the archive's out of the tree.
    pub(super) fn put_aside(&self, path: &Path) -> io::Result<()> {
        let to = self.was.join(path);
        self.aside.set(self.aside.get() + 1);
        if self.aside.get() <= NAMED {
            log::line(&format!(
                "{}: not what was installed; moved to {}",
                self.root.join(path).display(),
                to.display()
            ));
        }
        // A folder that was private has others' names for its files here.
        if self.fs.kind(self.was)?.is_none() {
            self.private_dir(self.was)?;
        }
        self.fs.create_dirs(to.parent().unwrap_or(self.was))?;
        self.fs.remove_tree(&to)?;
        move_tree(self.fs, &self.root.join(path), &to)
    }

    /// Moves what stands in the place of an entry aside; without room for that it is removed, since
    /// the version cannot run with it.
    fn clear(&self, path: &Path) -> io::Result<()> {
        match self.put_aside(path) {
            Err(error) if self.in_place && io_reason(&error) == Reason::DiskFull => {
                self.fs.remove_tree(&self.root.join(path))
            }
            other => other,
        }
    }

    /// Makes a folder that its owner alone may enter.
    fn private_dir(&self, path: &Path) -> io::Result<()> {
        self.fs.create_dir(path)?;
        self.fs.set_mode(path, 0o700)
    }

    fn set_mode(&self, full: &Path, mode: u32) -> io::Result<()> {
        if self.fs.mode(full)?.is_some_and(|found| found != mode) {
            self.fs.set_mode(full, mode)?;
        }
        Ok(())
    }

    /// Finds the offset at which a file stops being what it should be, and the block that should be
    /// there; `None` if it is whole. `contents` has been read up to the end of that block.
    pub(super) fn difference(
        there: &dyn FsFile,
        contents: &mut dyn Read,
        block: &mut Vec<u8>,
    ) -> io::Result<Option<u64>> {
        there.forget();
        let length = there.length()?;
        let (mut at, mut found) = (0, vec![0; BLOCK]);
        loop {
            let read = fill(contents, block)?;
            let end = at + read as u64;
            if read == 0 {
                return Ok((length != at).then_some(at));
            }
            // What cannot be read is not what it should be.
            if end > length
                || there.read_exact_at(&mut found[..read], at).is_err()
                || found[..read] != block[..]
            {
                return Ok(Some(at));
            }
            at = end;
        }
    }

    /// Writes a whole file beside, and renames it over the old one, which is kept.
    fn replace(
        &self,
        path: &Path,
        mode: u32,
        start: Option<(&dyn FsFile, u64)>,
        rest: &mut dyn Read,
    ) -> io::Result<()> {
        let full = self.root.join(path);
        // In a folder of its own: its place in the tree may be one that others do not reach.
        if let Some(folder) = self.new.parent()
            && self.fs.kind(folder)?.is_none()
        {
            self.private_dir(folder)?;
        }
        self.fs.remove_if_there(self.new)?;
        let file = self.fs.open(self.new, Open::New(Mode::Exact(mode)))?;
        let mut out = io::BufWriter::with_capacity(
            BLOCK,
            Appending {
                file: &*file,
                at: 0,
            },
        );
        let written = start
            .map_or(Ok(0), |(old, end)| {
                let mut same = Sequential {
                    file: old,
                    at: 0,
                    end,
                };
                io::copy(&mut same, &mut out)
            })
            .and_then(|_| io::copy(rest, &mut out))
            // Flushing syncs.
            .and_then(|_| out.flush());
        if let Err(error) = written {
            let _ = self.fs.remove_if_there(self.new);
            return Err(error);
        }
        if self.fs.kind(&full)?.is_some() {
            self.clear(path)?;
        }
        self.fs.rename(self.new, &full)
    }

    /// Writes over what differs from `at` on.
    fn overwrite(
        &self,
        full: &Path,
        mut at: u64,
        mut block: Vec<u8>,
        contents: &mut dyn Read,
    ) -> io::Result<()> {
        log::line(&format!(
            "{}: not what was installed; written over, as there is no room beside it",
            full.display()
        ));
        let file = self.fs.open(full, Open::Sole)?;
        let (length, mut found) = (file.length()?, vec![0; BLOCK]);
        while !block.is_empty() {
            let end = at + block.len() as u64;
            let found = &mut found[..block.len()];
            let same =
                end <= length && file.read_exact_at(found, at).is_ok() && *found == block[..];
            if !same {
                file.append(&block, at)?;
            }
            at = end;
            fill(contents, &mut block)?;
        }
        file.set_length(at)?;
        file.sync()
    }
}

impl Tree for Mended<'_> {
    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        let (full, kind) = self.look(path)?;
        match kind {
            Some(Kind::Dir) => {
                // What lies below must be reached; its own bits are set when it is closed.
                if self
                    .fs
                    .mode(&full)?
                    .is_some_and(|mode| mode & 0o700 != 0o700)
                {
                    self.fs.set_mode(&full, 0o700)?;
                }
                return Ok(());
            }
            Some(_) => self.clear(path)?,
            None => {}
        }
        // Its own bits are set when it is closed.
        self.private_dir(&full)
    }

    fn make_file(&mut self, path: &Path, mode: u32, contents: &mut dyn Read) -> io::Result<()> {
        let (full, kind) = self.look(path)?;
        if kind != Some(Kind::File) {
            return self.replace(path, mode, None, contents);
        }
        let readable = self.fs.mode(&full)?;
        if readable.is_some_and(|bits| bits & 0o600 != 0o600) {
            self.fs.set_mode(&full, mode)?;
        }
        let there = self.fs.open(&full, Open::Kept)?;
        let mut block = Vec::new();
        if let Some(at) = Self::difference(&*there, contents, &mut block)? {
            if !self.in_place {
                let mut rest = block.as_slice().chain(contents);
                return self.replace(path, mode, Some((&*there, at)), &mut rest);
            }
            self.overwrite(&full, at, block, contents)?;
        }
        self.set_mode(&full, mode)
    }

    fn make_link(&mut self, path: &Path, to: &Path) -> io::Result<()> {
        let (full, kind) = self.look(path)?;
        match kind {
            Some(Kind::Link) if self.fs.read_link(&full)? == to => return Ok(()),
            Some(_) => self.clear(path)?,
            None => {}
        }
        self.fs.symlink(to, &full)
    }

    fn close_dir(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let full = self.root.join(path);
        let known = self.names.remove(path).unwrap_or_default();
        for (name, _) in self.fs.list(&full)? {
            if known.contains(&name) {
                continue;
            }
            let added = path.join(name);
            match self.put_aside(&added) {
                // Somebody's data is not thrown away for want of a name for it, and the version ran
                // beside it before.
                Err(error) if self.in_place && io_reason(&error) == Reason::DiskFull => {
                    log::line(&format!("{}: stays there: {error}", added.display()));
                }
                other => other?,
            }
        }
        self.set_mode(&full, mode)?;
        self.fs.sync_dir(&full)
    }
}

/// Reads a block, shorter only at the end.
fn fill(contents: &mut dyn Read, block: &mut Vec<u8>) -> io::Result<usize> {
    block.resize(BLOCK, 0);
    let mut read = 0;
    while read < BLOCK {
        match contents.read(&mut block[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    block.truncate(read);
    Ok(read)
}

/// Moves a tree. Where it cannot be renamed, as a folder of an overlay's lower layer, its entries are
/// moved one by one, and files are copied if need be.
pub(crate) fn move_tree(fs: &dyn Fs, from: &Path, to: &Path) -> io::Result<()> {
    match fs.rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        other => return other,
    }
    match fs.kind(from)? {
        None => Ok(()),
        Some(Kind::Dir) => {
            if fs.kind(to)?.is_none() {
                fs.create_dir(to)?;
            }
            for (name, _) in fs.list(from)? {
                move_tree(fs, &from.join(&name), &to.join(&name))?;
            }
            fs.remove_dir(from)
        }
        Some(Kind::Link) => {
            fs.symlink(&fs.read_link(from)?, to)?;
            fs.remove_file(from)
        }
        Some(Kind::File) => {
            let file = fs.open(from, Open::Kept)?;
            let bits = fs.mode(from)?.unwrap_or(0o600);
            let copy = fs.open(to, Open::New(Mode::Exact(bits)))?;
            let mut out = Appending {
                file: &*copy,
                at: 0,
            };
            io::copy(&mut Sequential::whole(&*file, file.length()?), &mut out)?;
            out.flush()?;
            fs.remove_file(from)
        }
        // A pipe or a socket holds nothing.
        Some(Kind::Other) => fs.remove_file(from),
    }
}

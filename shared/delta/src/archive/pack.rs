//! Packing of a folder.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::links::{Links, check_links};
use super::losses::Losses;
use super::{ArchiveError, Changes, MAX_ENTRIES, dir_mode, file_mode, io_at, refused};

/// Losses that packing may make; by default none.
#[derive(Debug, Clone, Copy, Default)]
pub struct PackOptions {
    /// Make files and folders that others may not read readable by everybody.
    pub public: bool,
    /// Drop what an artifact has no place for: setuid, setgid and sticky bits, extended attributes
    /// with file capabilities, hard links, other owners.
    pub drop_attributes: bool,
    /// User that everything will belong to: files of others are refused. `None` does not look at
    /// owners, as those of the machine that publishes say nothing about a device.
    pub owner: Option<u32>,
}

/// Packs a folder, or a single file, into `out`. Entries are sorted by path; times and owners are
/// left out. Refuses a tree that would lose more.
pub fn pack<W: Write>(root: &Path, out: W) -> Result<W, ArchiveError> {
    pack_with(root, out, PackOptions::default()).map(|(out, _)| out)
}

/// Packs like [`pack`], says what may be lost, and returns what was changed.
pub fn pack_with<W: Write>(
    root: &Path,
    out: W,
    options: PackOptions,
) -> Result<(W, Changes), ArchiveError> {
    let meta = fs::metadata(root).map_err(io_at(root))?;
    let whole = Stamp::of(&meta);
    let mut found = Found {
        root,
        entries: Vec::new(),
        links: Links::new(),
        losses: Losses::new(options),
    };
    if meta.is_dir() {
        found.losses.note_root(root, &meta)?;
        found.collect(Path::new(""))?;
        if !found.entries.iter().any(|entry| entry.kind != Kind::Dir) {
            return Err(ArchiveError::Empty(root.to_owned()));
        }
    } else if meta.is_file() {
        let name = root
            .file_name()
            .ok_or_else(|| refused(root, "it has no file name"))?;
        found.losses.note(root, Path::new(name), &meta)?;
        found.add(PathBuf::from(name), Kind::File, &meta);
    } else {
        return Err(refused(root, ONLY));
    }
    found.losses.refuse(root)?;
    check_links(&found.links)?;
    let mut entries = found.entries;
    // Sorted by path components, so that a folder comes before its contents on every system.
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut builder = tar::Builder::new(out);
    builder.mode(tar::HeaderMode::Deterministic);
    for entry in &entries {
        let source = if meta.is_dir() {
            root.join(&entry.path)
        } else {
            root.to_owned()
        };
        match entry.kind {
            Kind::Link => append_link(&mut builder, &source, entry, &found.links[&entry.path])?,
            Kind::Dir => append_dir(&mut builder, &source, entry, options.public)?,
            Kind::File => append_file(&mut builder, &source, entry, options.public)?,
        }
    }
    if meta.is_dir() {
        check_folders(root, whole, &entries)?;
    }
    let out = builder.into_inner().map_err(io_at(root))?;
    Ok((out, found.losses.changes))
}

/// Checks a file whose bytes alone are published, and returns what does not come along.
pub fn check_raw(path: &Path, options: PackOptions) -> Result<Changes, ArchiveError> {
    let meta = fs::metadata(path).map_err(io_at(path))?;
    let mut losses = Losses::new(options);
    losses.note_raw(path, &meta)?;
    losses.refuse(path)?;
    Ok(losses.changes)
}

const ONLY: &str = "only files, folders and symbolic links are published";
const CHANGED: &str = "it was changed while it was packed: stop what writes to it, then try again";
const MOVED: &str = "something was added to the folder or removed from it while it was packed: stop what does \
    so, then try again";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dir,
    File,
    Link,
}

/// An entry as it was found.
struct Entry {
    path: PathBuf,
    kind: Kind,
    stamp: Stamp,
}

/// Facts of a file or folder that a change to it changes as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    /// Permission bits, where there are any.
    mode: Option<u32>,
    /// Device and number, where there are any.
    id: [u64; 2],
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let (mode, id) = {
            use std::os::unix::fs::MetadataExt as _;
            (Some(meta.mode()), [meta.dev(), meta.ino()])
        };
        #[cfg(not(unix))]
        let (mode, id) = (None, [0; 2]);
        Self {
            length: meta.len(),
            modified: meta.modified().ok(),
            mode,
            id,
        }
    }
}

/// The entries of a folder, and what they would lose.
struct Found<'a> {
    root: &'a Path,
    entries: Vec<Entry>,
    links: Links,
    losses: Losses,
}

impl Found<'_> {
    fn add(&mut self, path: PathBuf, kind: Kind, meta: &fs::Metadata) {
        let stamp = Stamp::of(meta);
        self.entries.push(Entry { path, kind, stamp });
    }

    fn collect(&mut self, below: &Path) -> Result<(), ArchiveError> {
        let dir = self.root.join(below);
        for entry in fs::read_dir(&dir).map_err(io_at(&dir))? {
            let entry = entry.map_err(io_at(&dir))?;
            let (path, source) = (below.join(entry.file_name()), entry.path());
            if self.entries.len() >= MAX_ENTRIES {
                return Err(refused(&path, "there are more than 500,000 entries"));
            }
            if path.to_str().is_none() {
                return Err(refused(&path, "its name is not UTF-8"));
            }
            // Not followed: a link is an entry of its own.
            let meta = fs::symlink_metadata(&source).map_err(io_at(&source))?;
            self.losses.note(&source, &path, &meta)?;
            if meta.is_dir() {
                self.add(path.clone(), Kind::Dir, &meta);
                self.collect(&path)?;
            } else if meta.is_file() {
                self.add(path, Kind::File, &meta);
            } else if meta.is_symlink() {
                let to = fs::read_link(&source).map_err(io_at(&source))?;
                self.links.insert(path.clone(), to);
                self.add(path, Kind::Link, &meta);
            } else {
                return Err(refused(&path, ONLY));
            }
        }
        Ok(())
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append_dir<W: Write>(
    builder: &mut tar::Builder<W>,
    source: &Path,
    entry: &Entry,
    public: bool,
) -> Result<(), ArchiveError> {
    let all = if public { 0o755 } else { 0 };
    let mode = dir_mode(entry.stamp.mode.unwrap_or(0o755) | all);
    let mut header = header(tar::EntryType::Directory, mode, 0);
    builder
        .append_data(&mut header, &entry.path, io::empty())
        .map_err(io_at(source))
}

fn append_link<W: Write>(
    builder: &mut tar::Builder<W>,
    source: &Path,
    entry: &Entry,
    to: &Path,
) -> Result<(), ArchiveError> {
    let mut header = header(tar::EntryType::Symlink, 0o777, 0);
    builder
        .append_link(&mut header, &entry.path, to)
        .map_err(io_at(source))
}

fn append_file<W: Write>(
    builder: &mut tar::Builder<W>,
    source: &Path,
    entry: &Entry,
    public: bool,
) -> Result<(), ArchiveError> {
    let file = open_plain(source).map_err(io_at(source))?;
    let as_found = |file: &File| -> Result<(), ArchiveError> {
        let meta = file.metadata().map_err(io_at(source))?;
        if meta.is_file() && Stamp::of(&meta) == entry.stamp {
            return Ok(());
        }
        Err(refused(&entry.path, CHANGED))
    };
    as_found(&file)?;
    let length = entry.stamp.length;
    let mut mode = file_mode(entry.stamp.mode.unwrap_or(0o644));
    if public {
        mode |= if mode & 0o111 == 0 { 0o644 } else { 0o755 };
    }
    let mut header = header(tar::EntryType::Regular, mode, length);
    // A file that grows while it is packed would shift everything after it.
    let mut bytes = (&file).take(length);
    builder
        .append_data(&mut header, &entry.path, &mut bytes)
        .map_err(io_at(source))?;
    // So would one that shrinks.
    if bytes.limit() > 0 {
        return Err(refused(&entry.path, CHANGED));
    }
    as_found(&file)
}

/// Opens a file for reading; a pipe that has taken its place since it was listed does not hang.
fn open_plain(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        let flags = rustix::fs::OFlags::NONBLOCK.bits();
        let flags = i32::try_from(flags).unwrap_or(0);
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    options.open(path)
}

/// Checks that nothing came into the folders, or went, since they were listed.
fn check_folders(root: &Path, whole: Stamp, entries: &[Entry]) -> Result<(), ArchiveError> {
    // Elsewhere a folder's time follows late.
    if !cfg!(unix) {
        return Ok(());
    }
    let folders = entries.iter().filter(|entry| entry.kind == Kind::Dir);
    let folders = folders.map(|entry| (entry.path.as_path(), entry.stamp));
    for (path, stamp) in std::iter::once((Path::new(""), whole)).chain(folders) {
        let source = root.join(path);
        let meta = fs::metadata(&source).map_err(io_at(&source))?;
        if Stamp::of(&meta) != stamp {
            let path = if path == Path::new("") { root } else { path };
            return Err(refused(path, MOVED));
        }
    }
    Ok(())
}

//! Packing of a folder.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use super::links::{Links, check_links};
use super::losses::Losses;
use super::{ArchiveError, MAX_ENTRIES, dir_mode, file_mode, io_at, refused};

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
    pack_with(root, out, PackOptions::default())
}

/// Packs like [`pack`], and says what may be lost.
pub fn pack_with<W: Write>(root: &Path, out: W, options: PackOptions) -> Result<W, ArchiveError> {
    let meta = fs::metadata(root).map_err(io_at(root))?;
    let mut found = Found {
        root,
        entries: Vec::new(),
        links: Links::new(),
        losses: Losses::new(options),
    };
    if meta.is_dir() {
        found.losses.note_root(&meta);
        found.collect(Path::new(""))?;
        if !found.entries.iter().any(|(_, kind)| *kind != Kind::Dir) {
            return Err(ArchiveError::Empty(root.to_owned()));
        }
    } else {
        let name = root
            .file_name()
            .ok_or_else(|| refused(root, "it has no file name"))?;
        found.losses.note(root, Path::new(name), &meta)?;
        found.entries.push((PathBuf::from(name), Kind::File));
    }
    found.losses.refuse(root)?;
    check_links(&found.links)?;
    let mut entries = found.entries;
    // Sorted by path components, so that a folder comes before its contents on every system.
    entries.sort();
    let mut builder = tar::Builder::new(out);
    builder.mode(tar::HeaderMode::Deterministic);
    for (path, kind) in entries {
        let source = if meta.is_dir() {
            root.join(&path)
        } else {
            root.to_owned()
        };
        match kind {
            Kind::Link => append_link(&mut builder, &source, &path, &found.links[&path])?,
            Kind::Dir => append_dir(&mut builder, &source, &path, options.public)?,
            Kind::File => append_file(&mut builder, &source, &path, options.public)?,
        }
    }
    builder.into_inner().map_err(io_at(root))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Dir,
    File,
    Link,
}

/// The entries of a folder, and what they would lose.
struct Found<'a> {
    root: &'a Path,
    entries: Vec<(PathBuf, Kind)>,
    links: Links,
    losses: Losses,
}

impl Found<'_> {
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
                self.entries.push((path.clone(), Kind::Dir));
                self.collect(&path)?;
            } else if meta.is_file() {
                self.entries.push((path, Kind::File));
            } else if meta.is_symlink() {
                let to = fs::read_link(&source).map_err(io_at(&source))?;
                self.links.insert(path.clone(), to);
                self.entries.push((path, Kind::Link));
            } else {
                return Err(refused(
                    &path,
                    "only files, folders and symbolic links are published",
                ));
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
    path: &Path,
    public: bool,
) -> Result<(), ArchiveError> {
    let meta = fs::symlink_metadata(source).map_err(io_at(source))?;
    let all = if public { 0o755 } else { 0 };
    let mode = dir_mode(bits(&meta).unwrap_or(0o755) | all);
    let mut header = header(tar::EntryType::Directory, mode, 0);
    builder
        .append_data(&mut header, path, io::empty())
        .map_err(io_at(source))
}

fn append_link<W: Write>(
    builder: &mut tar::Builder<W>,
    source: &Path,
    path: &Path,
    to: &Path,
) -> Result<(), ArchiveError> {
    let mut header = header(tar::EntryType::Symlink, 0o777, 0);
    builder
        .append_link(&mut header, path, to)
        .map_err(io_at(source))
}

fn append_file<W: Write>(
    builder: &mut tar::Builder<W>,
    source: &Path,
    path: &Path,
    public: bool,
) -> Result<(), ArchiveError> {
    let file = File::open(source).map_err(io_at(source))?;
    let meta = file.metadata().map_err(io_at(source))?;
    let mut mode = file_mode(bits(&meta).unwrap_or(0o644));
    if public {
        mode |= if mode & 0o111 == 0 { 0o644 } else { 0o755 };
    }
    let mut header = header(tar::EntryType::Regular, mode, meta.len());
    // A file that grows while it is packed would shift everything after it.
    builder
        .append_data(&mut header, path, file.take(meta.len()))
        .map_err(io_at(source))
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "other systems have none")]
fn bits(meta: &fs::Metadata) -> Option<u32> {
    Some(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()))
}

#[cfg(not(unix))]
fn bits(_: &fs::Metadata) -> Option<u32> {
    None
}

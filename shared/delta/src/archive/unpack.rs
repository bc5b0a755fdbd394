//! Unpacking of an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::links::{Links, check_links};
use super::{ArchiveError, MAX_ENTRIES, OPEN_DIR, dir_mode, file_mode, io_at, refused};

/// Folder that an archive is unpacked into. Paths are relative to it, and safe.
pub trait Tree {
    /// Creates a folder; its parent exists.
    fn make_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Creates a file with these contents and permission bits, and makes it durable.
    fn make_file(&mut self, path: &Path, mode: u32, contents: &mut dyn Read) -> io::Result<()>;
    /// Creates a symbolic link.
    fn make_link(&mut self, path: &Path, to: &Path) -> io::Result<()>;
    /// Completes a folder, which has all its entries: sets its permission bits and makes it durable.
    /// The empty path is the tree itself.
    fn close_dir(&mut self, path: &Path, mode: u32) -> io::Result<()>;
}

/// Unpacks an archive into `into`, which must be an empty folder of our own, and syncs every file
/// and folder to storage.
pub fn unpack(archive: impl Read, into: &Path) -> Result<(), ArchiveError> {
    unpack_to(archive, &mut Folder(into))
}

/// Unpacks an archive into an empty tree and makes every file and folder durable. Symbolic links
/// are created last, so that nothing is ever written through one.
pub fn unpack_to(archive: impl Read, tree: &mut dyn Tree) -> Result<(), ArchiveError> {
    let mut reader = tar::Archive::new(archive);
    let mut seen = BTreeSet::new();
    let mut links = Links::new();
    let mut dirs = BTreeMap::from([(PathBuf::new(), OPEN_DIR)]);
    let malformed = |e: io::Error| ArchiveError::Malformed(e.to_string());
    for entry in reader.entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        let path = inner_path(&entry.path().map_err(malformed)?)?;
        if seen.len() >= MAX_ENTRIES {
            return Err(refused(&path, "there are more than 500,000 entries"));
        }
        if !seen.insert(path.clone()) {
            return Err(refused(&path, "it appears twice"));
        }
        if path.ancestors().any(|above| links.contains_key(above)) {
            return Err(refused(&path, "its path goes through a symbolic link"));
        }
        let mode = entry.header().mode().map_err(malformed)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                make_dirs(tree, &path, &mut dirs)?;
                dirs.insert(path, dir_mode(mode));
            }
            tar::EntryType::Regular => {
                make_dirs(tree, parent, &mut dirs)?;
                tree.make_file(&path, file_mode(mode), &mut entry)
                    .map_err(io_at(&path))?;
            }
            tar::EntryType::Symlink => {
                let to = entry
                    .link_name()
                    .map_err(malformed)?
                    .ok_or_else(|| refused(&path, "the link has no target"))?
                    .into_owned();
                make_dirs(tree, parent, &mut dirs)?;
                links.insert(path, to);
            }
            _ => {
                return Err(refused(
                    &path,
                    "only files, folders and symbolic links are unpacked",
                ));
            }
        }
    }
    // Only now are all of them known that one may lead through.
    check_links(&links)?;
    for (path, to) in links {
        tree.make_link(&path, &to).map_err(io_at(&path))?;
    }
    // Deepest first: a folder's entries are durable before the folder is.
    for (dir, mode) in dirs.iter().rev() {
        tree.close_dir(dir, *mode).map_err(io_at(dir))?;
    }
    Ok(())
}

pub(super) fn inner_path(path: &Path) -> Result<PathBuf, ArchiveError> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(refused(path, "its path points outside the folder"));
            }
        }
    }
    if clean.as_os_str().is_empty() {
        return Err(refused(path, "its path is empty"));
    }
    Ok(clean)
}

fn make_dirs(
    tree: &mut dyn Tree,
    path: &Path,
    dirs: &mut BTreeMap<PathBuf, u32>,
) -> Result<(), ArchiveError> {
    let mut at = PathBuf::new();
    for part in path.components() {
        at.push(part);
        if dirs.contains_key(&at) {
            continue;
        }
        tree.make_dir(&at).map_err(io_at(&at))?;
        dirs.insert(at.clone(), OPEN_DIR);
    }
    Ok(())
}

/// A folder on disk.
struct Folder<'a>(&'a Path);

impl Tree for Folder<'_> {
    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        fs::create_dir(self.0.join(path))
    }

    fn make_file(&mut self, path: &Path, mode: u32, contents: &mut dyn Read) -> io::Result<()> {
        let path = self.0.join(path);
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path)?;
        io::copy(contents, &mut file)?;
        set_mode(&path, mode)?;
        file.sync_all()
    }

    #[cfg(unix)]
    fn make_link(&mut self, path: &Path, to: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(to, self.0.join(path))
    }

    #[cfg(not(unix))]
    fn make_link(&mut self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn close_dir(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let path = self.0.join(path);
        // Windows has no handle to a folder that can be synced.
        if cfg!(unix) {
            set_mode(&path, mode)?;
            File::open(path)?.sync_all()
        } else {
            Ok(())
        }
    }
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "there are no such bits")]
fn set_mode(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}

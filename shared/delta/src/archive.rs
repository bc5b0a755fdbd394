//! Packing a folder into an artifact's bytes, and unpacking those bytes into a folder.
//!
//! [`pack`] writes a tar that depends only on names, contents and the executable bit: packing the
//! same tree twice, on any machine, gives the same bytes, so that a device can rebuild the base of
//! a delta from what is installed. [`unpack`] accepts only plain files, directories and symbolic
//! links that stay inside the folder.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

/// Maximum number of entries in an archive.
pub const MAX_ENTRIES: usize = 500_000;

/// Reason a folder could not be packed, or an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Reading or writing failed.
    #[error("{path}", path = path.display())]
    Io {
        /// Path that failed.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// An entry that is not allowed in an artifact.
    #[error("{path:?} is not allowed in an artifact: {rule}")]
    Refused {
        /// The entry's path.
        path: String,
        /// Rule that it breaks.
        rule: &'static str,
    },
    /// The bytes are not an archive.
    #[error("not an archive: {0}")]
    Malformed(String),
    /// There is nothing to pack.
    #[error("{0} contains no files: there is nothing to publish")]
    Empty(PathBuf),
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError + '_ {
    move |source| ArchiveError::Io {
        path: path.to_owned(),
        source,
    }
}

fn refused(path: &Path, rule: &'static str) -> ArchiveError {
    ArchiveError::Refused {
        path: path.to_string_lossy().chars().take(200).collect(),
        rule,
    }
}

/// Packs a folder, or a single file, into `out`. Entries are sorted by path; times, owners and
/// all permission bits but "executable" are left out.
pub fn pack<W: Write>(root: &Path, out: W) -> Result<W, ArchiveError> {
    let mut entries = Vec::new();
    let meta = fs::metadata(root).map_err(io_at(root))?;
    if meta.is_dir() {
        collect(root, Path::new(""), &mut entries)?;
        if !entries.iter().any(|(_, kind)| *kind != Kind::Dir) {
            return Err(ArchiveError::Empty(root.to_owned()));
        }
    } else {
        let name = root
            .file_name()
            .ok_or_else(|| refused(root, "it has no file name"))?;
        entries.push((PathBuf::from(name), Kind::File));
    }
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
        append(&mut builder, &source, &path, kind)?;
    }
    builder.into_inner().map_err(io_at(root))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Dir,
    File,
    Link,
}

fn collect(
    root: &Path,
    below: &Path,
    entries: &mut Vec<(PathBuf, Kind)>,
) -> Result<(), ArchiveError> {
    let dir = root.join(below);
    for entry in fs::read_dir(&dir).map_err(io_at(&dir))? {
        let entry = entry.map_err(io_at(&dir))?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type().map_err(io_at(&dir))?;
        if entries.len() >= MAX_ENTRIES {
            return Err(refused(&path, "there are more than 500,000 entries"));
        }
        if path.to_str().is_none() {
            return Err(refused(&path, "its name is not UTF-8"));
        }
        if kind.is_dir() {
            entries.push((path.clone(), Kind::Dir));
            collect(root, &path, entries)?;
        } else if kind.is_file() {
            entries.push((path, Kind::File));
        } else if kind.is_symlink() {
            entries.push((path, Kind::Link));
        } else {
            return Err(refused(
                &path,
                "only files, folders and symbolic links are published",
            ));
        }
    }
    Ok(())
}

fn append<W: Write>(
    builder: &mut tar::Builder<W>,
    source: &Path,
    path: &Path,
    kind: Kind,
) -> Result<(), ArchiveError> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match kind {
        Kind::Dir => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            builder
                .append_data(&mut header, path, io::empty())
                .map_err(io_at(source))
        }
        Kind::Link => {
            let to = fs::read_link(source).map_err(io_at(source))?;
            check_link(path, &to)?;
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            builder
                .append_link(&mut header, path, &to)
                .map_err(io_at(source))
        }
        Kind::File => {
            let file = File::open(source).map_err(io_at(source))?;
            let meta = file.metadata().map_err(io_at(source))?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(meta.len());
            header.set_mode(if is_executable(&meta) { 0o755 } else { 0o644 });
            // A file that grows while it is packed would shift everything after it.
            builder
                .append_data(&mut header, path, file.take(meta.len()))
                .map_err(io_at(source))
        }
    }
}

#[cfg(unix)]
fn is_executable(meta: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    meta.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &fs::Metadata) -> bool {
    false
}

/// Folder that an archive is unpacked into. Paths are relative to it, and safe.
pub trait Tree {
    /// Creates a folder; its parent exists.
    fn make_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Creates a file with these contents and makes it durable.
    fn make_file(
        &mut self,
        path: &Path,
        executable: bool,
        contents: &mut dyn Read,
    ) -> io::Result<()>;
    /// Creates a symbolic link.
    fn make_link(&mut self, path: &Path, to: &Path) -> io::Result<()>;
    /// Makes the entries of a folder durable; the empty path is the tree itself.
    fn sync_dir(&mut self, path: &Path) -> io::Result<()>;
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
    let mut links: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut dirs = BTreeSet::from([PathBuf::new()]);
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
        if links.iter().any(|(link, _)| path.starts_with(link)) {
            return Err(refused(&path, "its path goes through a symbolic link"));
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        match entry.header().entry_type() {
            tar::EntryType::Directory => make_dirs(tree, &path, &mut dirs)?,
            tar::EntryType::Regular => {
                make_dirs(tree, parent, &mut dirs)?;
                let executable = entry.header().mode().unwrap_or(0) & 0o100 != 0;
                tree.make_file(&path, executable, &mut entry)
                    .map_err(io_at(&path))?;
            }
            tar::EntryType::Symlink => {
                let to = entry
                    .link_name()
                    .map_err(malformed)?
                    .ok_or_else(|| refused(&path, "the link has no target"))?
                    .into_owned();
                check_link(&path, &to)?;
                make_dirs(tree, parent, &mut dirs)?;
                links.push((path, to));
            }
            _ => {
                return Err(refused(
                    &path,
                    "only files, folders and symbolic links are unpacked",
                ));
            }
        }
    }
    for (path, to) in links {
        tree.make_link(&path, &to).map_err(io_at(&path))?;
    }
    // Deepest first: a folder's entries are durable before the folder is.
    for dir in dirs.iter().rev() {
        tree.sync_dir(dir).map_err(io_at(dir))?;
    }
    Ok(())
}

fn inner_path(path: &Path) -> Result<PathBuf, ArchiveError> {
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

/// Checks that a link points below the folder.
fn check_link(path: &Path, to: &Path) -> Result<(), ArchiveError> {
    let mut depth = path.components().count().saturating_sub(1);
    for part in to.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(refused(path, "the link points outside the folder"));
            }
        }
    }
    Ok(())
}

fn make_dirs(
    tree: &mut dyn Tree,
    path: &Path,
    dirs: &mut BTreeSet<PathBuf>,
) -> Result<(), ArchiveError> {
    let mut at = PathBuf::new();
    for part in path.components() {
        at.push(part);
        if dirs.contains(&at) {
            continue;
        }
        tree.make_dir(&at).map_err(io_at(&at))?;
        dirs.insert(at.clone());
    }
    Ok(())
}

/// A folder on disk.
struct Folder<'a>(&'a Path);

impl Tree for Folder<'_> {
    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        fs::create_dir(self.0.join(path))
    }

    fn make_file(
        &mut self,
        path: &Path,
        executable: bool,
        contents: &mut dyn Read,
    ) -> io::Result<()> {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(if executable { 0o755 } else { 0o644 });
        }
        #[cfg(not(unix))]
        let _ = executable;
        let mut file = options.open(self.0.join(path))?;
        io::copy(contents, &mut file)?;
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

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        // Windows has no handle to a folder that can be synced.
        if cfg!(unix) {
            File::open(self.0.join(path))?.sync_all()
        } else {
            Ok(())
        }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn tree(dir: &Path) {
        fs::create_dir_all(dir.join("bin")).unwrap();
        fs::create_dir_all(dir.join("data/empty")).unwrap();
        fs::write(dir.join("bin/app"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(dir.join("bin/app"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("data/table"), vec![7; 10_000]).unwrap();
        symlink("../data/table", dir.join("bin/table")).unwrap();
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes_and_comes_back_whole() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tree(a.path());
        let first = pack(a.path(), Vec::new()).unwrap();
        unpack(&first[..], b.path()).unwrap();
        let second = pack(b.path(), Vec::new()).unwrap();
        assert!(first == second);
        assert!(b.path().join("data/empty").is_dir());
        assert_eq!(
            fs::read(b.path().join("bin/table")).unwrap(),
            vec![7; 10_000]
        );
    }

    #[test]
    fn a_single_file_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tool"), "x").unwrap();
        let bytes = pack(&dir.path().join("tool"), Vec::new()).unwrap();
        let out = tempfile::tempdir().unwrap();
        unpack(&bytes[..], out.path()).unwrap();
        assert_eq!(fs::read(out.path().join("tool")).unwrap(), b"x");
    }

    #[test]
    fn an_empty_folder_is_nothing_to_publish() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            pack(dir.path(), Vec::new()),
            Err(ArchiveError::Empty(_))
        ));
    }

    /// Builds a header by hand: the tar crate itself refuses to write hostile paths.
    fn hostile(path: &str, kind: tar::EntryType, link: Option<&str>) -> Vec<u8> {
        let mut header = tar::Header::new_old();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(link) = link {
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([0; 1024]);
        bytes
    }

    #[test]
    fn what_leads_out_of_the_folder_or_is_no_plain_file_is_refused() {
        use tar::EntryType as T;
        let cases = [
            hostile("../evil", T::Regular, None),
            hostile("/evil", T::Regular, None),
            hostile("a/../../evil", T::Regular, None),
            hostile("link", T::Symlink, Some("/etc/passwd")),
            hostile("link", T::Symlink, Some("../x")),
            hostile("hard", T::Link, Some("/etc/passwd")),
            hostile("dev", T::Char, None),
            hostile("fifo", T::Fifo, None),
        ];
        for case in cases {
            let dir = tempfile::tempdir().unwrap();
            assert!(unpack(&case[..], dir.path()).is_err());
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let mut bytes = hostile("d", tar::EntryType::Symlink, Some("."));
        bytes.truncate(512);
        bytes.extend(hostile("d/f", tar::EntryType::Regular, None));
        let dir = tempfile::tempdir().unwrap();
        let refused = unpack(&bytes[..], dir.path());
        assert!(
            matches!(refused, Err(ArchiveError::Refused { .. })),
            "{refused:?}"
        );
    }
}

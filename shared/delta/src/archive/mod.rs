//! Packing a folder into an artifact's bytes, and unpacking those bytes into a folder.
//!
//! [`pack()`] writes a tar that depends only on names, contents and permission bits: packing the
//! same tree twice, on any machine, gives the same bytes, so that a device can rebuild the base of
//! a delta from what is installed. What it would lose it names and refuses ([`PackOptions`]).
//! [`unpack()`] accepts only plain files, directories and symbolic links that stay inside the folder.

mod changes;
mod examine;
mod links;
mod losses;
#[cfg(feature = "names")]
pub mod names;
mod pack;
mod unpack;

use std::io;
use std::path::{Path, PathBuf};

pub use changes::Changes;
pub use examine::{Examined, Listed, examine};
pub use pack::{PackOptions, check_raw, pack, pack_with};
pub use unpack::{Tree, unpack, unpack_to};

/// Maximum number of entries in an archive.
pub const MAX_ENTRIES: usize = 500_000;

/// Permission bits of a folder that no entry of the archive describes.
const OPEN_DIR: u32 = 0o755;

/// Permission bits that a version carries for a file. Its owner may always read and write it, or the
/// agent could not; group and others never write: their bit depends on the umask of whoever checked
/// the tree out, and the same tree must give the same bytes. [`Changes`] says which files had it.
const fn file_mode(bits: u32) -> u32 {
    (bits & 0o755) | 0o600
}

/// Permission bits that a version carries for a folder.
const fn dir_mode(bits: u32) -> u32 {
    (bits & 0o755) | 0o700
}

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
    /// The folder has what an artifact does not carry.
    #[error("a version does not carry what {root} has:\n  {}\n{hint}", losses.join("\n  "))]
    Lossy {
        /// The folder.
        root: PathBuf,
        /// Each entry with what it would lose.
        losses: Vec<String>,
        /// Way to go on.
        hint: &'static str,
    },
    /// The archive has names that the system cannot hold.
    #[error("this system cannot hold its names: {}", .0.join(", "))]
    Names(Vec<String>),
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

#[cfg(unix)]
#[cfg(test)]
mod oddities;
#[cfg(test)]
mod strangers;

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
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

    #[test]
    fn a83_a_link_that_leaves_the_folder_through_another_one_is_refused_by_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/e/f")).unwrap();
        fs::write(dir.path().join("d/file"), "x").unwrap();
        symlink("../../..", dir.path().join("d/e/f/up")).unwrap();
        symlink("d/e/f/up/../x", dir.path().join("out")).unwrap();
        let packed = pack(dir.path(), Vec::new());
        assert!(
            matches!(&packed, Err(ArchiveError::Refused { path, .. }) if path == "out"),
            "{packed:?}"
        );
        // The same as an archive of somebody else's.
        let mut bytes = Vec::new();
        let entries = [("d/e/f/up", "../../.."), ("out", "d/e/f/up/..")];
        for (path, to) in entries {
            bytes.extend(&hostile(path, tar::EntryType::Symlink, Some(to))[..512]);
        }
        bytes.extend([0; 1024]);
        let into = tempfile::tempdir().unwrap();
        let refused = unpack(&bytes[..], into.path());
        assert!(
            matches!(&refused, Err(ArchiveError::Refused { path, .. }) if path == "out"),
            "{refused:?}"
        );
        assert!(fs::symlink_metadata(into.path().join("out")).is_err());
    }

    #[test]
    fn links_through_links_that_stay_inside_and_loops_are_carried() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lib/v2")).unwrap();
        fs::write(dir.path().join("lib/v2/so"), "x").unwrap();
        symlink("v2", dir.path().join("lib/now")).unwrap();
        symlink("lib/now/../now/so", dir.path().join("so")).unwrap();
        symlink("me", dir.path().join("me")).unwrap();
        let bytes = pack(dir.path(), Vec::new()).unwrap();
        let into = tempfile::tempdir().unwrap();
        unpack(&bytes[..], into.path()).unwrap();
        assert_eq!(fs::read(into.path().join("so")).unwrap(), b"x");
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn private_files_and_folders_stay_private_and_the_umask_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let files = [
            ("etc/key.pem", 0o600, 0o600),
            ("group.conf", 0o640, 0o640),
            ("shared", 0o664, 0o644),
            ("bin", 0o775, 0o755),
            ("own", 0o700, 0o700),
            ("fixed", 0o444, 0o644),
        ];
        for (name, given, _) in files {
            fs::write(dir.path().join(name), name).unwrap();
            set(&dir.path().join(name), given);
        }
        set(&dir.path().join("etc"), 0o700);
        let bytes = pack(dir.path(), Vec::new()).unwrap();
        let into = tempfile::tempdir().unwrap();
        unpack(&bytes[..], into.path()).unwrap();
        for (name, _, carried) in files {
            assert_eq!(mode(&into.path().join(name)), carried, "{name}");
        }
        assert_eq!(mode(&into.path().join("etc")), 0o700);
        // What comes back packs to the same bytes: the base of deltas.
        assert!(pack(into.path(), Vec::new()).unwrap() == bytes);
        let options = PackOptions {
            public: true,
            ..PackOptions::default()
        };
        let (public, _) = pack_with(dir.path(), Vec::new(), options).unwrap();
        let into = tempfile::tempdir().unwrap();
        unpack(&public[..], into.path()).unwrap();
        assert_eq!(mode(&into.path().join("etc/key.pem")), 0o644);
        assert_eq!(mode(&into.path().join("etc")), 0o755);
        assert_eq!(mode(&into.path().join("own")), 0o755);
    }

    #[test]
    fn an_archive_of_before_modes_were_carried_has_the_same_bytes_today() {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        set(&dir.path().join("data/table"), 0o664);
        let bytes = pack(dir.path(), Vec::new()).unwrap();
        // The hash of this tree as packed when only the executable bit was carried.
        assert_eq!(
            crate::sha256(&bytes).to_string(),
            "a61a19ca20ac4a383cd5f4ffa48dd8fd090264dbfcad1a751a858f422f4dc856"
        );
    }

    #[test]
    fn what_an_artifact_has_no_place_for_is_named_and_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["plain", "tool", "marked", "one"] {
            fs::write(at(name), name).unwrap();
        }
        fs::create_dir(at("shared")).unwrap();
        set(&at("tool"), 0o4755);
        set(&at("shared"), 0o2755);
        fs::hard_link(at("one"), at("two")).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        let marked = rustix::fs::setxattr(at("marked"), "user.origin", b"x", flags).is_ok();
        let refused = pack(dir.path(), Vec::new());
        let Err(ArchiveError::Lossy { losses, .. }) = refused else {
            panic!("{refused:?}");
        };
        let named = |text: &str| losses.iter().any(|loss| loss == text);
        assert!(
            named("tool: setuid") && named("shared: setgid"),
            "{losses:?}"
        );
        assert!(
            named("two: a hard link to one") || named("one: a hard link to two"),
            "{losses:?}"
        );
        assert_eq!(named("marked: the extended attribute user.origin"), marked);
        assert_eq!(losses.len(), 3 + usize::from(marked), "{losses:?}");
        let options = PackOptions {
            drop_attributes: true,
            ..PackOptions::default()
        };
        let (bytes, changes) = pack_with(dir.path(), Vec::new(), options).unwrap();
        let said = changes.sentences();
        assert!(
            said[0].starts_with("dropped, as --drop-attributes says: "),
            "{said:?}"
        );
        let into = tempfile::tempdir().unwrap();
        unpack(&bytes[..], into.path()).unwrap();
        assert_eq!(mode(&into.path().join("tool")), 0o755);
    }

    #[test]
    fn files_of_another_owner_and_a_private_folder_are_refused_where_owners_are_looked_at() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        let uid = fs::metadata(dir.path()).unwrap().uid();
        let options = |owner| PackOptions {
            owner: Some(owner),
            ..PackOptions::default()
        };
        set(dir.path(), 0o755);
        pack_with(dir.path(), Vec::new(), options(uid)).unwrap();
        let refused = pack_with(dir.path(), Vec::new(), options(uid + 1));
        assert!(matches!(refused, Err(ArchiveError::Lossy { .. })));
        set(dir.path(), 0o700);
        let refused = pack_with(dir.path(), Vec::new(), options(uid));
        assert!(matches!(refused, Err(ArchiveError::Lossy { .. })));
        let public = PackOptions {
            public: true,
            ..options(uid)
        };
        pack_with(dir.path(), Vec::new(), public).unwrap();
    }
}

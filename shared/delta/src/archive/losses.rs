//! Losses that packing would make.

use std::fs::Metadata;
use std::path::Path;

#[cfg(unix)]
use super::changes::Change;
use super::{ArchiveError, Changes, PackOptions};
#[cfg(unix)]
use tidegate_protocol::plain;

/// Losses named at most in one error: the rest is counted.
pub(super) const NAMED: usize = 20;

/// Losses found so far, and the changes that are made and told.
pub(super) struct Losses {
    #[cfg(unix)]
    options: PackOptions,
    named: Vec<String>,
    more: usize,
    pub(super) changes: Changes,
    /// Files with more than one name, by device and number, with the first name.
    #[cfg(unix)]
    linked: std::collections::BTreeMap<(u64, u64), std::path::PathBuf>,
}

const HINT: &str = "Change the files, or go on without: --drop-attributes drops special bits, extended attributes, \
    hard links and owners, and --allow-public makes private files readable by everybody";

impl Losses {
    #[cfg(not(unix))]
    pub(super) fn new(_: PackOptions) -> Self {
        Self {
            named: Vec::new(),
            more: 0,
            changes: Changes::default(),
        }
    }

    /// Refuses if anything would be lost.
    pub(super) fn refuse(&mut self, root: &Path) -> Result<(), ArchiveError> {
        if self.named.is_empty() {
            return Ok(());
        }
        if self.more > 0 {
            self.named.push(format!("and {} more", self.more));
        }
        Err(ArchiveError::Lossy {
            root: root.to_owned(),
            losses: std::mem::take(&mut self.named),
            hint: HINT,
        })
    }

    /// Looks at the folder itself.
    #[cfg(not(unix))]
    #[expect(
        clippy::unnecessary_wraps,
        reason = "reading attributes can fail elsewhere"
    )]
    pub(super) fn note_root(&mut self, _: &Path, _: &Metadata) -> Result<(), ArchiveError> {
        Ok(())
    }

    /// Looks at an entry.
    #[cfg(not(unix))]
    #[expect(
        clippy::unnecessary_wraps,
        reason = "reading attributes can fail elsewhere"
    )]
    pub(super) fn note(&mut self, _: &Path, _: &Path, _: &Metadata) -> Result<(), ArchiveError> {
        Ok(())
    }

    /// Looks at a file whose bytes alone are published.
    #[cfg(not(unix))]
    #[expect(
        clippy::unnecessary_wraps,
        reason = "reading attributes can fail elsewhere"
    )]
    pub(super) fn note_raw(&mut self, _: &Path, _: &Metadata) -> Result<(), ArchiveError> {
        Ok(())
    }
}

#[cfg(unix)]
impl Losses {
    pub(super) fn new(options: PackOptions) -> Self {
        Self {
            options,
            named: Vec::new(),
            more: 0,
            changes: Changes::default(),
            linked: std::collections::BTreeMap::new(),
        }
    }

    fn add(&mut self, path: &Path, what: &str) {
        if self.named.len() < NAMED {
            let path = plain(&path.to_string_lossy());
            self.named.push(format!("{path}: {what}"));
        } else {
            self.more += 1;
        }
    }

    /// Notes what an artifact has no place for: refused, unless it may be dropped.
    fn lose(&mut self, path: &Path, what: &str) {
        if self.options.drop_attributes {
            self.changes.add(Change::Dropped, path, what);
        } else {
            self.add(path, what);
        }
    }

    /// Looks at the folder itself: it has no entry, and a version's folder is open to everybody.
    pub(super) fn note_root(&mut self, root: &Path, meta: &Metadata) -> Result<(), ArchiveError> {
        use std::os::unix::fs::PermissionsExt as _;
        let (path, mode) = (Path::new("."), meta.permissions().mode());
        if mode & 0o001 == 0 {
            if self.options.owner.is_some() && !self.options.public {
                self.add(
                    path,
                    "others may not enter the folder, but a version's folder is open to everybody",
                );
            } else {
                self.changes.add(Change::Opened, path, "");
            }
        }
        self.note_special(path, mode);
        self.note_attributes(root, path)
    }

    /// Looks at an entry.
    pub(super) fn note(
        &mut self,
        source: &Path,
        path: &Path,
        meta: &Metadata,
    ) -> Result<(), ArchiveError> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        if !meta.is_file() && !meta.is_dir() {
            return Ok(());
        }
        let mode = meta.permissions().mode();
        self.note_special(path, mode);
        self.note_mode(path, mode, meta.is_dir());
        self.note_owner(path, mode, [meta.uid(), meta.gid()]);
        if meta.is_file() && meta.nlink() > 1 {
            let id = (meta.dev(), meta.ino());
            match self.linked.get(&id) {
                Some(first) => {
                    let what = format!("a hard link to {}", first.display());
                    self.lose(path, &what);
                }
                // A second name outside the folder, as package caches have, is not lost.
                None => {
                    self.linked.insert(id, path.to_owned());
                }
            }
        }
        self.note_attributes(source, path)
    }

    /// Looks at a file whose bytes alone are published: on a device they get what the program has that
    /// they replace, so that most of it says nothing, but a program that counts on special rights
    /// would be started without them.
    pub(super) fn note_raw(&mut self, source: &Path, meta: &Metadata) -> Result<(), ArchiveError> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = Path::new(source.file_name().unwrap_or(source.as_os_str()));
        let mode = meta.permissions().mode();
        self.note_special(path, mode);
        for name in attributes(source).map_err(super::io_at(source))? {
            let what = told(&name);
            if name == CAPABILITY {
                self.lose(path, &what);
            } else {
                self.changes.add(Change::Beside, path, &what);
            }
        }
        if mode & 0o004 == 0 {
            let what = format!("mode {:04o}", mode & 0o7777);
            self.changes.add(Change::Beside, path, &what);
        }
        Ok(())
    }

    fn note_special(&mut self, path: &Path, mode: u32) {
        for (bit, what) in SPECIAL {
            if mode & bit != 0 {
                self.lose(path, what);
            }
        }
    }

    /// Looks at the permission bits: what nobody could run with is refused, whatever may be dropped.
    fn note_mode(&mut self, path: &Path, mode: u32, is_dir: bool) {
        let (needed, what, way_out) = if is_dir {
            (0o500, "enter", "chmod u+rx")
        } else {
            (0o400, "read", "chmod u+r")
        };
        let shown = mode & 0o7777;
        if mode & needed != needed {
            self.add(
                path,
                &format!("mode {shown:04o}, with which its owner cannot {what} it: {way_out}"),
            );
        }
        let kind = match mode {
            mode if mode & 0o002 != 0 => Some(Change::EverybodyWrites),
            mode if mode & 0o020 != 0 => Some(Change::GroupWrites),
            mode if mode & 0o200 == 0 => Some(Change::OwnerWrites),
            _ => None,
        };
        if let Some(kind) = kind {
            self.changes.add(kind, path, &format!("mode {shown:04o}"));
        }
        let all = if is_dir { 0o005 } else { 0o004 };
        if self.options.public && mode & all != all {
            let what = format!("mode {shown:04o}");
            self.changes.add(Change::Public, path, &what);
        }
    }

    /// Looks at the owner: where the version will run, everything is the agent's user's.
    fn note_owner(&mut self, path: &Path, mode: u32, [user, group]: [u32; 2]) {
        let own = self.options.owner;
        let is_own = user == own.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        // Reading and entering: nobody but the owner writes on a device.
        let group_may_more = (mode >> 3) & 0o5 & !mode != 0;
        let is_own_group = group == rustix::process::getegid().as_raw();
        if !is_own {
            match own {
                Some(_) => self.lose(path, &format!("its owner, user {user}")),
                None => self
                    .changes
                    .add(Change::Owner, path, &format!("user {user}")),
            }
        }
        if group_may_more && !is_own_group {
            let what = format!("group {group}, mode {:04o}", mode & 0o7777);
            match own {
                Some(_) => self.lose(
                    path,
                    &format!("its group, which may do more than others: {what}"),
                ),
                None => self.changes.add(Change::Group, path, &what),
            }
        }
    }

    fn note_attributes(&mut self, source: &Path, path: &Path) -> Result<(), ArchiveError> {
        for name in attributes(source).map_err(super::io_at(source))? {
            self.lose(path, &told(&name));
        }
        Ok(())
    }
}

/// Permission bits beside the nine.
pub(super) const SPECIAL: [(u32, &str); 3] = [
    (0o4000, "setuid"),
    (0o2000, "setgid"),
    (0o1000, "the sticky bit"),
];

#[cfg(unix)]
const CAPABILITY: &str = "security.capability";

/// Name of an attribute as people know it.
pub(super) fn told(name: &str) -> String {
    match name {
        "security.capability" => "file capabilities".into(),
        "system.posix_acl_access" | "system.posix_acl_default" => "its access list".into(),
        _ => format!("the extended attribute {name}"),
    }
}

/// Names of the extended attributes that belong to a file: not the labels and measures that its machine gave it.
#[cfg(unix)]
fn attributes(path: &Path) -> std::io::Result<Vec<String>> {
    use rustix::io::Errno;
    // Those of a network share say in another way what its permission bits say.
    const OF_THE_MACHINE: [&str; 11] = [
        "security.selinux",
        "security.ima",
        "security.evm",
        "security.apparmor",
        "security.SMACK",
        "system.nfs4_",
        "system.cifs_",
        "system.smb3_",
        "system.ntfs_",
        "btrfs.",
        "com.apple.",
    ];
    // Most files have none; 64 KiB is the most that a system lists.
    let mut buffer = vec![0_u8; 1 << 10];
    let read = loop {
        match rustix::fs::llistxattr(path, buffer.as_mut_slice()) {
            Ok(read) => break read,
            Err(Errno::NOTSUP | Errno::NOSYS) => break 0,
            Err(Errno::RANGE) if buffer.len() < 64 << 10 => buffer.resize(64 << 10, 0),
            Err(error) => return Err(error.into()),
        }
    };
    let names = buffer[..read].split(|byte| *byte == 0);
    Ok(names
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .filter(|name| !OF_THE_MACHINE.iter().any(|own| name.starts_with(own)))
        .collect())
}

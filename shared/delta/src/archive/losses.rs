//! Losses that packing would make.

use std::fs::Metadata;
use std::path::Path;

use super::{ArchiveError, PackOptions};

/// Losses named at most in one error: the rest is counted.
#[cfg(unix)]
const NAMED: usize = 20;

/// Losses found so far.
pub(super) struct Losses {
    #[cfg(unix)]
    options: PackOptions,
    named: Vec<String>,
    more: usize,
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
    pub(super) fn note_root(&mut self, _: &Metadata) {}

    /// Looks at an entry.
    #[cfg(not(unix))]
    #[expect(
        clippy::unnecessary_wraps,
        reason = "reading attributes can fail elsewhere"
    )]
    pub(super) fn note(&mut self, _: &Path, _: &Path, _: &Metadata) -> Result<(), ArchiveError> {
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
            linked: std::collections::BTreeMap::new(),
        }
    }

    fn add(&mut self, path: &Path, what: &str) {
        if self.named.len() < NAMED {
            self.named.push(format!("{}: {what}", path.display()));
        } else {
            self.more += 1;
        }
    }

    /// Looks at the folder itself: it has no entry, and a version's folder is open to everybody.
    pub(super) fn note_root(&mut self, meta: &Metadata) {
        use std::os::unix::fs::PermissionsExt as _;
        let private = meta.permissions().mode() & 0o001 == 0;
        if self.options.owner.is_some() && private && !self.options.public {
            self.add(
                Path::new("."),
                "others may not enter the folder, but a version's folder is open to everybody",
            );
        }
    }

    /// Looks at an entry.
    pub(super) fn note(
        &mut self,
        source: &Path,
        path: &Path,
        meta: &Metadata,
    ) -> Result<(), ArchiveError> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        if self.options.drop_attributes || meta.is_symlink() {
            return Ok(());
        }
        for (bit, what) in [
            (0o4000, "setuid"),
            (0o2000, "setgid"),
            (0o1000, "the sticky bit"),
        ] {
            if meta.permissions().mode() & bit != 0 {
                self.add(path, what);
            }
        }
        if self.options.owner.is_some_and(|owner| owner != meta.uid()) {
            self.add(path, &format!("its owner, user {}", meta.uid()));
        }
        if meta.is_file() && meta.nlink() > 1 {
            let id = (meta.dev(), meta.ino());
            match self.linked.get(&id) {
                Some(first) => {
                    let what = format!("a hard link to {}", first.display());
                    self.add(path, &what);
                }
                // A second name outside the folder, as package caches have, is not lost.
                None => {
                    self.linked.insert(id, path.to_owned());
                }
            }
        }
        if meta.is_file() || meta.is_dir() {
            for name in attributes(source).map_err(super::io_at(source))? {
                match name.as_str() {
                    "security.capability" => self.add(path, "file capabilities"),
                    "system.posix_acl_access" | "system.posix_acl_default" => {
                        self.add(path, "its access list");
                    }
                    _ => self.add(path, &format!("the extended attribute {name}")),
                }
            }
        }
        Ok(())
    }
}

/// Names of the extended attributes that belong to a file: not the labels and measures that its machine gave it.
#[cfg(unix)]
fn attributes(path: &Path) -> std::io::Result<Vec<String>> {
    use rustix::io::Errno;
    const OF_THE_MACHINE: [&str; 6] = [
        "security.selinux",
        "security.ima",
        "security.evm",
        "security.apparmor",
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

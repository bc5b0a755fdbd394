//! Signed files that the device keeps, byte for byte, each in two checksummed copies.
//!
//! A damaged copy is restored from the other one. If both copies of anything but the root are
//! damaged, the file is fetched again: the version floors are in the journal, so that nothing older
//! is accepted in its place. Without a root nothing can be trusted: the agent stops, and
//! `tidegate-agent recover` fetches the root that a join token pins.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_trust::size_limit;
use tidegate_trust::verify::TrustedFiles;

use crate::fs::{Fs, Mode};

/// The folder of the signed files.
#[derive(Clone)]
pub struct TrustStore {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
}

/// Reason why the signed files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustStoreError {
    /// Reading or writing failed.
    #[error("the signed files in {0}")]
    Io(PathBuf, #[source] io::Error),
    /// Both copies of the root are gone or damaged.
    #[error(
        "both copies of the root of trust in {0} are missing or damaged; nothing was changed. Run \
         `tidegate-agent recover --token TOKEN` with a fresh join token of this product"
    )]
    NoRoot(PathBuf),
}

/// The two copies. The first is written first: where they differ, it is the newer one.
const COPIES: [&str; 2] = ["1", "2"];

impl TrustStore {
    /// Opens the store below a state directory; creates the folder.
    pub fn open(fs: Arc<dyn Fs>, state: &Path) -> Result<Self, TrustStoreError> {
        let dir = state.join("trust");
        fs.create_dirs(&dir)
            .map_err(|e| TrustStoreError::Io(dir.clone(), e))?;
        Ok(Self { fs, dir })
    }

    /// Loads the files that were kept.
    pub fn load(&self) -> Result<TrustedFiles, TrustStoreError> {
        let root = self
            .read("root", size_limit::ROOT)
            .ok_or_else(|| TrustStoreError::NoRoot(self.dir.clone()))?;
        Ok(TrustedFiles {
            root,
            timestamp: self.read("timestamp", size_limit::TIMESTAMP),
            snapshot: self.read("snapshot", size_limit::SNAPSHOT),
            targets: self.read("targets", size_limit::TARGETS),
            role: self.read("role", size_limit::ROLE),
        })
    }

    /// Saves verified files; unchanged ones are not written.
    pub fn save(&self, old: &TrustedFiles, new: &TrustedFiles) -> Result<(), TrustStoreError> {
        // Roots first: what they vouch for must never be kept without them.
        if new.root != old.root {
            self.write("root", &new.root)?;
        }
        for (name, old, new) in [
            ("timestamp", &old.timestamp, &new.timestamp),
            ("snapshot", &old.snapshot, &new.snapshot),
            ("targets", &old.targets, &new.targets),
            ("role", &old.role, &new.role),
        ] {
            if let Some(bytes) = new
                && old != new
            {
                self.write(name, bytes)?;
            }
        }
        Ok(())
    }

    fn path(&self, name: &str, copy: &str) -> PathBuf {
        self.dir.join(format!("{name}.{copy}"))
    }

    /// Returns the first whole copy, and repairs a damaged one from it.
    fn read(&self, name: &str, limit: usize) -> Option<Vec<u8>> {
        let mut whole = None;
        let mut damaged = Vec::new();
        for copy in COPIES {
            let path = self.path(name, copy);
            match read_copy(&*self.fs, &path, limit) {
                Ok(Copy::Whole(bytes)) => {
                    whole.get_or_insert(bytes);
                }
                // Storage that has lost one copy may have the other.
                Ok(Copy::Damaged) | Err(_) => damaged.push(path),
                Ok(Copy::Absent) => {}
            }
        }
        for path in damaged {
            crate::log::line(&format!("{} is damaged", path.display()));
            if let Some(bytes) = &whole
                && let Err(error) = self.fs.replace(&path, &checksummed(bytes), Mode::Plain)
            {
                // One whole copy is enough to go on with.
                crate::log::line(&format!("{} cannot be mended: {error}", path.display()));
            }
        }
        whole
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TrustStoreError> {
        let text = checksummed(bytes);
        for copy in COPIES {
            let path = self.path(name, copy);
            self.fs
                .replace(&path, &text, Mode::Plain)
                .map_err(|e| TrustStoreError::Io(path, e))?;
        }
        Ok(())
    }
}

enum Copy {
    Whole(Vec<u8>),
    Damaged,
    Absent,
}

/// Prefixes bytes with their SHA-256 in hexadecimal and a line break.
fn checksummed(bytes: &[u8]) -> Vec<u8> {
    let mut text = tidegate_delta::sha256(bytes).to_string().into_bytes();
    text.push(b'\n');
    text.extend_from_slice(bytes);
    text
}

fn read_copy(fs: &dyn Fs, path: &Path, limit: usize) -> io::Result<Copy> {
    let Some(text) = fs.read(path, limit as u64 + 65)? else {
        return Ok(Copy::Absent);
    };
    let whole = text
        .split_at_checked(65)
        .filter(|(sum, bytes)| **sum == checksummed(bytes)[..65])
        .map(|(_, bytes)| bytes.to_vec());
    Ok(whole.map_or(Copy::Damaged, Copy::Whole))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::fs::Real;

    fn files(root: &[u8], role: &[u8]) -> TrustedFiles {
        TrustedFiles {
            root: root.to_vec(),
            role: Some(role.to_vec()),
            ..TrustedFiles::default()
        }
    }

    #[test]
    fn either_copy_is_enough_and_the_other_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        let store = TrustStore::open(Arc::new(Real), dir.path()).unwrap();
        let kept = files(b"root", b"role");
        store.save(&TrustedFiles::default(), &kept).unwrap();
        for copy in COPIES {
            for damage in [&b""[..], b"rubbish", &checksummed(b"root")[..67]] {
                fs::write(store.path("root", copy), damage).unwrap();
                assert_eq!(store.load().unwrap(), kept);
                assert_eq!(
                    fs::read(store.path("root", copy)).unwrap(),
                    checksummed(b"root")
                );
            }
        }
    }

    #[test]
    fn without_a_root_the_store_says_so_and_other_files_count_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let store = TrustStore::open(Arc::new(Real), dir.path()).unwrap();
        store
            .save(&TrustedFiles::default(), &files(b"root", b"role"))
            .unwrap();
        for copy in COPIES {
            fs::write(store.path("role", copy), "rubbish").unwrap();
        }
        assert_eq!(store.load().unwrap().role, None);
        for copy in COPIES {
            fs::remove_file(store.path("root", copy)).unwrap();
        }
        assert!(matches!(store.load(), Err(TrustStoreError::NoRoot(_))));
    }
}

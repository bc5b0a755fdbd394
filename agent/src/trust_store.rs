//! The signed files that the device keeps, byte for byte.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tidegate_trust::size_limit;
use tidegate_trust::verify::TrustedFiles;

use crate::durable;

/// The folder of the signed files.
#[derive(Debug, Clone)]
pub struct TrustStore {
    dir: PathBuf,
}

impl TrustStore {
    /// The store below a state directory; makes the folder.
    pub fn open(state: &Path) -> io::Result<Self> {
        let dir = state.join("trust");
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// What was kept.
    pub fn load(&self) -> io::Result<TrustedFiles> {
        let root = self
            .read("root.json", size_limit::ROOT)?
            .unwrap_or_default();
        Ok(TrustedFiles {
            root,
            timestamp: self.read("timestamp.json", size_limit::TIMESTAMP)?,
            snapshot: self.read("snapshot.json", size_limit::SNAPSHOT)?,
            targets: self.read("targets.json", size_limit::TARGETS)?,
            role: self.read("role.json", size_limit::ROLE)?,
        })
    }

    /// Keeps files that have been verified; those that have not changed are not written.
    pub fn save(&self, old: &TrustedFiles, new: &TrustedFiles) -> io::Result<()> {
        // Roots first: what they vouch for must never be kept without them.
        if new.root != old.root {
            self.write("root.json", &new.root)?;
        }
        for (name, old, new) in [
            ("timestamp.json", &old.timestamp, &new.timestamp),
            ("snapshot.json", &old.snapshot, &new.snapshot),
            ("targets.json", &old.targets, &new.targets),
            ("role.json", &old.role, &new.role),
        ] {
            if let Some(bytes) = new
                && old != new
            {
                self.write(name, bytes)?;
            }
        }
        Ok(())
    }

    fn read(&self, name: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        use io::Read as _;
        match fs::File::open(self.dir.join(name)) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(limit as u64).read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        durable::replace(&self.dir.join(name), bytes, false)
    }
}

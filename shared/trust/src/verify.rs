//! The agent's refresh of signed metadata, without I/O.
//!
//! Ask [`Refresh::request`] which file is wanted, fetch it and pass it to [`Refresh::answer`],
//! until nothing more is wanted. Steps are numbered as in `docs/explain/security-model.md`:
//! 3a root chain, 3b timestamp, 3c snapshot, 3d targets, 3e the device's product-channel role.

use sigstore_tuf::{Error, TrustedMetadataSet};
use tidegate_protocol::{Sha256, Timestamp};

pub use crate::trusted::Trusted;
use crate::trusted::refuse;
use crate::{
    Floors, RoleName, TrustError, expiry_check, provider, quorum, size_limit, strict, top,
};

/// Verified files that a device keeps, byte for byte as received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedFiles {
    /// Newest root.
    pub root: Vec<u8>,
    /// Newest timestamp.
    pub timestamp: Option<Vec<u8>>,
    /// Newest snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// Newest targets.
    pub targets: Option<Vec<u8>>,
    /// Newest product-channel role.
    pub role: Option<Vec<u8>>,
}

/// A file that the refresh wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// File name below the metadata address, for example `3.root.json`.
    pub file: String,
    /// Maximum number of bytes to read.
    pub limit: usize,
    /// Whether the file may be missing (only the next root may).
    pub may_be_absent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Root { left: u32 },
    Timestamp,
    Snapshot,
    Targets,
    Role,
    Done,
}

/// A refresh in progress.
pub struct Refresh {
    set: TrustedMetadataSet,
    files: TrustedFiles,
    floors: Floors,
    /// `None` refreshes the top roles only.
    role: Option<RoleName>,
    now: Timestamp,
    /// Earlier time than `now` that a new root was signed at.
    turned_back: Option<Timestamp>,
    step: Step,
}

impl Refresh {
    /// Starts with the files kept from last time, and the floors of what was seen. The root must be
    /// present: it came with the enrollment and was pinned by the join token. `now` is a time that
    /// has certainly passed: expiry is judged again, at the time of the decision, by
    /// [`Trusted::check_expiry`].
    pub fn start(
        files: TrustedFiles,
        floors: Floors,
        role: RoleName,
        now: Timestamp,
    ) -> Result<Self, TrustError> {
        Self::begin(files, floors, Some(role), now)
    }

    /// Starts a refresh of the four top roles alone.
    pub fn top(files: TrustedFiles, floors: Floors, now: Timestamp) -> Result<Self, TrustError> {
        Self::begin(files, floors, None, now)
    }

    fn begin(
        files: TrustedFiles,
        floors: Floors,
        role: Option<RoleName>,
        now: Timestamp,
    ) -> Result<Self, TrustError> {
        provider::install();
        strict::check("root.json", &files.root)?;
        let set = TrustedMetadataSet::from_root(&files.root).map_err(refuse("root.json"))?;
        top::check_root_keys(set.root())?;
        let step = Step::Root {
            left: size_limit::ROOT_STEPS,
        };
        Ok(Self {
            set,
            files,
            floors,
            role,
            now,
            turned_back: None,
            step,
        })
    }

    /// Returns the file wanted next; `None` when the refresh is complete.
    pub fn request(&self) -> Option<Request> {
        let (file, limit) = match self.step {
            Step::Root { .. } => (
                format!("{}.root.json", self.set.root().version.saturating_add(1)),
                size_limit::ROOT,
            ),
            Step::Timestamp => ("timestamp.json".into(), size_limit::TIMESTAMP),
            Step::Snapshot => {
                let version = self.set.timestamp()?.snapshot_meta()?.version;
                (format!("{version}.snapshot.json"), size_limit::SNAPSHOT)
            }
            Step::Targets => (self.pinned("targets")?, size_limit::TARGETS),
            Step::Role => (
                self.pinned(&self.role.as_ref()?.to_string())?,
                size_limit::ROLE,
            ),
            Step::Done => return None,
        };
        Some(Request {
            file,
            limit,
            may_be_absent: matches!(self.step, Step::Root { .. }),
        })
    }

    fn pinned(&self, role: &str) -> Option<String> {
        let version = self
            .set
            .snapshot()?
            .meta
            .get(&format!("{role}.json"))?
            .version;
        Some(format!("{version}.{role}.json"))
    }

    /// Accepts the file that was requested; `None` means that it does not exist.
    pub fn answer(&mut self, bytes: Option<Vec<u8>>) -> Result<(), TrustError> {
        let Some(request) = self.request() else {
            return Ok(());
        };
        if let Some(bytes) = &bytes
            && bytes.len() > request.limit
        {
            return Err(TrustError::TooLarge {
                file: request.file,
                length: bytes.len(),
                limit: request.limit,
            });
        }
        if let Some(bytes) = &bytes {
            strict::check(&request.file, bytes)?;
        }
        match (self.step, bytes) {
            (Step::Root { .. }, None) => self.begin_timestamp(),
            (Step::Root { left }, Some(bytes)) => {
                let left = left.checked_sub(1).ok_or(TrustError::TooManyRoots)?;
                let mut next = self.set.clone();
                next.update_root(&bytes).map_err(refuse(&request.file))?;
                top::check_root_keys(next.root())?;
                // The quorum of the root has the last word on the time: its next root is the way out
                // for a device that some signer's wrong clock has taken into the future.
                let issued = top::root_issued(next.root()).filter(|issued| *issued < self.now);
                self.now = issued.unwrap_or(self.now);
                self.turned_back = issued.or(self.turned_back);
                self.set = next;
                self.files.root = bytes;
                self.step = Step::Root { left };
                Ok(())
            }
            (_, None) => Err(TrustError::Missing(request.file)),
            (Step::Timestamp, Some(bytes)) => self.take_timestamp(bytes),
            (Step::Snapshot, Some(bytes)) => {
                self.take_snapshot(&request.file, bytes)?;
                self.begin_targets()
            }
            (Step::Targets, Some(bytes)) => {
                self.take_targets(&request.file, &bytes)?;
                self.files.targets = Some(bytes);
                self.begin_role()
            }
            (Step::Role, Some(bytes)) => {
                self.take_role(&bytes)?;
                self.files.role = Some(bytes);
                self.step = Step::Done;
                Ok(())
            }
            (Step::Done, Some(_)) => Ok(()),
        }
    }

    /// Digest of who signs a top role now.
    fn keys_of(&self, role: &str) -> Sha256 {
        let root = self.set.root();
        root.role(role).map_or(Sha256::from_bytes([0; 32]), |keys| {
            quorum::digest(&keys.keyids, keys.threshold, &root.keys)
        })
    }

    /// 3b. The root is current now, so it must not have expired. The kept files set the version
    /// floors even if they have expired meanwhile. Files that a new root no longer vouches for set
    /// no floor (recovery from a stolen online key).
    fn begin_timestamp(&mut self) -> Result<(), TrustError> {
        let root = self.set.root().version;
        if root < self.floors.root {
            return Err(TrustError::BelowVersionFloor {
                file: "root.json".into(),
                got: root,
                floor: self.floors.root,
            });
        }
        self.floors.root = root;
        self.set
            .check_root_expired(expiry_check(self.now))
            .map_err(refuse("root.json"))?;
        let any_time = jiff::Timestamp::MIN;
        if let Some(bytes) = &self.files.timestamp
            && self.set.update_timestamp(bytes, any_time).is_ok()
            && let Some(bytes) = &self.files.snapshot
        {
            let _ = self.set.update_snapshot(bytes, any_time);
        }
        self.step = Step::Timestamp;
        Ok(())
    }

    fn take_timestamp(&mut self, bytes: Vec<u8>) -> Result<(), TrustError> {
        let (now, file) = (expiry_check(self.now), "timestamp.json");
        let keys = self.keys_of("timestamp");
        let mut next = self.set.clone();
        match next.update_timestamp(&bytes, now) {
            Ok(()) => {
                let version = next.timestamp().map_or(0, |t| t.version);
                self.floors.timestamp.check(file, version, keys)?;
                self.floors.timestamp = self.floors.timestamp.raised(version, keys);
                self.set = next;
                self.files.timestamp = Some(bytes);
            }
            // Nothing new; the kept file must still be fresh.
            Err(Error::EqualVersion { version, .. }) => {
                self.floors.timestamp.check(file, version, keys)?;
                self.set
                    .check_timestamp_expired(now)
                    .map_err(refuse(file))?;
            }
            Err(error) => return Err(refuse(file)(error)),
        }
        let wanted = self
            .set
            .timestamp()
            .and_then(|t| t.snapshot_meta())
            .map(|m| m.version);
        let Some(wanted) = wanted else {
            return Err(TrustError::field(file, "it pins no snapshot"));
        };
        self.floors
            .snapshot
            .check("snapshot.json", wanted, self.keys_of("snapshot"))?;
        if Some(wanted) == self.set.snapshot().map(|s| s.version) {
            self.set
                .check_snapshot_expired(now)
                .map_err(refuse("snapshot.json"))?;
            self.begin_targets()
        } else {
            self.step = Step::Snapshot;
            Ok(())
        }
    }

    /// 3c. Accepts the snapshot.
    fn take_snapshot(&mut self, file: &str, bytes: Vec<u8>) -> Result<(), TrustError> {
        self.set
            .update_snapshot(&bytes, expiry_check(self.now))
            .map_err(refuse(file))?;
        let version = self.set.snapshot().map_or(0, |s| s.version);
        self.floors.snapshot = self
            .floors
            .snapshot
            .raised(version, self.keys_of("snapshot"));
        self.files.snapshot = Some(bytes);
        Ok(())
    }

    /// 3d. A kept file is reused if it is exactly the pinned one.
    fn begin_targets(&mut self) -> Result<(), TrustError> {
        self.step = Step::Targets;
        if self.request().is_none() {
            return Err(TrustError::field(
                "snapshot.json",
                "it does not pin targets.json",
            ));
        }
        if let Some(bytes) = self.files.targets.clone()
            && self.take_targets("targets.json", &bytes).is_ok()
        {
            return self.begin_role();
        }
        Ok(())
    }

    fn take_targets(&mut self, file: &str, bytes: &[u8]) -> Result<(), TrustError> {
        let keys = self.keys_of("targets");
        let mut next = self.set.clone();
        let targets = next
            .update_targets(bytes, expiry_check(self.now))
            .map_err(refuse(file))?;
        let version = targets.version;
        self.floors.targets.check(file, version, keys)?;
        if let Some(block) = &targets.delegations {
            for role in &block.roles {
                quorum::check_distinct(file, &role.name, &role.keyids, &block.keys)?;
            }
        }
        self.floors.targets = self.floors.targets.raised(version, keys);
        self.set = next;
        Ok(())
    }

    fn begin_role(&mut self) -> Result<(), TrustError> {
        let Some(role) = &self.role else {
            self.step = Step::Done;
            return Ok(());
        };
        self.step = Step::Role;
        if self.request().is_none() {
            return Err(TrustError::field(
                "snapshot.json",
                format!("it does not pin {role}.json"),
            ));
        }
        if let Some(bytes) = self.files.role.clone()
            && self.take_role(&bytes).is_ok()
        {
            self.step = Step::Done;
        }
        Ok(())
    }

    /// 3e. Accepts the product-channel role.
    fn take_role(&mut self, bytes: &[u8]) -> Result<(), TrustError> {
        let Some(name) = self.role.as_ref().map(ToString::to_string) else {
            return Ok(());
        };
        let file = format!("{name}.json");
        let mut next = self.set.clone();
        let version = next
            .update_delegated_targets(bytes, &name, "targets", expiry_check(self.now))
            .map_err(refuse(&file))?
            .version;
        let keys = self.set.targets_role("targets").and_then(|targets| {
            let (keys, role) = crate::repository::delegation(targets, &name)?;
            Some(quorum::digest(&role.keyids, role.threshold, keys))
        });
        let keys = keys.unwrap_or(Sha256::from_bytes([0; 32]));
        self.floors.role.check(&file, version, keys)?;
        self.floors.role = self.floors.role.raised(version, keys);
        self.set = next;
        Ok(())
    }

    /// Time to which a new root has turned the device back.
    pub fn turned_back(&self) -> Option<Timestamp> {
        self.turned_back
    }

    /// Floors after the files verified so far.
    pub fn floors(&self) -> &Floors {
        &self.floors
    }

    /// Returns the verified top roles once the refresh is complete, for clients that walk the
    /// delegations themselves.
    pub fn into_set(self) -> Result<TrustedMetadataSet, TrustError> {
        match self.request() {
            Some(request) => Err(TrustError::Missing(request.file)),
            None => Ok(self.set),
        }
    }

    /// Files verified so far, worth keeping even if a later step was refused.
    pub fn files(&self) -> &TrustedFiles {
        &self.files
    }

    /// Returns the verified repository once the refresh is complete.
    pub fn finish(self) -> Result<Trusted, TrustError> {
        let role = self
            .role
            .clone()
            .ok_or_else(|| TrustError::Missing("a product-channel role".into()))?;
        Trusted::new(self.into_set()?, &role)
    }
}

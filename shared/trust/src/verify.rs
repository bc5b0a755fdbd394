//! The agent's refresh of signed metadata, without I/O.
//!
//! Ask [`Refresh::request`] which file is wanted, fetch it, hand it to [`Refresh::answer`],
//! until nothing is wanted. Steps are numbered as in `docs/security-model.md`:
//! 3a root chain, 3b timestamp, 3c snapshot, 3d targets, 3e the device's product-channel role.

use sigstore_tuf::metadata::{Metadata, Targets};
use sigstore_tuf::{Error, TrustedMetadataSet};
use tidegate_protocol::Timestamp;

use crate::role::DIRECTOR;
use crate::{ProductRole, RoleName, TrustError, provider, role, size_limit, to_jiff};

/// The verified files that a device keeps, byte for byte as received.
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
    /// Refuse to read more than this many bytes.
    pub limit: usize,
    /// Whether it is in order that the file is not there (only for the next root).
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

/// One refresh.
pub struct Refresh {
    set: TrustedMetadataSet,
    files: TrustedFiles,
    role: RoleName,
    now: Timestamp,
    step: Step,
}

impl Refresh {
    /// Begins with the files kept from last time. The root must be there: it came with the
    /// enrolment and was pinned by the join token.
    pub fn start(files: TrustedFiles, role: RoleName, now: Timestamp) -> Result<Self, TrustError> {
        provider::install();
        let set = TrustedMetadataSet::from_root(&files.root).map_err(refuse("root.json"))?;
        let step = Step::Root {
            left: size_limit::ROOT_STEPS,
        };
        Ok(Self {
            set,
            files,
            role,
            now,
            step,
        })
    }

    /// The file wanted next; `None` when the refresh is complete.
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
            Step::Role => (self.pinned(&self.role.to_string())?, size_limit::ROLE),
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

    /// Takes the file that was asked for; `None` means that it is not there.
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
        match (self.step, bytes) {
            (Step::Root { .. }, None) => self.begin_timestamp(),
            (Step::Root { left }, Some(bytes)) => {
                let left = left.checked_sub(1).ok_or(TrustError::TooManyRoots)?;
                self.set
                    .update_root(&bytes)
                    .map_err(refuse(&request.file))?;
                self.files.root = bytes;
                self.step = Step::Root { left };
                Ok(())
            }
            (_, None) => Err(TrustError::Missing(request.file)),
            (Step::Timestamp, Some(bytes)) => self.take_timestamp(bytes),
            (Step::Snapshot, Some(bytes)) => {
                self.set
                    .update_snapshot(&bytes, to_jiff(self.now))
                    .map_err(refuse(&request.file))?;
                self.files.snapshot = Some(bytes);
                self.begin_targets()
            }
            (Step::Targets, Some(bytes)) => {
                self.set
                    .update_targets(&bytes, to_jiff(self.now))
                    .map_err(refuse(&request.file))?;
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

    /// 3b. The root is current: it must not have expired; what was kept sets the version
    /// floors even when it has expired meanwhile. Files that a new root no longer vouches for
    /// set no floor (recovery from a stolen online key).
    fn begin_timestamp(&mut self) -> Result<(), TrustError> {
        self.set
            .check_root_expired(to_jiff(self.now))
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
        let now = to_jiff(self.now);
        match self.set.update_timestamp(&bytes, now) {
            Ok(()) => self.files.timestamp = Some(bytes),
            // No news; what is kept must still be fresh.
            Err(Error::EqualVersion { .. }) => {
                self.set
                    .check_timestamp_expired(now)
                    .map_err(refuse("timestamp.json"))?;
            }
            Err(error) => return Err(refuse("timestamp.json")(error)),
        }
        let wanted = self
            .set
            .timestamp()
            .and_then(|t| t.snapshot_meta())
            .map(|m| m.version);
        if wanted.is_none() {
            return Err(TrustError::field("timestamp.json", "it pins no snapshot"));
        }
        if wanted == self.set.snapshot().map(|s| s.version) {
            self.set
                .check_snapshot_expired(now)
                .map_err(refuse("snapshot.json"))?;
            self.begin_targets()
        } else {
            self.step = Step::Snapshot;
            Ok(())
        }
    }

    /// 3d. A kept file is used again when it is exactly the pinned one.
    fn begin_targets(&mut self) -> Result<(), TrustError> {
        self.step = Step::Targets;
        if self.request().is_none() {
            return Err(TrustError::field(
                "snapshot.json",
                "it does not pin targets.json",
            ));
        }
        if let Some(bytes) = &self.files.targets
            && self.set.update_targets(bytes, to_jiff(self.now)).is_ok()
        {
            return self.begin_role();
        }
        Ok(())
    }

    fn begin_role(&mut self) -> Result<(), TrustError> {
        self.step = Step::Role;
        if self.request().is_none() {
            return Err(TrustError::field(
                "snapshot.json",
                format!("it does not pin {}.json", self.role),
            ));
        }
        if let Some(bytes) = self.files.role.clone()
            && self.take_role(&bytes).is_ok()
        {
            self.step = Step::Done;
        }
        Ok(())
    }

    /// 3e.
    fn take_role(&mut self, bytes: &[u8]) -> Result<(), TrustError> {
        let name = self.role.to_string();
        self.set
            .update_delegated_targets(bytes, &name, "targets", to_jiff(self.now))
            .map_err(refuse(&format!("{name}.json")))?;
        Ok(())
    }

    /// The files verified so far: worth keeping even when a later step was refused.
    pub fn files(&self) -> &TrustedFiles {
        &self.files
    }

    /// The verified repository, once nothing more is wanted.
    pub fn finish(self) -> Result<Trusted, TrustError> {
        if let Some(request) = self.request() {
            return Err(TrustError::Missing(request.file));
        }
        Trusted::new(self.set, &self.role)
    }
}

/// What a device trusts after a complete refresh.
#[derive(Debug, Clone)]
pub struct Trusted {
    set: TrustedMetadataSet,
    role: ProductRole,
}

impl Trusted {
    fn new(set: TrustedMetadataSet, name: &RoleName) -> Result<Self, TrustError> {
        let targets = set
            .targets_role(&name.to_string())
            .ok_or_else(|| TrustError::Missing(format!("{name}.json")))?;
        let role = ProductRole::from_targets(name, targets)?;
        Ok(Self { set, role })
    }

    /// The device's product-channel role.
    pub fn role(&self) -> &ProductRole {
        &self.role
    }

    /// The newest time that an offline key has vouched for: a floor for the device's clock.
    pub fn time_floor(&self) -> Result<Timestamp, TrustError> {
        let targets = self.targets()?;
        Ok(role::issued("targets.json", &targets.extra)?.max(self.role.issued))
    }

    fn targets(&self) -> Result<&Targets, TrustError> {
        self.set
            .targets_role("targets")
            .ok_or_else(|| TrustError::Missing("targets.json".into()))
    }

    /// 4. Checks the director's signatures of an assignment against the fresh offline targets.
    pub(crate) fn verify_director(&self, document: &Metadata<Targets>) -> Result<(), TrustError> {
        let (keys, role) =
            crate::repository::delegation(self.targets()?, DIRECTOR).ok_or_else(|| {
                TrustError::field("targets.json", "it does not delegate the director role")
            })?;
        document
            .verify_threshold(keys, &role.role_keys(), DIRECTOR)
            .map_err(refuse(crate::assignment::FILE))
    }

    /// Whether the delegation of the role allows it to speak for a path.
    pub(crate) fn role_may_speak_for(&self, path: &str) -> Result<bool, TrustError> {
        let name = self.role.name.to_string();
        let (_, role) = crate::repository::delegation(self.targets()?, &name).ok_or_else(|| {
            TrustError::field("targets.json", format!("it does not delegate {name}"))
        })?;
        role.matches_path(path).map_err(refuse("targets.json"))
    }

    /// 5. Everything that the decision rests on must be unexpired at `now`.
    pub fn check_expiry(&self, now: Timestamp) -> Result<(), TrustError> {
        let now = to_jiff(now);
        self.set
            .check_root_expired(now)
            .map_err(refuse("root.json"))?;
        self.set
            .check_timestamp_expired(now)
            .map_err(refuse("timestamp.json"))?;
        self.set
            .check_snapshot_expired(now)
            .map_err(refuse("snapshot.json"))?;
        let expired = |file: &str, expires: jiff::Timestamp| TrustError::Metadata {
            file: file.into(),
            source: Error::Expired {
                role: file.into(),
                expires,
            },
        };
        let targets = self.targets()?;
        if targets.expires < now {
            return Err(expired("targets.json", targets.expires));
        }
        let role = to_jiff(self.role.expires);
        if role < now {
            return Err(expired(&format!("{}.json", self.role.name), role));
        }
        Ok(())
    }
}

fn refuse(file: &str) -> impl FnOnce(Error) -> TrustError {
    let file = file.to_owned();
    move |source| TrustError::Metadata { file, source }
}

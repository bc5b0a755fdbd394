//! The offline side of trust: keys and signed files in a folder that never leaves its owner.
//!
//! ```text
//! tidegate-keys/private/NAME.pem      private keys of NAME, encrypted PKCS#8; or NAME.token.json
//! tidegate-keys/holders/NAME.json     public keys of NAME: what is handed on
//! tidegate-keys/metadata/ROLE.json    in force; metadata/roots/N.json is the whole chain
//! tidegate-keys/drafts/ROLE.json      waits for signatures; ROLE.txt says what for
//! ```

mod base;
mod drafts;
pub(crate) mod edit;
pub(crate) mod exchange;
mod files;
pub(crate) mod holder;
mod lock;
mod review;
pub(crate) mod secret;
pub(crate) mod token;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_protocol::Timestamp;
use tidegate_trust::{Repository, Signed, UploadedFile, signed_version};

use crate::error::CliError;
use files::read_if_there;
pub(crate) use files::{drop_draft, open_mode, read_bounded, write_private};
use holder::Keyring;
use secret::Unlock;

/// Keys folder, how to unlock its keys, and the holder to sign as.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    pub(crate) dir: PathBuf,
    pub(crate) unlock: Unlock,
    /// Holder to sign as; `None` for every holder whose keys are here.
    pub(crate) holder: Option<String>,
}

/// A folder of keys and signed files.
pub(crate) struct Offline {
    access: Access,
    /// Lock on the folder: two commands that sign at once would both make the next version.
    _lock: Option<Arc<File>>,
    repository: Repository,
    open: BTreeMap<String, Keyring>,
    /// Role files that their new holders have not signed yet.
    stale: BTreeMap<String, Vec<u8>>,
}

/// Result of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has all its signatures and is in force in this folder.
    Complete,
    /// It is stored in `drafts` and waits for the signatures of others.
    Waiting {
        /// People who have signed.
        signed_by: Vec<String>,
        /// Number of people who must sign.
        people: u32,
    },
}

impl Outcome {
    /// Describes it in a line for people.
    pub(crate) fn describe(&self, role: &str) -> String {
        match self {
            Self::Complete => format!("{role} has all its signatures"),
            Self::Waiting { signed_by, people } => format!(
                "{role} waits for signatures: {} of {people} people so far ({})",
                signed_by.len(),
                if signed_by.is_empty() {
                    "none".into()
                } else {
                    signed_by.join(", ")
                }
            ),
        }
    }
}

/// Current time in whole seconds, the resolution of the signed files.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_secs(Timestamp::ZERO.plus(since).as_secs())
}

fn trust(error: &tidegate_trust::TrustError) -> CliError {
    CliError::failed("signed metadata", error)
}

/// Rank of a role in the order in which files vouch for each other.
fn rank(role: &str) -> u8 {
    match role {
        "root" => 0,
        "targets" => 1,
        _ => 2,
    }
}

impl Offline {
    /// Opens a folder that must hold a root; its files are verified from the root down.
    pub(crate) fn open(access: &Access) -> Result<Self, CliError> {
        let offline = Self::open_any(access)?;
        if offline.repository.root().is_none() {
            return Err(CliError::Hinted(
                format!("{} holds no root of trust", access.dir.display()),
                "`tidegate keys ceremony` (or `tidegate keys init` for trying out), `tidegate keys fetch` \
                 where others have made one, or name the folder with --keys"
                    .into(),
            ));
        }
        Ok(offline)
    }

    /// Opens a folder, whatever it holds so far.
    pub(crate) fn open_any(access: &Access) -> Result<Self, CliError> {
        let mut offline = Self {
            access: access.clone(),
            _lock: lock::hold(&access.dir)?,
            repository: Repository::default(),
            open: BTreeMap::new(),
            stale: BTreeMap::new(),
        };
        for role in offline.names("metadata")? {
            if let Some(bytes) = offline.stored(&role)? {
                let file = UploadedFile { role, bytes };
                match offline.repository.accept(&file, Timestamp::ZERO) {
                    Ok(_) => {}
                    // Its holders have changed and it has not been signed again yet.
                    Err(error) if error.lacks_signatures() && offline.was_good(&file)? => {
                        offline.stale.insert(file.role, file.bytes);
                    }
                    Err(error) => {
                        let path = offline.path("metadata", &file.role);
                        return Err(CliError::Hinted(
                            format!("{} does not verify: {error}", path.display()),
                            "it is damaged, or somebody changed it. Investigate, then delete it and \
                             `tidegate keys fetch` (--root SHA256 where root.json is gone)"
                                .into(),
                        ));
                    }
                }
            }
        }
        Ok(offline)
    }

    /// Files in force in this folder.
    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Describes a draft against the file in force here: what a person puts their name to.
    pub(crate) fn review(&self, role: &str, draft: &Signed) -> Result<String, CliError> {
        review::review(role, draft, self.repository.bytes(role), now())
    }

    /// Version of a role here, validly signed or waiting for its new holders.
    pub(crate) fn version(&self, role: &str) -> u64 {
        let stale = self.stale.get(role).and_then(|b| signed_version(b));
        stale.unwrap_or(0).max(self.repository.version(role))
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.access.dir
    }

    fn path(&self, place: &str, role: &str) -> PathBuf {
        self.access.dir.join(place).join(format!("{role}.json"))
    }

    /// The roles with a file in `metadata` or `drafts`, in the order in which they vouch.
    pub(crate) fn names(&self, place: &str) -> Result<Vec<String>, CliError> {
        let entries = match fs::read_dir(self.access.dir.join(place)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(".json").map(str::to_owned));
        }
        names.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
        Ok(names)
    }

    fn stored(&self, role: &str) -> Result<Option<Vec<u8>>, CliError> {
        read_if_there(&self.path("metadata", role))
    }
    /// Returns whether a role file was validly signed under delegations that were in force here before.
    fn was_good(&self, file: &UploadedFile) -> Result<bool, CliError> {
        let Some((newest, root)) = self.repository.root() else {
            return Ok(false);
        };
        // The root in force, and the one before it, which has signed it.
        let mut roots = vec![root.to_vec()];
        let path = self
            .access
            .dir
            .join(format!("metadata/roots/{}.json", newest.saturating_sub(1)));
        if let Some(before) = read_if_there(&path)? {
            let mut chain = Repository::default();
            let linked = [before.clone(), root.to_vec()].into_iter().all(|bytes| {
                let role = "root".to_owned();
                chain
                    .accept(&UploadedFile { role, bytes }, Timestamp::ZERO)
                    .is_ok()
            });
            roots.extend(linked.then_some(before));
        }
        let newest = self.repository.version("targets");
        let versions = (1..=newest)
            .rev()
            .flat_map(|v| roots.iter().map(move |r| (v, r)));
        for (version, root) in versions {
            let path = self
                .access
                .dir
                .join(format!("metadata/targets/{version}.json"));
            let Some(targets) = read_if_there(&path)? else {
                continue;
            };
            let mut before = Repository::default();
            let chain = [("root", root.clone()), ("targets", targets)];
            let good = chain.into_iter().all(|(role, bytes)| {
                let role = role.to_owned();
                before
                    .accept(&UploadedFile { role, bytes }, Timestamp::ZERO)
                    .is_ok()
            });
            if good && before.accept(file, Timestamp::ZERO).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

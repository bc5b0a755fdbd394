//! The TUF repository in memory: the newest signed files, parsed and ready to serve.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidegate_protocol::{Sha256, Timestamp};
use tidegate_store::{StoreError, Tx, trust};
use tidegate_trust::{Repository, UploadedFile};

use crate::memory::secrets::{OnlineKeys, Secrets};

/// The newest signed files, parsed and ready to serve.
#[derive(Debug)]
pub struct TrustState {
    /// Offline-signed part.
    pub repository: Repository,
    /// Files by name (`3.root.json`, `timestamp.json`); newest versions only.
    pub files: HashMap<String, Arc<Vec<u8>>>,
    /// Newest version of each role.
    pub versions: BTreeMap<String, u64>,
    /// Secrets of the server.
    pub secrets: Secrets,
    /// Online keys that the files name.
    pub keys: OnlineKeys,
    /// Problems with the stored files, because of which devices would refuse them.
    pub problems: Vec<String>,
}

impl TrustState {
    /// Loads the newest files. Those that no longer verify (someone tampered with the database) are
    /// left out of the repository: devices would refuse them as well.
    pub async fn load(tx: &mut Tx) -> Result<Self, StoreError> {
        let secrets = Secrets::load(tx).await?;
        let mut state = Self {
            repository: Repository::default(),
            files: HashMap::new(),
            versions: BTreeMap::new(),
            keys: secrets.newest().clone(),
            secrets,
            problems: Vec::new(),
        };
        let mut files = trust::current(tx).await?;
        // In the order in which they vouch for each other.
        files.sort_by_key(|f| match f.role.as_str() {
            "root" => 0,
            "targets" => 1,
            _ => 2,
        });
        for file in files {
            state.versions.insert(file.role.clone(), file.version);
            if !is_online(&file.role) {
                let upload = UploadedFile {
                    role: file.role.clone(),
                    bytes: file.body.clone(),
                };
                // Expiry is for devices to judge: an expired role is loaded all the same.
                if let Err(error) = state.repository.accept(&upload, Timestamp::ZERO) {
                    tracing::error!(role = file.role, %error, "stored metadata does not verify");
                    let role = &file.role;
                    state
                        .problems
                        .push(format!("the stored {role} does not verify: {error}"));
                }
            }
            state
                .files
                .insert(file_name(&file.role, file.version), Arc::new(file.body));
        }
        state.keys = state.secrets.active(&state.repository);
        state.look_for_problems();
        Ok(state)
    }

    /// Records files that are missing or do not match the server's keys.
    fn look_for_problems(&mut self) {
        if self.repository.root().is_none() {
            return;
        }
        if self.repository.targets().is_none() {
            self.problems.push("there is no targets file".into());
            return;
        }
        for (role, key) in self.keys.public() {
            let named = self
                .repository
                .quorum(role)
                .is_ok_and(|quorum| quorum.keys().any(|k| *k == key.into()));
            if !named {
                self.problems.push(format!(
                    "root and targets do not list the server's {role} key; run `tidegate keys online`"
                ));
            }
        }
    }

    /// Expiry of the newest file of each role.
    pub fn expiries(&self) -> BTreeMap<String, Timestamp> {
        self.versions
            .iter()
            .filter_map(|(role, version)| {
                let file = self.files.get(&file_name(role, *version))?;
                let file: serde_json::Value = serde_json::from_slice(file).ok()?;
                let at: jiff::Timestamp = file["signed"]["expires"].as_str()?.parse().ok()?;
                Some((role.clone(), Timestamp::from_micros(at.as_microsecond())))
            })
            .collect()
    }

    /// Version and hash of the newest root.
    pub fn root(&self) -> Option<(u64, Sha256)> {
        self.repository
            .root()
            .map(|(version, bytes)| (version, tidegate_delta::sha256(bytes)))
    }
}

/// Returns whether the server signs this role itself.
pub(crate) fn is_online(role: &str) -> bool {
    matches!(role, "snapshot" | "timestamp" | "director")
}

/// Name under which a metadata file is served.
pub(crate) fn file_name(role: &str, version: u64) -> String {
    if role == "timestamp" {
        "timestamp.json".into()
    } else {
        format!("{version}.{role}.json")
    }
}

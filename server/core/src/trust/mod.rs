//! The TUF repository that the server serves: files signed offline by people, and online
//! signatures.

mod drafts;
mod rotate;

pub use drafts::DraftStanding;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_domain::event::{Actor, Event};
use tidegate_protocol::{ProblemCode, Timestamp};
use tidegate_store::Tx;
use tidegate_store::trust::{self, MetadataFile};
use tidegate_trust::{
    FileFacts, SecretKey, Signed, UploadedFile, lifetime, sign, signed_version, snapshot_body,
    timestamp_body,
};

use crate::CoreError;
use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::memory::trust::{TrustState, file_name, is_online};

pub use crate::memory::secrets::OnlineKeys;

/// Number of old versions of `snapshot` kept: a device may be in the middle of a refresh.
const KEEP_ONLINE: u64 = 20;

/// Refusal of an upload for a role that the server signs itself.
fn signed_by_server(role: &str) -> CoreError {
    CoreError::invalid(format!("{role} is signed by the server"))
}

impl App {
    /// Takes signed files, all or none, in the order given, and re-signs the repository.
    pub async fn upload_metadata(
        &self,
        by: &Operator,
        uploads: &[UploadedFile],
    ) -> Result<BTreeMap<String, u64>, CoreError> {
        let now = self.now();
        self.change_or_leave(async |tx| {
            trust::lock(tx).await?;
            let mut state = TrustState::load(tx).await?;
            let mut taken = Vec::new();
            for upload in uploads {
                if is_online(&upload.role) {
                    return Err(signed_by_server(&upload.role));
                }
                if let Some(version) = state.repository.accept(upload, now)? {
                    let file = MetadataFile {
                        role: upload.role.clone(),
                        version,
                        sha256: tidegate_delta::sha256(&upload.bytes),
                        body: upload.bytes.clone(),
                    };
                    trust::insert(tx, &file, now).await?;
                    trust::drop_draft(tx, &upload.role, version).await?;
                    taken.push(format!("{} v{version}", upload.role));
                }
            }
            state.repository.check_chain()?;
            // A new root may name other online keys.
            state.keys = state.secrets.active(&state.repository);
            if taken.is_empty() {
                return Ok(Done::Leave(state.versions));
            }
            self.sign_online(tx, &state, now).await?;
            let versions = TrustState::load(tx).await?.versions;
            let event = Event::MetadataTaken { files: taken };
            Ok(Done::by(&by.actor, versions, [event]))
        })
        .await
    }

    /// Signs `snapshot` and `timestamp` again before they expire. Called hourly by the leader.
    pub async fn sign_again(&self) -> Result<(), CoreError> {
        let now = self.now();
        self.change_or_leave(async |tx| {
            trust::lock(tx).await?;
            let state = TrustState::load(tx).await?;
            if state.repository.targets().is_none() {
                return Ok(Done::Leave(()));
            }
            self.sign_online(tx, &state, now).await?;
            Ok(Done::by(&Actor::Planner, (), [Event::OnlineSigned {}]))
        })
        .await
    }

    async fn sign_online(
        &self,
        tx: &mut Tx,
        state: &TrustState,
        now: Timestamp,
    ) -> Result<(), CoreError> {
        // Nothing to pin before `targets` exists.
        if state.repository.targets().is_none() {
            return Ok(());
        }
        let next = |role: &str| state.versions.get(role).copied().unwrap_or(0) + 1;
        let mut pins = state.repository.pins();
        // Standard clients require a file for every delegation that the snapshot pins.
        let director = state
            .files
            .get(&file_name("director", next("director") - 1));
        let director = match director {
            Some(body)
                if expires_after(body, now.plus(lifetime::SNAPSHOT))
                    && is_signed_by(body, &state.keys.director) =>
            {
                FileFacts::of(next("director") - 1, body)
            }
            _ => {
                let version = next("director");
                let body = serde_json::json!({
                    "_type": "targets",
                    "spec_version": tidegate_trust::SPEC_VERSION,
                    "version": version,
                    "expires": now.plus(lifetime::SNAPSHOT * 4).to_string(),
                    "targets": {},
                });
                let bytes = sign(body, &[&state.keys.director])?.to_bytes();
                store(tx, "director", version, &bytes, now).await?
            }
        };
        pins.insert("director".into(), director);
        let version = next("snapshot");
        let body = snapshot_body(version, now.plus(lifetime::SNAPSHOT), &pins);
        let snapshot = sign(body, &[&state.keys.snapshot])?.to_bytes();
        let facts = store(tx, "snapshot", version, &snapshot, now).await?;
        trust::prune(tx, "snapshot", version.saturating_sub(KEEP_ONLINE)).await?;
        let version = next("timestamp");
        let body = timestamp_body(version, now.plus(lifetime::TIMESTAMP), facts);
        let timestamp = sign(body, &[&state.keys.timestamp])?.to_bytes();
        store(tx, "timestamp", version, &timestamp, now).await?;
        trust::prune(tx, "timestamp", version).await?;
        Ok(())
    }

    /// Returns a metadata file by name; old versions come from the database.
    pub async fn metadata_file(&self, name: &str) -> Result<Arc<Vec<u8>>, CoreError> {
        if let Some(body) = self.fleet.plan().trust.files.get(name) {
            return Ok(body.clone());
        }
        let missing = || CoreError::refuse(ProblemCode::NotFound, format!("there is no {name}"));
        let (version, role) = name
            .strip_suffix(".json")
            .and_then(|stem| stem.split_once('.'))
            .ok_or_else(missing)?;
        let version: u64 = version.parse().map_err(|_| missing())?;
        let mut tx = self.db.read().await?;
        let file = trust::file(&mut tx, role, version)
            .await?
            .ok_or_else(missing)?;
        Ok(Arc::new(file.body))
    }
}

async fn store(
    tx: &mut Tx,
    role: &str,
    version: u64,
    bytes: &[u8],
    now: Timestamp,
) -> Result<FileFacts, CoreError> {
    debug_assert_eq!(signed_version(bytes), Some(version));
    let facts = FileFacts::of(version, bytes);
    let file = MetadataFile {
        role: role.into(),
        version,
        sha256: facts.sha256,
        body: bytes.to_vec(),
    };
    trust::insert(tx, &file, now).await?;
    Ok(facts)
}

/// Returns whether a signed file carries a signature of this key.
fn is_signed_by(body: &[u8], key: &SecretKey) -> bool {
    Signed::from_bytes("director.json", body)
        .and_then(|signed| signed.valid_signers(&[key.public().into()]))
        .is_ok_and(|signers| !signers.is_empty())
}

/// Returns whether a signed file is valid beyond a time. RFC 3339 in UTC with whole seconds, as we write
/// it, sorts chronologically.
fn expires_after(body: &[u8], at: Timestamp) -> bool {
    serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|v| {
            v["signed"]["expires"]
                .as_str()
                .map(|text| *text > *at.to_string())
        })
        .unwrap_or(false)
}

//! Exchange of signed files between a folder and the server. Incoming files are trusted only as far
//! as they verify from the folder's own root.

use std::collections::BTreeMap;

use tidegate_api::{DraftBody, DraftView, MetadataBody, MetadataFileBody, TrustView};
use tidegate_trust::{PublicKey, Signed, signed_version};

use super::{Offline, read_if_there, trust};
use crate::api::Api;
use crate::error::CliError;

/// The server's three online keys.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct OnlineKeys(BTreeMap<String, String>);

impl OnlineKeys {
    /// Asks the server for them.
    pub(crate) async fn ask(api: &Api) -> Result<Self, CliError> {
        let server: TrustView = api.get("/api/v1/trust").await?;
        Ok(Self(server.online_keys))
    }

    /// The key of one role.
    pub(crate) fn key(&self, role: &str) -> Result<PublicKey, CliError> {
        self.0
            .get(role)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| CliError::Failed(format!("the server has no {role} key")))
    }
}

impl Offline {
    /// Refuses a server with another root of trust: what it has is none of this folder's, and what it has
    /// under the same number would pass for it.
    async fn same_root(&self, api: &Api, server: &TrustView) -> Result<(), CliError> {
        let theirs = server.versions.get("root").copied().unwrap_or(0);
        let Some((ours, newest)) = self.repository.root() else {
            return Ok(());
        };
        // The newest that both have: what came before it has vouched for it.
        let version = theirs.min(ours);
        let mine = if version == ours {
            Some(newest.to_vec())
        } else {
            read_if_there(&self.dir().join(format!("metadata/roots/{version}.json")))?
        };
        let Some(mine) = mine.filter(|_| version > 0) else {
            return Ok(());
        };
        let path = format!("/metadata/{version}.root.json");
        let Some(found) = api.get_bytes(&path).await? else {
            return Err(CliError::Failed(format!(
                "the server says that it has root version {version}, and does not serve it"
            )));
        };
        let body = |bytes: &[u8]| {
            Signed::from_bytes("root", bytes)
                .ok()
                .map(|s| s.body().clone())
        };
        // A signature more or less is no other root.
        if found == mine || body(&found).is_some_and(|body_found| Some(body_found) == body(&mine)) {
            return Ok(());
        }
        let hash = |bytes: &[u8]| tidegate_delta::sha256(bytes).to_string();
        Err(CliError::State(
            format!(
                "{} has another root of trust than {}: its root version {version} has the SHA-256 {}, the folder's \
                 has {}. Nothing was sent or taken",
                api.server(),
                self.dir().display(),
                hash(&found),
                hash(&mine)
            ),
            "name the folder of this server with --keys, or the server of this folder with --server. If both are \
             right, somebody has put another root there: docs/how-to/recovery.md"
                .into(),
        ))
    }

    /// Downloads and verifies the files that others have signed since.
    pub(crate) async fn pull(&mut self, api: &Api) -> Result<(), CliError> {
        let server: TrustView = api.get("/api/v1/trust").await?;
        self.same_root(api, &server).await?;
        let mut roles: Vec<(String, u64)> = server.versions.into_iter().collect();
        roles.retain(|(role, _)| !matches!(role.as_str(), "snapshot" | "timestamp" | "director"));
        roles.sort_by_key(|(role, _)| super::rank(role));
        for (role, newest) in roles {
            let have = self.repository.version(&role);
            // Roots are followed one by one; of the others the newest is taken directly.
            let first = if role == "root" { have + 1 } else { newest };
            for version in first..=newest {
                if version > have {
                    let path = format!("/metadata/{version}.{role}.json");
                    if let Some(bytes) = api.get_bytes(&path).await? {
                        self.take(&role, bytes)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Downloads the drafts that wait on the server and merges their signatures with ours.
    pub(crate) async fn pull_drafts(&mut self, api: &Api) -> Result<Vec<DraftView>, CliError> {
        let drafts: Vec<DraftView> = api.get("/api/v1/trust/drafts").await?;
        for draft in &drafts {
            let theirs =
                Signed::from_bytes(&draft.role, draft.body.as_bytes()).map_err(|e| trust(&e))?;
            self.merge(&draft.role, &theirs, &draft.purpose)?;
        }
        Ok(drafts)
    }

    /// Merges the signatures of another copy of a draft. A copy that is newer than ours is kept as
    /// it is, as is one of a role that we have no draft of.
    pub(crate) fn merge(
        &mut self,
        role: &str,
        theirs: &Signed,
        purpose: &str,
    ) -> Result<super::Outcome, CliError> {
        let keys = self.draft_keys(role, theirs)?;
        let mut merged = Signed::unsigned(theirs.body().clone());
        merged.merge(theirs, &keys).map_err(|e| trust(&e))?;
        if let Some(ours) = self.draft(role)? {
            if ours.body() == theirs.body() {
                merged.merge(&ours, &keys).map_err(|e| trust(&e))?;
            } else if ours.body()["version"].as_u64() >= theirs.body()["version"].as_u64()
                && !ours.valid_signers(&keys).map_err(|e| trust(&e))?.is_empty()
            {
                return Err(CliError::Hinted(
                    format!("this folder has a different signed draft of {role}"),
                    format!("agree on one of them; `tidegate keys drop {role}` throws ours away"),
                ));
            }
        }
        let purpose = if purpose.is_empty() {
            self.purpose(role)
        } else {
            purpose.to_owned()
        };
        self.settle(role, &merged, &purpose)
    }

    /// Uploads what the server does not have yet of these roles: files in force, then drafts. Files
    /// that vouch for them, and those of the product's other channels, are included if an earlier
    /// command was cut off before it uploaded them.
    pub(crate) async fn push(&self, api: &Api, roles: &[String]) -> Result<(), CliError> {
        let server: TrustView = api.get("/api/v1/trust").await?;
        self.same_root(api, &server).await?;
        let mut files = Vec::new();
        let mut roles = roles.to_vec();
        for role in self.names("metadata")? {
            let behind = server.versions.get(&role).copied().unwrap_or(0) < self.version(&role);
            if behind && !roles.contains(&role) && roles.iter().any(|r| belongs(&role, r)) {
                roles.push(role);
            }
        }
        roles.sort_by_key(|role| super::rank(role));
        for role in &roles {
            let known = server.versions.get(role).copied().unwrap_or(0);
            if role == "root" {
                let newest = self.repository.version("root");
                for version in known + 1..=newest {
                    let path = self.dir().join(format!("metadata/roots/{version}.json"));
                    if let Some(bytes) = read_if_there(&path)? {
                        files.push(file_body(role, &bytes));
                    }
                }
            } else if let Some(bytes) = self.stored(role)?
                && signed_version(&bytes).unwrap_or(0) >= known
            {
                files.push(file_body(role, &bytes));
            }
        }
        if !files.is_empty() {
            let _: BTreeMap<String, u64> = api
                .post("/api/v1/trust/metadata", &MetadataBody { files })
                .await?;
        }
        for role in &roles {
            if let Some(draft) = self.draft(role)? {
                let body = DraftBody {
                    role: role.clone(),
                    body: String::from_utf8_lossy(&draft.to_bytes()).into_owned(),
                    purpose: self.purpose(role),
                };
                let _: DraftView = api.post("/api/v1/trust/drafts", &body).await?;
            }
        }
        Ok(())
    }

    /// Uploads everything in this folder that the server does not have yet.
    pub(crate) async fn push_all(&self, api: &Api) -> Result<(), CliError> {
        let mut roles = self.names("metadata")?;
        roles.extend(self.names("drafts")?);
        roles.dedup();
        roles.sort();
        roles.dedup();
        self.push(api, &roles).await
    }
}

/// Returns whether the server needs the file of `role` for the file of `to`: because it vouches for it, or
/// because both are channels of one product, which are delegated together.
fn belongs(role: &str, to: &str) -> bool {
    let product = |role: &str| role.rsplit_once('-').map(|(product, _)| product.to_owned());
    super::rank(role) < super::rank(to) || (product(role).is_some() && product(role) == product(to))
}

fn file_body(role: &str, bytes: &[u8]) -> MetadataFileBody {
    MetadataFileBody {
        role: role.to_owned(),
        body: String::from_utf8_lossy(bytes).into_owned(),
    }
}

//! Signatures across files: those that a draft may carry, and those that a change of holders leaves
//! behind.

use sigstore_tuf::TrustedMetadataSet;

use super::{Repository, delegation};
use crate::{ProductRole, RoleKey, RootRole, Signed, TopTargets, TrustError, quorum};

impl Repository {
    /// Checks that every stored file is still signed as the files above it require. A change of
    /// holders must come together with the files that they sign again: devices would refuse the old
    /// ones.
    pub fn check_chain(&self) -> Result<(), TrustError> {
        let unsigned = |role: &str, source: sigstore_tuf::Error| {
            TrustError::field(
                role,
                format!(
                    "the newest {role}.json is not signed as its new holders' threshold asks \
                     ({source}): sign it anew (`tidegate keys renew {role}`) and hand both over \
                     together"
                ),
            )
        };
        let (Some((_, root)), Some((bytes, targets))) = (&self.root, &self.targets) else {
            return Ok(());
        };
        let root = TrustedMetadataSet::from_root(root).map_err(|source| TrustError::Metadata {
            file: "root.json".into(),
            source,
        })?;
        if let Some(keys) = root.root().role("targets") {
            quorum::parse_targets("targets.json", bytes)?
                .verify_threshold(&root.root().keys, keys, "targets")
                .map_err(|e| unsigned("targets", e))?;
        }
        for (name, (bytes, _)) in &self.roles {
            let name = name.to_string();
            if let Some((keys, role)) = delegation(targets, &name) {
                quorum::parse_targets(&name, bytes)?
                    .verify_threshold(keys, &role.role_keys(), &name)
                    .map_err(|e| unsigned(&name, e))?;
            }
        }
        Ok(())
    }

    /// Returns the keys whose signatures a draft of a role may carry: those of the role and, for a
    /// root, those of the new one too. Refuses a draft that is not the next version, or contains
    /// something that must not be signed.
    pub fn draft_keys(&self, role: &str, draft: &Signed) -> Result<Vec<RoleKey>, TrustError> {
        let version = draft.body()["version"].as_u64().unwrap_or(0);
        let present = self.version(role);
        let next = if role == "root" {
            // The highest version number has no successor.
            present.checked_add(1) == Some(version)
        } else {
            version > present
        };
        if !next {
            return Err(TrustError::field(
                role,
                format!(
                    "the draft is version {version}, but the current version is {present}: start a new draft from it"
                ),
            ));
        }
        let mut keys: Vec<RoleKey> = Vec::new();
        if role != "root" || present > 0 {
            keys.extend(self.quorum(role)?.keys().cloned());
        }
        let bytes = draft.to_bytes();
        match role {
            "root" => {
                let root = RootRole::from_bytes(&bytes)?;
                root.check_quorums()?;
                for key in root.root.keys() {
                    if !keys.contains(key) {
                        keys.push(key.clone());
                    }
                }
            }
            "targets" => TopTargets::from_bytes(&bytes)?.check()?,
            name => {
                let parsed = quorum::parse_targets(name, &bytes)?;
                ProductRole::from_targets(&name.parse()?, parsed.signed())?;
            }
        }
        Ok(keys)
    }
}

//! Drafts: what waits for signatures, who may sign it, and its way into force.

use std::fs;

use tidegate_protocol::Timestamp;
use tidegate_trust::{Quorum, RoleKey, RootRole, Signed, UploadedFile, signed_by};

use super::files::{drop_draft, read_if_there, write_private};
use super::holder::{self, Keyring};
use super::{Offline, Outcome, trust};
use crate::error::CliError;

impl Offline {
    /// Reads the draft of a role, if there is one.
    pub(crate) fn draft(&self, role: &str) -> Result<Option<Signed>, CliError> {
        let path = self.path("drafts", role);
        read_if_there(&path)?
            .map(|bytes| Signed::from_bytes(role, &bytes))
            .transpose()
            .map_err(|e| {
                CliError::Hinted(
                    format!("{}: {e}", path.display()),
                    format!("`tidegate keys drop {role}` throws it away"),
                )
            })
    }

    /// Purpose of a draft; empty if none was given.
    pub(crate) fn purpose(&self, role: &str) -> String {
        fs::read_to_string(self.path("drafts", role).with_extension("txt")).unwrap_or_default()
    }

    /// Quorum that must sign a role: the one in force, or the one that a first root states for
    /// itself.
    pub(crate) fn quorum(&self, role: &str) -> Result<Quorum, CliError> {
        match (role, self.draft(role)?) {
            ("root", Some(draft)) if self.repository.root().is_none() => {
                let root = RootRole::from_bytes(&draft.to_bytes()).map_err(|e| trust(&e))?;
                Ok(root.root)
            }
            ("targets", _) if self.repository.root().is_none() => {
                let draft = self.draft("root")?.ok_or_else(|| {
                    CliError::Failed(
                        "there is no root yet that names the holders of targets".into(),
                    )
                })?;
                let root = RootRole::from_bytes(&draft.to_bytes()).map_err(|e| trust(&e))?;
                Ok(root.targets)
            }
            _ => self.repository.quorum(role).map_err(|e| trust(&e)),
        }
    }

    /// Keys whose signatures a draft may carry; refuses a draft that must not be signed.
    pub(crate) fn draft_keys(&self, role: &str, draft: &Signed) -> Result<Vec<RoleKey>, CliError> {
        if role == "targets" && self.repository.root().is_none() {
            return Ok(self.quorum(role)?.keys().cloned().collect());
        }
        self.repository
            .draft_keys(role, draft)
            .map_err(|e| trust(&e))
    }

    /// Proposes a change: signs it with the keys that are here, and stores it as in force or as a
    /// draft.
    pub(crate) fn propose(
        &mut self,
        role: &str,
        body: serde_json::Value,
        purpose: &str,
    ) -> Result<Outcome, CliError> {
        let mut draft = Signed::unsigned(body);
        self.sign_with_own(role, &mut draft)?;
        self.settle(role, &draft, purpose)
    }

    /// Signs with as many of the holders whose keys are here as are needed; returns their names.
    pub(crate) fn sign_with_own(
        &mut self,
        role: &str,
        draft: &mut Signed,
    ) -> Result<Vec<String>, CliError> {
        let keys = self.draft_keys(role, draft)?;
        let names = match &self.access.holder {
            Some(name) => vec![name.clone()],
            None => holder::all_here(&self.access.dir)?,
        };
        let mut signed = Vec::new();
        for name in names {
            let public = holder::public_path(&self.access.dir, &name);
            let may = holder::read_public(&public)?
                .keys
                .iter()
                .any(|k| keys.contains(k));
            if !may {
                if self.access.holder.is_some() {
                    return Err(CliError::Failed(format!(
                        "{name} is not a holder of {role}"
                    )));
                }
                continue;
            }
            for signer in self.keyring(&name)?.signers() {
                if keys.contains(&signer.role_key()) {
                    draft.add_signature(signer).map_err(|e| trust(&e))?;
                }
            }
            signed.push(name);
            if self.is_complete(role, draft)? {
                break;
            }
        }
        Ok(signed)
    }

    /// Returns whether a holder whose keys are here may sign a role.
    pub(crate) fn may_sign(&self, role: &str) -> Result<bool, CliError> {
        let quorum = self.quorum(role)?;
        for name in holder::all_here(&self.access.dir)? {
            let public = holder::read_public(&holder::public_path(&self.access.dir, &name))?;
            if public
                .keys
                .iter()
                .any(|key| quorum.keys().any(|k| k == key))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn keyring(&mut self, name: &str) -> Result<&Keyring, CliError> {
        if !self.open.contains_key(name) {
            let keyring = holder::open(&self.access.dir, name, &self.access.unlock)?;
            let public = holder::read_public(&holder::public_path(&self.access.dir, name))?;
            if keyring.holder != public {
                return Err(CliError::Failed(format!(
                    "the private and public keys of {name} do not match"
                )));
            }
            self.open.insert(name.to_owned(), keyring);
        }
        self.open
            .get(name)
            .ok_or_else(|| CliError::Failed(format!("no keys of {name}")))
    }

    fn is_complete(&self, role: &str, draft: &Signed) -> Result<bool, CliError> {
        let file = UploadedFile {
            role: role.to_owned(),
            bytes: draft.to_bytes(),
        };
        match self.repository.clone().accept(&file, Timestamp::ZERO) {
            Ok(_) => Ok(true),
            Err(error) if error.lacks_signatures() => Ok(false),
            // It waits for the root above it.
            Err(tidegate_trust::TrustError::Missing(_)) => Ok(false),
            // No signature would make it valid.
            Err(error) => Err(CliError::Hinted(
                format!("the draft of {role}: {error}"),
                format!(
                    "`tidegate keys drop {role}` throws it away; begin anew from what is there"
                ),
            )),
        }
    }

    /// Stores a draft: as in force when it has all its signatures, otherwise among the drafts.
    pub(crate) fn settle(
        &mut self,
        role: &str,
        draft: &Signed,
        purpose: &str,
    ) -> Result<Outcome, CliError> {
        let path = self.path("drafts", role);
        let bytes = draft.to_bytes();
        if self.is_complete(role, draft)? {
            self.take(role, bytes)?;
            return Ok(Outcome::Complete);
        }
        write_private(&path, &bytes)?;
        write_private(&path.with_extension("txt"), purpose.as_bytes())?;
        self.standing(role)
    }

    /// Signing progress of a draft.
    pub(crate) fn standing(&self, role: &str) -> Result<Outcome, CliError> {
        let Some(draft) = self.draft(role)? else {
            return Ok(Outcome::Complete);
        };
        let quorum = self.quorum(role)?;
        Ok(Outcome::Waiting {
            signed_by: signed_by(role, &draft.to_bytes(), &quorum).map_err(|e| trust(&e))?,
            people: quorum.people(),
        })
    }

    /// Puts a complete file in force and deletes the draft that it supersedes.
    pub(crate) fn take(&mut self, role: &str, bytes: Vec<u8>) -> Result<(), CliError> {
        let file = UploadedFile {
            role: role.to_owned(),
            bytes,
        };
        let version = self
            .repository
            .accept(&file, Timestamp::ZERO)
            .map_err(|e| trust(&e))?;
        // Every root is kept for those who follow the chain; every targets, to know what was valid.
        let kept = match role {
            "root" => Some("metadata/roots"),
            "targets" => Some("metadata/targets"),
            _ => None,
        };
        if let (Some(version), Some(place)) = (version, kept) {
            let place = self.access.dir.join(place);
            write_private(&place.join(format!("{version}.json")), &file.bytes)?;
        }
        write_private(&self.path("metadata", role), &file.bytes)?;
        let overtaken = self.draft(role)?.is_some_and(|draft| {
            draft.body()["version"].as_u64().unwrap_or(0) <= self.repository.version(role)
        });
        if overtaken {
            drop_draft(&self.access.dir, role)?;
        }
        Ok(())
    }
}

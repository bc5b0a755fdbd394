//! Acceptance of uploaded files: each is checked against the files that vouch for it.

use std::collections::BTreeSet;

use sigstore_tuf::TrustedMetadataSet;
use sigstore_tuf::metadata::Targets;
use tidegate_protocol::Timestamp;

use super::{Repository, UploadedFile, delegation};
use crate::{
    DIRECTOR, ProductRole, RoleName, RootRole, TrustError, from_jiff, lifetime, provider, quorum,
    role, size_limit, top,
};

impl Repository {
    /// Checks an uploaded file against the current files and stores it. Returns its version, or
    /// `None` if exactly these bytes are already stored. A refused file changes nothing.
    pub fn accept(
        &mut self,
        file: &UploadedFile,
        now: Timestamp,
    ) -> Result<Option<u64>, TrustError> {
        provider::install();
        match file.role.as_str() {
            "root" => self.accept_root(&file.bytes, now),
            "targets" => self.accept_targets(&file.bytes, now),
            name => self.accept_role(&name.parse()?, &file.bytes, now),
        }
    }

    fn accept_root(&mut self, bytes: &[u8], now: Timestamp) -> Result<Option<u64>, TrustError> {
        if self
            .root
            .as_ref()
            .is_some_and(|(_, current)| current == bytes)
        {
            return Ok(None);
        }
        RootRole::check(bytes)?;
        let refuse = |source| TrustError::Metadata {
            file: "root.json".into(),
            source,
        };
        let set = match &self.root {
            None => TrustedMetadataSet::from_root(bytes).map_err(refuse)?,
            Some((_, current)) => {
                let mut set = TrustedMetadataSet::from_root(current).map_err(refuse)?;
                set.update_root(bytes).map_err(refuse)?;
                top::check_root_keys(set.root())?;
                set
            }
        };
        let version = set.root().version;
        let issued = top::root_issued(set.root());
        if let Some(issued) = issued {
            check_issued("root.json", issued, now)?;
        }
        self.root = Some((version, bytes.to_vec()));
        Ok(Some(version))
    }

    fn accept_targets(&mut self, bytes: &[u8], now: Timestamp) -> Result<Option<u64>, TrustError> {
        let file = "targets.json";
        if self
            .targets
            .as_ref()
            .is_some_and(|(current, _)| current == bytes)
        {
            return Ok(None);
        }
        check_size(file, bytes, size_limit::TARGETS)?;
        let (_, root) = self
            .root
            .as_ref()
            .ok_or_else(|| TrustError::Missing("root.json".into()))?;
        let refuse = |source| TrustError::Metadata {
            file: file.into(),
            source,
        };
        let root = TrustedMetadataSet::from_root(root).map_err(refuse)?;
        let parsed = quorum::parse_targets(file, bytes)?;
        let keys = root
            .root()
            .role("targets")
            .ok_or_else(|| TrustError::field("root.json", "it has no targets role"))?;
        parsed
            .verify_threshold(&root.root().keys, keys, "targets")
            .map_err(refuse)?;
        let new = parsed.into_signed();
        check_newer(
            file,
            new.version,
            self.targets.as_ref().map(|(_, t)| t.version),
        )?;
        check_fresh(file, from_jiff(new.expires), now)?;
        check_issued(file, role::issued(file, &new.extra)?, now)?;
        if !new.targets.is_empty() {
            return Err(TrustError::field(
                file,
                "it must list no images, only delegations",
            ));
        }
        if delegation(&new, DIRECTOR).is_none() {
            return Err(TrustError::field(
                file,
                "it does not delegate the director role",
            ));
        }
        check_delegations(&new)?;
        let version = new.version;
        self.targets = Some((bytes.to_vec(), new));
        Ok(Some(version))
    }

    fn accept_role(
        &mut self,
        name: &RoleName,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<Option<u64>, TrustError> {
        let file = format!("{name}.json");
        if self
            .roles
            .get(name)
            .is_some_and(|(current, _)| current == bytes)
        {
            return Ok(None);
        }
        check_size(&file, bytes, size_limit::ROLE)?;
        let (_, targets) = self
            .targets
            .as_ref()
            .ok_or_else(|| TrustError::Missing("targets.json".into()))?;
        let (keys, role) = delegation(targets, &name.to_string()).ok_or_else(|| {
            TrustError::field("targets.json", format!("it does not delegate {name}"))
        })?;
        let refuse = |source| TrustError::Metadata {
            file: file.clone(),
            source,
        };
        let parsed = quorum::parse_targets(&file, bytes)?;
        parsed
            .verify_threshold(keys, &role.role_keys(), &file)
            .map_err(refuse)?;
        let role = ProductRole::from_targets(name, parsed.signed())?;
        check_newer(
            &file,
            role.version,
            self.roles.get(name).map(|(_, r)| r.version),
        )?;
        check_fresh(&file, role.expires, now)?;
        check_issued(&file, role.issued, now)?;
        if let Some((_, current)) = self.roles.get(name) {
            for (path, facts) in &role.images {
                if current
                    .images
                    .get(path)
                    .is_some_and(|old| old.image != facts.image)
                {
                    return Err(TrustError::field(
                        &file,
                        format!("{path} now lists a different image; publish it as a new release"),
                    ));
                }
            }
        }
        let version = role.version;
        self.roles.insert(name.clone(), (bytes.to_vec(), role));
        Ok(Some(version))
    }
}

/// Checks every role that `targets` delegates: a valid and unique name, a threshold above 0, and
/// distinct keys.
fn check_delegations(targets: &Targets) -> Result<(), TrustError> {
    let file = "targets.json";
    let Some(block) = &targets.delegations else {
        return Ok(());
    };
    let mut names = BTreeSet::new();
    for role in &block.roles {
        if role.name != DIRECTOR {
            role.name.parse::<RoleName>()?;
        }
        if !names.insert(&role.name) {
            return Err(TrustError::field(
                file,
                format!("it delegates {} twice", role.name),
            ));
        }
        if role.threshold == 0 {
            return Err(TrustError::field(
                file,
                format!("{} requires no signature", role.name),
            ));
        }
        quorum::check_distinct(file, &role.name, &role.keyids, &block.keys)?;
    }
    Ok(())
}

fn check_size(file: &str, bytes: &[u8], limit: usize) -> Result<(), TrustError> {
    if bytes.len() > limit {
        return Err(TrustError::TooLarge {
            file: file.into(),
            length: bytes.len(),
            limit,
        });
    }
    Ok(())
}

fn check_newer(file: &str, new: u64, current: Option<u64>) -> Result<(), TrustError> {
    let why = match current {
        Some(current) if new <= current => format!(
            "version {new} is not newer than {current}; fetch the current version and sign again"
        ),
        None if new == 0 => "versions count from 1".into(),
        _ => return Ok(()),
    };
    Err(TrustError::field(file, why))
}

/// Refuses a file from the future, which would take the clocks of devices with it. At
/// [`Timestamp::ZERO`] no time is judged.
fn check_issued(file: &str, issued: Timestamp, now: Timestamp) -> Result<(), TrustError> {
    if now != Timestamp::ZERO && issued > now.plus(lifetime::AHEAD) {
        let what = format!(
            "it says that it was signed at {issued}, but it is {now} here: set the clock of whoever \
             signed it, and sign it again"
        );
        return Err(TrustError::field(file, what));
    }
    Ok(())
}

fn check_fresh(file: &str, expires: Timestamp, now: Timestamp) -> Result<(), TrustError> {
    if expires <= now {
        return Err(TrustError::field(file, format!("it expired at {expires}")));
    }
    Ok(())
}

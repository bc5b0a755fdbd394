//! The server's side of the repository: which uploaded files are accepted, and what the online keys
//! state about them.

use std::collections::BTreeMap;

use sigstore_tuf::TrustedMetadataSet;
use sigstore_tuf::metadata::Targets;
use tidegate_protocol::Timestamp;

use crate::role::ImagePath;
use crate::{
    DIRECTOR, FileFacts, ImageFacts, ProductRole, Quorum, RoleKey, RoleName, RootRole, Signed,
    TOP_ROLES, TopTargets, TrustError, provider, quorum, top,
};
use crate::{from_jiff, size_limit};

/// A metadata file that a person's CLI made and signed.
#[derive(Debug, Clone)]
pub struct UploadedFile {
    /// `root`, `targets` or the name of a product-channel role.
    pub role: String,
    /// The signed file.
    pub bytes: Vec<u8>,
}

/// The newest offline-signed files that were accepted, parsed.
#[derive(Debug, Clone, Default)]
pub struct Repository {
    root: Option<(u64, Vec<u8>)>,
    targets: Option<(Vec<u8>, Targets)>,
    roles: BTreeMap<RoleName, (Vec<u8>, ProductRole)>,
}

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
            "root" => self.accept_root(&file.bytes),
            "targets" => self.accept_targets(&file.bytes, now),
            name => self.accept_role(&name.parse()?, &file.bytes, now),
        }
    }

    fn accept_root(&mut self, bytes: &[u8]) -> Result<Option<u64>, TrustError> {
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
        let version = match &self.root {
            None => {
                TrustedMetadataSet::from_root(bytes)
                    .map_err(refuse)?
                    .root()
                    .version
            }
            Some((_, current)) => {
                let mut set = TrustedMetadataSet::from_root(current).map_err(refuse)?;
                set.update_root(bytes).map_err(refuse)?;
                top::check_root_keys(set.root())?;
                set.root().version
            }
        };
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

    /// Version and bytes of the newest root.
    pub fn root(&self) -> Option<(u64, &[u8])> {
        self.root
            .as_ref()
            .map(|(version, bytes)| (*version, bytes.as_slice()))
    }

    /// Version and bytes of the newest targets.
    pub fn targets(&self) -> Option<(u64, &[u8])> {
        self.targets
            .as_ref()
            .map(|(bytes, t)| (t.version, bytes.as_slice()))
    }

    /// Returns a product-channel role.
    pub fn role(&self, name: &RoleName) -> Option<&ProductRole> {
        self.roles.get(name).map(|(_, role)| role)
    }

    /// Returns whether `targets` delegates a role.
    pub fn delegates(&self, name: &RoleName) -> bool {
        self.targets
            .as_ref()
            .is_some_and(|(_, t)| delegation(t, &name.to_string()).is_some())
    }

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

    /// Returns the offline quorum of a role, as the newest accepted files name it.
    pub fn quorum(&self, role: &str) -> Result<Quorum, TrustError> {
        let none = || TrustError::field(role, "no such role");
        if TOP_ROLES.contains(&role) {
            let (_, root) = self.root.as_ref().ok_or_else(none)?;
            let root = RootRole::from_bytes(root)?;
            return root.quorum(role).cloned().ok_or_else(none);
        }
        let (bytes, _) = self.targets.as_ref().ok_or_else(none)?;
        let targets = TopTargets::from_bytes(bytes)?;
        let delegation = targets.delegation(role).ok_or_else(none)?;
        Ok(delegation.quorum.clone())
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

    /// Returns the bytes of a file that people sign, as last accepted.
    pub fn bytes(&self, role: &str) -> Option<&[u8]> {
        match role {
            "root" => self.root().map(|(_, bytes)| bytes),
            "targets" => self.targets().map(|(_, bytes)| bytes),
            name => {
                let name: RoleName = name.parse().ok()?;
                self.roles.get(&name).map(|(bytes, _)| bytes.as_slice())
            }
        }
    }

    /// Returns the product-channel roles that are stored.
    pub fn roles(&self) -> impl Iterator<Item = &ProductRole> {
        self.roles.values().map(|(_, role)| role)
    }

    /// Version of a file that people sign; 0 if there is none.
    pub fn version(&self, role: &str) -> u64 {
        match role {
            "root" => self.root().map_or(0, |(version, _)| version),
            "targets" => self.targets().map_or(0, |(version, _)| version),
            name => name
                .parse()
                .ok()
                .and_then(|name| self.role(&name))
                .map_or(0, |role| role.version),
        }
    }

    /// Returns what a role states about one image.
    pub fn image(&self, path: &ImagePath) -> Option<&ImageFacts> {
        self.role(&path.role)?.images.get(path)
    }

    /// Returns what `snapshot` has to pin of the offline-signed files.
    pub fn pins(&self) -> BTreeMap<String, FileFacts> {
        let mut pins = BTreeMap::new();
        if let Some((bytes, targets)) = &self.targets {
            pins.insert("targets".into(), FileFacts::of(targets.version, bytes));
        }
        for (name, (bytes, role)) in &self.roles {
            pins.insert(name.to_string(), FileFacts::of(role.version, bytes));
        }
        pins
    }
}

type Keys = BTreeMap<String, sigstore_tuf::Key>;

pub(crate) fn delegation<'a>(
    targets: &'a Targets,
    name: &str,
) -> Option<(&'a Keys, &'a sigstore_tuf::DelegatedRole)> {
    let block = targets.delegations.as_ref()?;
    block
        .roles
        .iter()
        .find(|role| role.name == name)
        .map(|role| (&block.keys, role))
}

/// Checks every role that `targets` delegates: a valid and unique name, a threshold above 0, and
/// distinct keys.
fn check_delegations(targets: &Targets) -> Result<(), TrustError> {
    let file = "targets.json";
    let Some(block) = &targets.delegations else {
        return Ok(());
    };
    let mut names = std::collections::BTreeSet::new();
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
    if current.is_some_and(|current| new <= current) {
        return Err(TrustError::field(
            file,
            format!(
                "version {new} is not newer than {}; fetch the current version and sign again",
                current.unwrap_or(0)
            ),
        ));
    }
    Ok(())
}

fn check_fresh(file: &str, expires: Timestamp, now: Timestamp) -> Result<(), TrustError> {
    if expires <= now {
        return Err(TrustError::field(file, format!("it expired at {expires}")));
    }
    Ok(())
}

//! The server's side of the repository: which uploaded files are accepted, and what the online keys
//! state about them.

mod accept;
mod chain;

use std::collections::BTreeMap;

use sigstore_tuf::metadata::Targets;

use crate::role::ImagePath;
use crate::{
    FileFacts, ImageFacts, ProductRole, Quorum, RoleName, RootRole, TOP_ROLES, TopTargets,
    TrustError,
};

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

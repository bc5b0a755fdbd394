//! Verified metadata that a device trusts after a complete refresh.

use sigstore_tuf::metadata::{Metadata, Targets};
use sigstore_tuf::{Error, TrustedMetadataSet};
use tidegate_protocol::Timestamp;

use crate::{DIRECTOR, ProductRole, RoleName, TrustError, expiry_check, from_jiff, role, top};

/// Verified metadata that a device trusts after a complete refresh.
#[derive(Clone)]
pub struct Trusted {
    set: TrustedMetadataSet,
    role: ProductRole,
}

impl std::fmt::Debug for Trusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trusted({} v{})", self.role.name, self.role.version)
    }
}

impl Trusted {
    pub(crate) fn new(set: TrustedMetadataSet, name: &RoleName) -> Result<Self, TrustError> {
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

    /// Newest time that an offline key has vouched for: a floor for the device's clock. Never beyond
    /// the expiry of the root and the timestamp: a signer's clock that is years ahead must not make
    /// everything that can be signed look expired.
    pub fn time_floor(&self) -> Result<Timestamp, TrustError> {
        let targets = self.targets()?;
        let mut floor = role::issued("targets.json", &targets.extra)?.max(self.role.issued);
        if let Some(root) = top::root_issued(self.set.root()) {
            floor = floor.max(root);
        }
        floor = floor.min(from_jiff(self.set.root().expires));
        Ok(match self.set.timestamp() {
            Some(timestamp) => floor.min(from_jiff(timestamp.expires)),
            None => floor,
        })
    }

    fn targets(&self) -> Result<&Targets, TrustError> {
        self.set
            .targets_role("targets")
            .ok_or_else(|| TrustError::Missing("targets.json".into()))
    }

    /// 4. Checks the director's signatures on an assignment against the fresh offline targets.
    pub(crate) fn verify_director(
        &self,
        file: &str,
        document: &Metadata<Targets>,
    ) -> Result<(), TrustError> {
        let (keys, role) =
            crate::repository::delegation(self.targets()?, DIRECTOR).ok_or_else(|| {
                TrustError::field("targets.json", "it does not delegate the director role")
            })?;
        document
            .verify_threshold(keys, &role.role_keys(), DIRECTOR)
            .map_err(refuse(file))
    }

    /// Returns whether the role's delegation allows it to speak for a path.
    pub(crate) fn role_may_speak_for(&self, path: &str) -> Result<bool, TrustError> {
        let name = self.role.name.to_string();
        let (_, role) = crate::repository::delegation(self.targets()?, &name).ok_or_else(|| {
            TrustError::field("targets.json", format!("it does not delegate {name}"))
        })?;
        role.matches_path(path).map_err(refuse("targets.json"))
    }

    /// 5. Checks that everything the decision rests on is unexpired at `now`.
    pub fn check_expiry(&self, now: Timestamp) -> Result<(), TrustError> {
        self.check_fresh(now)?;
        self.check_lasting(now)
    }

    /// Checks the expiry of the files that attest that nothing newer was known: signed again every
    /// hour or week.
    pub(crate) fn check_fresh(&self, now: Timestamp) -> Result<(), TrustError> {
        let now = expiry_check(now);
        self.set
            .check_timestamp_expired(now)
            .map_err(refuse("timestamp.json"))?;
        self.set
            .check_snapshot_expired(now)
            .map_err(refuse("snapshot.json"))
    }

    /// Checks the expiry of the files that people have signed with offline keys.
    pub(crate) fn check_lasting(&self, now: Timestamp) -> Result<(), TrustError> {
        let now = expiry_check(now);
        self.set
            .check_root_expired(now)
            .map_err(refuse("root.json"))?;
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
        let role = crate::to_jiff(self.role.expires);
        if role < now {
            return Err(expired(&format!("{}.json", self.role.name), role));
        }
        Ok(())
    }
}

/// Names the file that the verification core refused.
pub(crate) fn refuse(file: &str) -> impl FnOnce(Error) -> TrustError {
    let file = file.to_owned();
    move |source| TrustError::Metadata { file, source }
}

//! The two top roles that people sign: `root`, which names the keys of the top roles, and
//! `targets`, which names those of everything else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sigstore_tuf::metadata::{Metadata, Root};
use tidegate_protocol::Timestamp;

use crate::quorum::{self, Holder, Quorum};
use crate::role::{extra, issued};
use crate::{RoleKey, RoleName, SPEC_VERSION, TrustError, from_jiff, provider, size_limit, strict};

/// Name of the delegated role that signs assignments.
pub const DIRECTOR: &str = "director";

/// The four top roles, in the order in which they vouch for each other.
pub const TOP_ROLES: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

type Names = BTreeMap<String, BTreeSet<String>>;

/// Delegation of one role by `targets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// The role's name.
    pub name: String,
    /// Quorum that signs it.
    pub quorum: Quorum,
    /// Paths that it may speak for.
    pub paths: Vec<String>,
}

impl Delegation {
    /// Creates the delegation of a product-channel role.
    pub fn product(role: &RoleName, quorum: Quorum) -> Self {
        Self {
            name: role.to_string(),
            quorum,
            paths: vec![role.paths()],
        }
    }

    /// Creates the delegation of assignments to a server.
    pub fn director(key: impl Into<RoleKey>) -> Self {
        Self {
            name: DIRECTOR.into(),
            quorum: Quorum::one(Holder::machine("server-director", key)),
            paths: vec!["director/*".into()],
        }
    }

    fn is_director(&self) -> bool {
        self.name == DIRECTOR
    }
}

/// The top-level `targets` role: delegations, no images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopTargets {
    /// Its version.
    pub version: u64,
    /// Time of signing.
    pub issued: Timestamp,
    /// Time of expiry.
    pub expires: Timestamp,
    /// Delegated roles, in order.
    pub delegations: Vec<Delegation>,
}

impl TopTargets {
    /// Reads the file that [`TopTargets::body`] makes. Keys of unknown kinds are refused here: an
    /// editor that drops them would lose them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TrustError> {
        let file = "targets.json";
        let signed = quorum::parse_targets(file, bytes)?.into_signed();
        let names: Names = extra(file, &signed.extra, "x-holders")?.unwrap_or_default();
        let mut delegations = Vec::new();
        if let Some(block) = &signed.delegations {
            for role in &block.roles {
                delegations.push(Delegation {
                    name: role.name.clone(),
                    quorum: Quorum::from_json(
                        file,
                        &role.keyids,
                        role.threshold,
                        &block.keys,
                        &names,
                    )?,
                    paths: role.paths.clone().unwrap_or_default(),
                });
            }
        }
        Ok(Self {
            version: signed.version,
            issued: issued(file, &signed.extra)?,
            expires: from_jiff(signed.expires),
            delegations,
        })
    }

    /// Returns the delegation of a role.
    pub fn delegation(&self, name: &str) -> Option<&Delegation> {
        self.delegations.iter().find(|d| d.name == name)
    }

    /// Returns the delegation of a role for changing.
    pub fn delegation_mut(&mut self, name: &str) -> Option<&mut Delegation> {
        self.delegations.iter_mut().find(|d| d.name == name)
    }

    /// Checks that it may be signed: each quorum can be met and is safe, and the director is
    /// present.
    pub fn check(&self) -> Result<(), TrustError> {
        for delegation in &self.delegations {
            delegation.quorum.check(&delegation.name)?;
        }
        if self.delegations.iter().any(Delegation::is_director) {
            Ok(())
        } else {
            Err(TrustError::field(
                "targets.json",
                "it does not delegate the director role",
            ))
        }
    }

    /// The body to sign.
    pub fn body(&self) -> Value {
        let (mut keys, mut names) = (Map::new(), Names::new());
        let roles: Vec<Value> = self
            .delegations
            .iter()
            .map(|d| {
                let mut role = d.quorum.to_json(&mut keys, &mut names);
                role.insert("name".into(), json!(d.name));
                role.insert("terminating".into(), json!(true));
                role.insert("paths".into(), json!(d.paths));
                Value::Object(role)
            })
            .collect();
        json!({
            "_type": "targets",
            "spec_version": SPEC_VERSION,
            "version": self.version,
            "expires": self.expires.to_string(),
            "targets": {},
            "delegations": { "keys": keys, "roles": roles },
            "x-issued": self.issued.to_string(),
            "x-holders": names,
        })
    }
}

/// The `root` role: the keys of the four top roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRole {
    /// Its version.
    pub version: u64,
    /// Time of signing.
    pub issued: Timestamp,
    /// Time of expiry.
    pub expires: Timestamp,
    /// Offline quorum that signs roots.
    pub root: Quorum,
    /// Offline quorum that signs `targets`.
    pub targets: Quorum,
    /// The server's key for `snapshot`.
    pub snapshot: Quorum,
    /// The server's key for `timestamp`.
    pub timestamp: Quorum,
}

impl RootRole {
    /// Returns the quorum of a top role.
    pub fn quorum(&self, role: &str) -> Option<&Quorum> {
        match role {
            "root" => Some(&self.root),
            "targets" => Some(&self.targets),
            "snapshot" => Some(&self.snapshot),
            "timestamp" => Some(&self.timestamp),
            _ => None,
        }
    }

    /// Returns the quorum of a top role for changing.
    pub fn quorum_mut(&mut self, role: &str) -> Option<&mut Quorum> {
        match role {
            "root" => Some(&mut self.root),
            "targets" => Some(&mut self.targets),
            "snapshot" => Some(&mut self.snapshot),
            "timestamp" => Some(&mut self.timestamp),
            _ => None,
        }
    }

    /// Reads the file that [`RootRole::body`] makes, without verifying signatures.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TrustError> {
        let file = "root.json";
        let root = parse(bytes)?.into_signed();
        let names: Names = extra(file, &root.extra, "x-holders")?.unwrap_or_default();
        let quorum = |role: &str| {
            let keys = root
                .role(role)
                .ok_or_else(|| TrustError::field(file, format!("it has no {role} role")))?;
            Quorum::from_json(file, &keys.keyids, keys.threshold, &root.keys, &names)
        };
        Ok(Self {
            version: root.version,
            issued: issued(file, &root.extra)?,
            expires: from_jiff(root.expires),
            root: quorum("root")?,
            targets: quorum("targets")?,
            snapshot: quorum("snapshot")?,
            timestamp: quorum("timestamp")?,
        })
    }

    /// Checks that it may be signed: each quorum can be met and is safe.
    pub fn check_quorums(&self) -> Result<(), TrustError> {
        for role in TOP_ROLES {
            if let Some(quorum) = self.quorum(role) {
                quorum.check(role)?;
            }
        }
        // A thief of the server must not find an offline key on it.
        for online in [&self.snapshot, &self.timestamp] {
            for key in online.keys() {
                if self
                    .root
                    .keys()
                    .chain(self.targets.keys())
                    .any(|k| k == key)
                {
                    return Err(TrustError::field(
                        "root.json",
                        "an online key of the server is also listed for an offline role",
                    ));
                }
            }
        }
        Ok(())
    }

    /// The body to sign.
    pub fn body(&self) -> Value {
        let (mut keys, mut names) = (Map::new(), Names::new());
        let mut roles = Map::new();
        for role in TOP_ROLES {
            if let Some(quorum) = self.quorum(role) {
                let quorum = quorum.to_json(&mut keys, &mut names);
                roles.insert(role.into(), Value::Object(quorum));
            }
        }
        json!({
            "_type": "root",
            "spec_version": SPEC_VERSION,
            "version": self.version,
            "expires": self.expires.to_string(),
            "consistent_snapshot": true,
            "keys": keys,
            "roles": roles,
            "x-issued": self.issued.to_string(),
            "x-holders": names,
        })
    }

    /// Checks that bytes are a root signed by its own keys.
    pub fn check(bytes: &[u8]) -> Result<(), TrustError> {
        let root = parse(bytes)?;
        let keys = root
            .signed()
            .role("root")
            .ok_or_else(|| TrustError::field("root.json", "it has no root role"))?;
        root.verify_threshold(&root.signed().keys, keys, "root")
            .map_err(refuse)?;
        if root.signed().version == 0 {
            return Err(TrustError::field("root.json", "versions count from 1"));
        }
        check_root_keys(root.signed())
    }
}

fn refuse(source: sigstore_tuf::Error) -> TrustError {
    TrustError::Metadata {
        file: "root.json".into(),
        source,
    }
}

fn parse(bytes: &[u8]) -> Result<Metadata<Root>, TrustError> {
    provider::install();
    if bytes.len() > size_limit::ROOT {
        return Err(TrustError::TooLarge {
            file: "root.json".into(),
            length: bytes.len(),
            limit: size_limit::ROOT,
        });
    }
    strict::check("root.json", bytes)?;
    Metadata::<Root>::from_slice(bytes).map_err(refuse)
}

/// Refuses a root in which a role lists one key under two ids.
pub(crate) fn check_root_keys(root: &Root) -> Result<(), TrustError> {
    for (role, keys) in &root.roles {
        quorum::check_distinct("root.json", role, &keys.keyids, &root.keys)?;
    }
    Ok(())
}

/// Time at which an offline key signed a root, if it states one.
pub(crate) fn root_issued(root: &Root) -> Option<Timestamp> {
    issued("root.json", &root.extra).ok()
}

//! Quorums: the holders who may sign a role, and how many of them must.
//!
//! TUF counts signatures, not people, and knows no "one of each kind". A person of the hybrid
//! profile signs with two keys, and the threshold is above the number of pairs: whoever breaks one
//! of the two algorithms makes at most one signature per pair, and still needs a person.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sigstore_tuf::metadata::{Metadata, Targets};

use crate::role_key::{KeyKind, RoleKey, RoleSigner};
use crate::{Signed, TrustError, provider, sign};

/// A person or a machine, with one key of each kind in its profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Name that people use: letters, digits, `.`, `_`, `@` and `-`, at most 64.
    pub name: String,
    /// Its keys, one of each kind.
    pub keys: Vec<RoleKey>,
}

impl Holder {
    /// Creates a holder after checking name and keys.
    pub fn new(name: &str, keys: Vec<RoleKey>) -> Result<Self, TrustError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || name.starts_with('.') {
            return Err(TrustError::field(
                "holder",
                format!(
                    "{name:?} is not a valid holder name: use 1 to 64 letters, digits, '.', '_', '@', '-'"
                ),
            ));
        }
        let kinds: BTreeSet<KeyKind> = keys.iter().map(RoleKey::kind).collect();
        if keys.is_empty() || kinds.len() != keys.len() {
            return Err(TrustError::field(
                "holder",
                format!("{name} must have at least one key, and at most one of each kind"),
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            keys,
        })
    }

    /// Creates a holder for a machine with a single key.
    pub fn machine(name: &str, key: impl Into<RoleKey>) -> Self {
        Self {
            name: name.to_owned(),
            keys: vec![key.into()],
        }
    }

    /// Returns whether it signs with both algorithms.
    pub fn is_hybrid(&self) -> bool {
        self.keys.len() > 1
    }

    /// Short form for people to read to one another: the first digits of its key ids.
    pub fn fingerprint(&self) -> String {
        let ids: Vec<String> = self
            .keys
            .iter()
            .map(|key| key.key_id()[..16].to_owned())
            .collect();
        ids.join("+")
    }

    /// Writes the file that a person hands on: name and public keys, signed by each of the keys, so
    /// that nobody can put a name to keys that are not theirs.
    pub fn to_file(&self, signers: &[&dyn RoleSigner]) -> Result<Vec<u8>, TrustError> {
        let body = json!({
            "_type": "holder",
            "name": self.name,
            "keys": self.keys.iter().map(RoleKey::to_tuf).collect::<Vec<_>>(),
        });
        Ok(sign(body, signers)?.to_bytes())
    }

    /// Reads such a file; every key must have signed it.
    pub fn from_file(bytes: &[u8]) -> Result<Self, TrustError> {
        let refuse = |what: String| TrustError::field("public key file", what);
        let signed = Signed::from_bytes("public key file", bytes)?;
        let body = signed.body();
        if body["_type"] != "holder" {
            return Err(refuse(
                "not a public key file; create one with `tidegate keys new`".into(),
            ));
        }
        let keys = body["keys"]
            .as_array()
            .into_iter()
            .flatten()
            .map(RoleKey::from_tuf)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| refuse(e.to_string()))?;
        let holder = Self::new(body["name"].as_str().unwrap_or_default(), keys)?;
        let signers = signed.valid_signers(&holder.keys)?;
        if let Some(key) = holder.keys.iter().find(|k| !signers.contains(&k.key_id())) {
            return Err(refuse(format!(
                "key {} of {} has not signed it: the file is damaged or forged",
                &key.key_id()[..16],
                holder.name
            )));
        }
        Ok(holder)
    }
}

/// Holders who may sign a role, and the number of signatures that it needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quorum {
    /// The holders, in the order they were added.
    pub holders: Vec<Holder>,
    /// Number of signatures needed, as metadata counts them.
    pub threshold: u32,
}

impl Quorum {
    /// Creates a quorum that needs `people` of these holders.
    pub fn of_people(holders: Vec<Holder>, people: u32) -> Self {
        let mut quorum = Self {
            holders,
            threshold: 0,
        };
        quorum.set_people(people);
        quorum
    }

    /// Creates a quorum of one holder.
    pub fn one(holder: Holder) -> Self {
        Self::of_people(vec![holder], 1)
    }

    /// Sets the number of people who must sign.
    pub fn set_people(&mut self, people: u32) {
        self.threshold = people.saturating_mul(self.kinds());
    }

    /// Minimum number of people who must sign.
    pub fn people(&self) -> u32 {
        self.threshold.div_ceil(self.kinds())
    }

    /// Number of kinds of keys that a holder signs with.
    fn kinds(&self) -> u32 {
        let most = self.holders.iter().map(|h| h.keys.len()).max().unwrap_or(1);
        u32::try_from(most).unwrap_or(1)
    }

    /// Every key.
    pub fn keys(&self) -> impl Iterator<Item = &RoleKey> {
        self.holders.iter().flat_map(|h| &h.keys)
    }

    /// Returns the holder with a name.
    pub fn holder(&self, name: &str) -> Option<&Holder> {
        self.holders.iter().find(|h| h.name == name)
    }

    /// Adds a holder; the number of people required stays the same. The same key under two names
    /// would let one person count as two, and is refused.
    pub fn add(&mut self, role: &str, holder: Holder) -> Result<(), TrustError> {
        if let Some(known) = self.holder(&holder.name) {
            return Err(TrustError::field(
                role,
                if *known == holder {
                    format!("{} is a holder already", holder.name)
                } else {
                    format!("{} is already a holder, with different keys", holder.name)
                },
            ));
        }
        for key in &holder.keys {
            if let Some(known) = self.holders.iter().find(|h| h.keys.contains(key)) {
                return Err(TrustError::field(
                    role,
                    format!(
                        "key {} of {} already belongs to {}: one person would count as two",
                        &key.key_id()[..16],
                        holder.name,
                        known.name
                    ),
                ));
            }
        }
        let people = self.people();
        self.holders.push(holder);
        self.set_people(people);
        Ok(())
    }

    /// Removes a holder; the number of people required stays the same.
    pub fn remove(&mut self, role: &str, name: &str) -> Result<(), TrustError> {
        let people = self.people();
        let before = self.holders.len();
        self.holders.retain(|h| h.name != name);
        if self.holders.len() == before {
            return Err(TrustError::field(role, format!("{name} is not a holder")));
        }
        self.set_people(people);
        Ok(())
    }

    /// Checks that the quorum may be signed: it can be met and, if it is hybrid, its threshold is
    /// above the number of pairs.
    pub fn check(&self, role: &str) -> Result<(), TrustError> {
        let refuse = |what: String| Err(TrustError::field(role, what));
        let have = u32::try_from(self.holders.len()).unwrap_or(u32::MAX);
        if self.threshold == 0 {
            return refuse("it requires no signature; set a threshold of at least 1".into());
        }
        if self.people() > have {
            return refuse(format!(
                "it requires {} people but has only {have}; add holders or lower the threshold",
                self.people()
            ));
        }
        let ids: BTreeSet<String> = self.keys().map(RoleKey::key_id).collect();
        if ids.len() != self.keys().count() {
            return refuse("one key is listed under two names".into());
        }
        let count = |kind: KeyKind| {
            let n = self.keys().filter(|key| key.kind() == kind).count();
            u32::try_from(n).unwrap_or(u32::MAX)
        };
        let (classic, post_quantum) = (count(KeyKind::Ed25519), count(KeyKind::MlDsa65));
        if post_quantum > 0 && self.threshold <= classic.max(post_quantum) {
            return refuse(format!(
                "{} of {have} people: whoever breaks one of the two algorithms could sign alone; \
                 ask for {} people, or give it fewer holders",
                self.people(),
                have / 2 + 1
            ));
        }
        Ok(())
    }

    /// Returns the `keyids` and `threshold` of metadata; adds keys and holders' names to the maps.
    pub(crate) fn to_json(
        &self,
        keys: &mut Map<String, Value>,
        names: &mut BTreeMap<String, BTreeSet<String>>,
    ) -> Map<String, Value> {
        let mut ids = Vec::new();
        for holder in &self.holders {
            for key in &holder.keys {
                let id = key.key_id();
                keys.insert(id.clone(), key.to_tuf());
                names
                    .entry(holder.name.clone())
                    .or_default()
                    .insert(id.clone());
                ids.push(id);
            }
        }
        Map::from_iter([
            ("keyids".to_owned(), json!(ids)),
            ("threshold".to_owned(), json!(self.threshold)),
        ])
    }

    /// Reads what [`Quorum::to_json`] wrote. A key of an unknown kind is refused: an editor that
    /// dropped it would lose it.
    pub(crate) fn from_json(
        file: &str,
        ids: &[String],
        threshold: usize,
        keys: &BTreeMap<String, sigstore_tuf::Key>,
        names: &BTreeMap<String, BTreeSet<String>>,
    ) -> Result<Self, TrustError> {
        let mut holders: Vec<Holder> = Vec::new();
        for id in ids {
            let key = keys
                .get(id)
                .ok_or_else(|| TrustError::field(file, format!("key {id} is not listed")))?;
            let key = serde_json::to_value(key)
                .map_err(|e| TrustError::field(file, e.to_string()))
                .and_then(|key| {
                    RoleKey::from_tuf(&key).map_err(|e| TrustError::field(file, e.to_string()))
                })?;
            let name = names
                .iter()
                .find(|(_, ids)| ids.contains(id))
                .map_or_else(|| id.chars().take(16).collect(), |(name, _)| name.clone());
            match holders.iter_mut().find(|h| h.name == name) {
                Some(holder) => holder.keys.push(key),
                None => holders.push(Holder {
                    name,
                    keys: vec![key],
                }),
            }
        }
        Ok(Self {
            holders,
            threshold: u32::try_from(threshold).unwrap_or(u32::MAX),
        })
    }
}

/// Refuses one key under two ids: the verification core counts key ids, so the key would count
/// twice. Checked for every role that a root or a delegation names, before it is believed.
pub(crate) fn check_distinct(
    file: &str,
    role: &str,
    ids: &[String],
    keys: &BTreeMap<String, sigstore_tuf::Key>,
) -> Result<(), TrustError> {
    let mut seen = BTreeSet::new();
    let distinct_ids: BTreeSet<&String> = ids.iter().collect();
    for key in distinct_ids.into_iter().filter_map(|id| keys.get(id)) {
        // Compares the bytes of the key, not their spelling.
        let material = key.verification_key().map_or_else(
            |_| key.keyval.public.trim().as_bytes().to_vec(),
            |key| key.as_bytes().to_vec(),
        );
        if !seen.insert(material) {
            return Err(TrustError::field(
                file,
                format!("the role {role} lists one key under two ids"),
            ));
        }
    }
    Ok(())
}

/// Digest of who may sign a role, to detect a change of its keys.
pub(crate) fn digest(
    ids: &[String],
    threshold: usize,
    keys: &BTreeMap<String, sigstore_tuf::Key>,
) -> tidegate_protocol::Sha256 {
    let publics: BTreeMap<&String, Option<&str>> = ids
        .iter()
        .map(|id| (id, keys.get(id).map(|k| k.keyval.public.trim())))
        .collect();
    let text = json!([publics, threshold]).to_string();
    crate::FileFacts::of(0, text.as_bytes()).sha256
}

/// Returns the names of the holders who have signed a draft so far, with all of their keys.
pub fn signed_by(file: &str, bytes: &[u8], quorum: &Quorum) -> Result<Vec<String>, TrustError> {
    provider::install();
    let signed = Signed::from_bytes(file, bytes)?;
    let keys: Vec<RoleKey> = quorum.keys().cloned().collect();
    let signers = signed.valid_signers(&keys)?;
    Ok(quorum
        .holders
        .iter()
        .filter(|h| h.keys.iter().all(|k| signers.contains(&k.key_id())))
        .map(|h| h.name.clone())
        .collect())
}

/// Reads a delegated role's own file without judging its signatures.
pub(crate) fn parse_targets(file: &str, bytes: &[u8]) -> Result<Metadata<Targets>, TrustError> {
    crate::strict::check(file, bytes)?;
    Metadata::<Targets>::from_slice(bytes).map_err(|source| TrustError::Metadata {
        file: file.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MlDsaSecret, SecretKey};

    fn secrets(n: u8) -> (SecretKey, MlDsaSecret) {
        (
            SecretKey::from_seed([n; 32]),
            MlDsaSecret::from_seed([n; 32]),
        )
    }

    fn person(n: u8) -> Holder {
        let (a, b) = secrets(n);
        Holder::new(&format!("person-{n}"), vec![a.role_key(), b.role_key()]).unwrap()
    }

    #[test]
    fn two_of_three_people_are_four_of_six_signatures() {
        let quorum = Quorum::of_people((1..=3).map(person).collect(), 2);
        assert_eq!((quorum.threshold, quorum.people()), (4, 2));
        quorum.check("root").unwrap();
    }

    #[test]
    fn a_hybrid_threshold_must_exceed_the_number_of_pairs() {
        for (people, needed, good) in [
            (1, 1, true),
            (2, 1, false),
            (2, 2, true),
            (4, 2, false),
            (4, 3, true),
        ] {
            let quorum = Quorum::of_people((1..=people).map(person).collect(), needed);
            assert_eq!(
                quorum.check("root").is_ok(),
                good,
                "{needed} of {people} people"
            );
        }
    }

    #[test]
    fn a_quorum_that_cannot_be_met_or_asks_for_nothing_is_refused() {
        assert!(Quorum::of_people(vec![person(1)], 0).check("root").is_err());
        assert!(Quorum::of_people(vec![person(1)], 2).check("root").is_err());
        assert!(Quorum::of_people(vec![], 1).check("root").is_err());
    }

    #[test]
    fn one_key_under_two_names_is_refused() {
        let mut quorum = Quorum::one(person(1));
        let mut twin = person(1);
        twin.name = "somebody-else".into();
        let error = quorum.add("root", twin).unwrap_err().to_string();
        assert!(error.contains("already belongs to person-1"), "{error}");
        // Half of a pair is enough.
        let half = Holder::machine("half", secrets(1).0.role_key());
        assert!(quorum.add("root", half).is_err());
        quorum.add("root", person(2)).unwrap();
    }

    #[test]
    fn a_public_key_file_must_be_signed_by_each_of_its_keys() {
        let (a, b) = secrets(1);
        let file = person(1).to_file(&[&a, &b]).unwrap();
        assert_eq!(Holder::from_file(&file).unwrap(), person(1));
        let half = person(1).to_file(&[&a]).unwrap();
        assert!(Holder::from_file(&half).is_err());
        let text = String::from_utf8(file).unwrap();
        let renamed = text.replace("person-1", "person-2");
        assert!(Holder::from_file(renamed.as_bytes()).is_err());
    }
}

//! Signed documents: canonical JSON, a list of signatures, and the merging of several people's
//! signatures into one file.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{RoleKey, RoleSigner, TrustError, canonical, size_limit, strict};

/// One signature of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

/// A document with its signatures, ready to be written. Some signatures may still be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    signatures: Vec<Signature>,
    signed: Value,
}

impl Signed {
    /// Creates a document that nobody has signed yet.
    pub fn unsigned(body: Value) -> Self {
        Self {
            signatures: Vec::new(),
            signed: body,
        }
    }

    /// Reads a document without verifying its signatures.
    pub fn from_bytes(file: &str, bytes: &[u8]) -> Result<Self, TrustError> {
        if bytes.len() > size_limit::ROLE {
            return Err(TrustError::TooLarge {
                file: file.into(),
                length: bytes.len(),
                limit: size_limit::ROLE,
            });
        }
        strict::check(file, bytes)?;
        serde_json::from_slice(bytes).map_err(|e| TrustError::field(file, e.to_string()))
    }

    /// The bytes to publish.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Texts and a value that was read or built: this cannot fail, unlike a general serializer.
        let signatures: Vec<Value> = self
            .signatures
            .iter()
            .map(|s| json!({ "keyid": s.keyid, "sig": s.sig }))
            .collect();
        json!({ "signatures": signatures, "signed": self.signed })
            .to_string()
            .into_bytes()
    }

    /// The part that the signatures cover.
    pub fn body(&self) -> &Value {
        &self.signed
    }

    fn canonical(&self) -> Result<Vec<u8>, TrustError> {
        canonical::to_bytes("document", &self.signed)
    }

    /// Adds a signature, or replaces the one that the key made before.
    pub fn add_signature(&mut self, signer: &dyn RoleSigner) -> Result<(), TrustError> {
        let keyid = signer.role_key().key_id();
        let sig = signer
            .sign_role(&self.canonical()?)
            .map_err(|e| TrustError::field("document", e.to_string()))?;
        self.signatures.retain(|s| s.keyid != keyid);
        self.signatures.push(Signature {
            keyid,
            sig: hex::encode(sig),
        });
        Ok(())
    }

    /// Adds the signatures that others have made on their copies of the same document. Only valid
    /// signatures by these keys are added. Returns how many were new.
    pub fn merge(&mut self, other: &Self, keys: &[RoleKey]) -> Result<usize, TrustError> {
        if self.signed != other.signed {
            return Err(TrustError::field(
                "document",
                "the two files have different contents: signatures on one are not valid for the other",
            ));
        }
        let good = other.valid_signers(keys)?;
        let known: BTreeSet<String> = self.signatures.iter().map(|s| s.keyid.clone()).collect();
        let new: Vec<Signature> = other
            .signatures
            .iter()
            .filter(|s| good.contains(&s.keyid) && !known.contains(&s.keyid))
            .cloned()
            .collect();
        let count = new.len();
        self.signatures.extend(new);
        Ok(count)
    }

    /// Returns the ids of the given keys whose signature is present and valid.
    pub fn valid_signers(&self, keys: &[RoleKey]) -> Result<BTreeSet<String>, TrustError> {
        let canonical = self.canonical()?;
        Ok(keys
            .iter()
            .filter(|key| {
                let id = key.key_id();
                self.signatures
                    .iter()
                    .filter(|s| s.keyid == id)
                    .filter_map(|s| hex::decode(&s.sig).ok())
                    .any(|sig| key.verify(&canonical, &sig).is_ok())
            })
            .map(RoleKey::key_id)
            .collect())
    }
}

/// Signs a body with each of the keys, over its canonical form.
pub fn sign(body: Value, signers: &[&dyn RoleSigner]) -> Result<Signed, TrustError> {
    let mut signed = Signed::unsigned(body);
    for signer in signers {
        signed.add_signature(*signer)?;
    }
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretKey;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed([n; 32])
    }

    #[test]
    fn signatures_made_apart_come_together_once_each() {
        let body = json!({ "a": 1 });
        let keys = [key(1).role_key(), key(2).role_key()];
        let mut ours = sign(body.clone(), &[&key(1)]).unwrap();
        let theirs = sign(body, &[&key(1), &key(2), &key(3)]).unwrap();
        assert_eq!(ours.merge(&theirs, &keys).unwrap(), 1);
        assert_eq!(ours.merge(&theirs, &keys).unwrap(), 0);
        assert_eq!(ours.valid_signers(&keys).unwrap().len(), 2);
        // A stranger's signature is not carried along.
        assert_eq!(ours.signatures.len(), 2);
    }

    #[test]
    fn signatures_of_another_document_or_broken_ones_are_not_taken() {
        let keys = [key(1).role_key(), key(2).role_key()];
        let mut ours = sign(json!({ "a": 1 }), &[&key(1)]).unwrap();
        let other = sign(json!({ "a": 2 }), &[&key(2)]).unwrap();
        assert!(ours.merge(&other, &keys).is_err());
        let mut broken = sign(json!({ "a": 1 }), &[&key(2)]).unwrap();
        broken.signatures[0].sig = "00".repeat(64);
        assert_eq!(ours.merge(&broken, &keys).unwrap(), 0);
    }
}

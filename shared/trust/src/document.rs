//! Signed documents: canonical JSON, a list of signatures.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{SecretKey, TrustError};

/// One signature of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

/// A document with its signatures, ready to be written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signed {
    signatures: Vec<Signature>,
    signed: Value,
}

impl Signed {
    /// The bytes to publish.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What the signatures cover.
    pub fn body(&self) -> &Value {
        &self.signed
    }
}

/// Signs a body with each of the keys, over its canonical form.
pub fn sign(body: Value, keys: &[&SecretKey]) -> Result<Signed, TrustError> {
    let canonical = sigstore_tuf::canonical_json::to_canonical_bytes(&body).map_err(|source| {
        TrustError::Metadata {
            file: "document".into(),
            source,
        }
    })?;
    let signatures = keys
        .iter()
        .map(|key| Signature {
            keyid: key.public().key_id(),
            sig: hex::encode(key.sign(&canonical)),
        })
        .collect();
    Ok(Signed {
        signatures,
        signed: body,
    })
}

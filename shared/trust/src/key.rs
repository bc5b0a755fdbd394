//! Ed25519 keys and their forms.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde_json::{Value, json};
use tidegate_protocol::Sha256;

/// Reason a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a private key in PKCS#8 PEM.
    #[error("not an Ed25519 private key in PKCS#8 PEM: {0}")]
    Pem(String),
    /// Not a public key.
    #[error(
        "not an Ed25519 public key: expected 64 hexadecimal digits that encode a point of full order"
    )]
    Public,
    /// Not an ML-DSA-65 public key.
    #[error("not an ML-DSA-65 public key in PEM (RFC 9881)")]
    MlDsaPublic,
    /// A kind of key that this version does not know.
    #[error("this version does not support keys of kind {0}")]
    Kind(String),
    /// Signing failed in the place where the key is kept.
    #[error("signing with the stored key failed: {0}")]
    Keeper(String),
    /// The signature does not match.
    #[error("the signature does not match")]
    Signature,
}

/// A private key. Its `Debug` form shows only the key id.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Creates a key from 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// Reads PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        SigningKey::from_pkcs8_pem(pem)
            .map(Self)
            .map_err(|e| KeyError::Pem(e.to_string()))
    }

    /// Writes PKCS#8 PEM.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0
            .to_pkcs8_pem(LineEnding::LF)
            .map(|pem| pem.to_string())
            .map_err(|e| KeyError::Pem(e.to_string()))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().key_id())
    }
}

/// Id of a key: SHA-256 of its canonical form, written here because a general serializer may fail
/// and every key would then have the id of nothing. None of the texts may need an escape.
pub(crate) fn key_id(keytype: &str, scheme: &str, public: &str) -> String {
    let canonical = format!(
        r#"{{"keytype":"{keytype}","keyval":{{"public":"{public}"}},"scheme":"{scheme}"}}"#
    );
    hex::encode(<sha2::Sha256 as sha2::Digest>::digest(canonical))
}

/// A public key, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Returns the form in which TUF metadata lists it.
    pub fn to_tuf(&self) -> Value {
        json!({
            "keytype": "ed25519",
            "scheme": "ed25519",
            "keyval": { "public": self.to_string() },
        })
    }

    /// The TUF key id: SHA-256 of the canonical form of [`PublicKey::to_tuf`].
    pub fn key_id(&self) -> String {
        key_id("ed25519", "ed25519", &self.to_string())
    }

    /// Fingerprint for people and pre-authorised keys: SHA-256 of its 32 bytes.
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::from_bytes(<sha2::Sha256 as sha2::Digest>::digest(self.0.as_bytes()).into())
    }

    /// Checks a signature with the strict rules: no small-order points, one encoding only.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let signature =
            ed25519_dalek::Signature::from_slice(signature).map_err(|_| KeyError::Signature)?;
        self.0
            .verify_strict(message, &signature)
            .map_err(|_| KeyError::Signature)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| KeyError::Public)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Public)?;
        if key.is_weak() {
            Err(KeyError::Public)
        } else {
            Ok(Self(key))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_pem() {
        let key = SecretKey::from_seed([7; 32]);
        let read = SecretKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(read.public(), key.public());
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let key = SecretKey::from_seed([7; 32]);
        assert!(!format!("{key:?}").contains(&hex::encode([7; 32])));
    }

    #[test]
    fn a_point_of_small_order_is_no_key() {
        let identity = format!("01{}", "00".repeat(31));
        assert_eq!(identity.parse::<PublicKey>(), Err(KeyError::Public));
    }

    #[test]
    fn a_signature_over_other_bytes_does_not_match() {
        let key = SecretKey::from_seed([7; 32]);
        let signature = key.sign(b"a");
        assert_eq!(key.public().verify(b"a", &signature), Ok(()));
        assert_eq!(
            key.public().verify(b"b", &signature),
            Err(KeyError::Signature)
        );
    }
}

//! Keys of signed roles: two kinds today, and room for more.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use crate::ml_dsa::{MlDsaPublic, MlDsaSecret};
use crate::{KeyError, PublicKey, SecretKey, key};

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ML-DSA-65 (FIPS 204), as in TAP 21.
    MlDsa65,
}

/// A public key that may sign a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleKey {
    /// Ed25519.
    Ed25519(PublicKey),
    /// ML-DSA-65.
    MlDsa65(MlDsaPublic),
}

impl From<PublicKey> for RoleKey {
    fn from(key: PublicKey) -> Self {
        Self::Ed25519(key)
    }
}

impl RoleKey {
    /// Its kind.
    pub fn kind(&self) -> KeyKind {
        match self {
            Self::Ed25519(_) => KeyKind::Ed25519,
            Self::MlDsa65(_) => KeyKind::MlDsa65,
        }
    }

    /// Returns the form in which metadata lists it.
    pub fn to_tuf(&self) -> Value {
        match self {
            Self::Ed25519(key) => key.to_tuf(),
            Self::MlDsa65(key) => json!({
                "keytype": "ml-dsa",
                "scheme": "ml-dsa-65/1",
                "keyval": { "public": key.to_pem() },
            }),
        }
    }

    /// Reads the form in which metadata lists it.
    pub fn from_tuf(key: &Value) -> Result<Self, KeyError> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (Some(scheme), Some(public)) = (text(&key["scheme"]), text(&key["keyval"]["public"]))
        else {
            return Err(KeyError::Kind("without scheme or value".into()));
        };
        match scheme.as_str() {
            "ed25519" => Ok(Self::Ed25519(public.parse()?)),
            "ml-dsa-65/1" => Ok(Self::MlDsa65(MlDsaPublic::from_pem(&public)?)),
            other => Err(KeyError::Kind(other.chars().take(40).collect())),
        }
    }

    /// The key id: SHA-256 of the canonical form of [`RoleKey::to_tuf`].
    pub fn key_id(&self) -> String {
        match self {
            Self::Ed25519(key) => key.key_id(),
            Self::MlDsa65(key) => key::key_id("ml-dsa", "ml-dsa-65/1", &key.to_pem()),
        }
    }

    /// Checks a signature over the canonical form of a document.
    pub fn verify(&self, canonical: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        match self {
            Self::Ed25519(key) => key.verify(canonical, signature),
            Self::MlDsa65(key) => key.verify(&tap21(canonical), signature),
        }
    }
}

/// Message that ML-DSA signs in place of the canonical form.
fn tap21(canonical: &[u8]) -> Vec<u8> {
    let mut message = b"tuf\x01".to_vec();
    message.extend_from_slice(&Sha512::digest(canonical));
    message
}

/// Signer of roles: a key in memory, or one in a token.
pub trait RoleSigner {
    /// The public half.
    fn role_key(&self) -> RoleKey;

    /// Signs the canonical form of a document.
    fn sign_role(&self, canonical: &[u8]) -> Result<Vec<u8>, KeyError>;
}

impl RoleSigner for SecretKey {
    fn role_key(&self) -> RoleKey {
        self.public().into()
    }

    fn sign_role(&self, canonical: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(self.sign(canonical).to_vec())
    }
}

impl RoleSigner for MlDsaSecret {
    fn role_key(&self) -> RoleKey {
        RoleKey::MlDsa65(self.public())
    }

    fn sign_role(&self, canonical: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sign(&tap21(canonical))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ml_dsa_key_survives_pem_and_metadata() {
        let secret = MlDsaSecret::from_seed([7; 32]);
        let read = MlDsaSecret::from_pem(&secret.to_pem().unwrap()).unwrap();
        assert_eq!(read.public(), secret.public());
        let key = secret.role_key();
        assert_eq!(RoleKey::from_tuf(&key.to_tuf()), Ok(key));
        assert!(!format!("{secret:?}").contains("07"));
    }

    #[test]
    fn an_ml_dsa_signature_covers_every_byte_and_has_one_length() {
        let secret = MlDsaSecret::from_seed([7; 32]);
        let key = secret.role_key();
        let mut signature = secret.sign_role(b"a").unwrap();
        assert_eq!(signature.len(), 3_309);
        assert_eq!(key.verify(b"a", &signature), Ok(()));
        assert_eq!(key.verify(b"b", &signature), Err(KeyError::Signature));
        assert_eq!(key.verify(b"a", &signature[1..]), Err(KeyError::Signature));
        signature[100] ^= 1;
        assert_eq!(key.verify(b"a", &signature), Err(KeyError::Signature));
    }

    #[test]
    fn the_id_of_each_kind_is_the_digest_of_its_canonical_form() {
        let keys = [
            SecretKey::from_seed([7; 32]).role_key(),
            MlDsaSecret::from_seed([7; 32]).role_key(),
        ];
        for key in keys {
            let canonical = crate::canonical::to_bytes("key", &key.to_tuf()).unwrap();
            let digest = <sha2::Sha256 as sha2::Digest>::digest(canonical);
            assert_eq!(key.key_id(), hex::encode(digest));
        }
    }

    #[test]
    fn a_key_of_an_unknown_kind_is_named() {
        let key = json!({ "keytype": "x", "scheme": "x/1", "keyval": { "public": "" } });
        assert_eq!(RoleKey::from_tuf(&key), Err(KeyError::Kind("x/1".into())));
    }
}

//! ML-DSA-65 (FIPS 204) beside Ed25519: a forger has to break both.
//!
//! Signatures follow TAP 21: the signed bytes are `"tuf"`, `0x01` and the SHA-512 of the canonical
//! form; pure ML-DSA with an empty context. Public keys are PEM SPKI (RFC 9881).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _};
use ml_dsa::{EncodedSignature, EncodedVerifyingKey, MlDsa65, Signature, SigningKey, VerifyingKey};

use crate::KeyError;

/// DER before the encoded form of a public key: a sequence of the algorithm (OID
/// 2.16.840.1.101.3.4.3.18, RFC 9881) and a bit string of 1,952 bytes.
const SPKI: [u8; 22] = [
    0x30, 0x82, 0x07, 0xb2, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03,
    0x12, 0x03, 0x82, 0x07, 0xa1, 0x00,
];
/// Characters in a line of PEM.
const PEM_WIDTH: usize = 64;

/// A public key in its encoded form, 1,952 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct MlDsaPublic(Box<EncodedVerifyingKey<MlDsa65>>);

impl MlDsaPublic {
    /// Reads PEM SPKI.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        VerifyingKey::<MlDsa65>::from_public_key_pem(pem.trim())
            .map(|key| Self(Box::new(key.encode())))
            .map_err(|_| KeyError::MlDsaPublic)
    }

    /// Reads the encoded form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        EncodedVerifyingKey::<MlDsa65>::try_from(bytes)
            .map(|key| Self(Box::new(key)))
            .map_err(|_| KeyError::MlDsaPublic)
    }

    /// Writes PEM SPKI, as metadata lists it.
    pub fn to_pem(&self) -> String {
        let text = BASE64.encode([&SPKI[..], &self.0].concat());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        // The base64 alphabet is ASCII: every index is the end of a character.
        for line in (0..text.len()).step_by(PEM_WIDTH) {
            pem.push_str(&text[line..text.len().min(line + PEM_WIDTH)]);
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        pem
    }

    /// Checks a signature over bytes that already have their prefix.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let signature = EncodedSignature::<MlDsa65>::try_from(signature)
            .ok()
            .and_then(|encoded| Signature::<MlDsa65>::decode(&encoded))
            .ok_or(KeyError::Signature)?;
        let key = VerifyingKey::<MlDsa65>::decode(&self.0);
        if key.verify_with_context(message, &[], &signature) {
            Ok(())
        } else {
            Err(KeyError::Signature)
        }
    }
}

impl fmt::Debug for MlDsaPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MlDsaPublic({}…)", hex::encode(&self.0[..8]))
    }
}

/// A private key. Its `Debug` form reveals nothing.
#[derive(Clone)]
pub struct MlDsaSecret(Box<SigningKey<MlDsa65>>);

impl MlDsaSecret {
    /// Creates a key from 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Box::new(SigningKey::from_seed(&seed.into())))
    }

    /// Reads PKCS#8 PEM that holds the seed (RFC 9881).
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        SigningKey::<MlDsa65>::from_pkcs8_pem(pem)
            .map(|key| Self(Box::new(key)))
            .map_err(|e| KeyError::Pem(e.to_string()))
    }

    /// Writes PKCS#8 PEM with the seed alone.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0
            .to_pkcs8_pem(LineEnding::LF)
            .map(|pem| pem.to_string())
            .map_err(|e| KeyError::Pem(e.to_string()))
    }

    /// The public half.
    pub fn public(&self) -> MlDsaPublic {
        let key = self.0.expanded_key().verifying_key();
        MlDsaPublic(Box::new(key.encode()))
    }

    /// Signs bytes that already have their prefix. Deterministic, so that a machine with poor
    /// randomness signs as safely.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.0
            .expanded_key()
            .sign_deterministic(message, &[])
            .map(|signature| signature.encode().to_vec())
            .map_err(|_| KeyError::Signature)
    }
}

impl fmt::Debug for MlDsaSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MlDsaSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::pkcs8::EncodePublicKey as _;

    #[test]
    fn a_public_key_is_written_as_the_library_writes_it() {
        let public = MlDsaSecret::from_seed([7; 32]).public();
        let theirs = VerifyingKey::<MlDsa65>::decode(&public.0)
            .to_public_key_pem(LineEnding::LF)
            .unwrap();
        assert_eq!(public.to_pem(), theirs);
    }
}

//! The cryptography behind the verification core: ed25519-dalek's strict verification, ml-dsa and
//! sha2.
//!
//! Unknown keys and schemes are refused one by one; the core then goes on to the next signature, so
//! that metadata may carry keys of a later kind.

use sha2::Digest;
use sigstore_crypto::{CryptoProvider, Error, HashContext, SigningScheme};

#[derive(Debug)]
struct Provider;

struct Context<D>(D);

impl<D: Digest + Send> HashContext for Context<D> {
    fn update(&mut self, data: &[u8]) {
        Digest::update(&mut self.0, data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

impl CryptoProvider for Provider {
    fn hash(
        &self,
        algorithm: sigstore_types::HashAlgorithm,
    ) -> sigstore_crypto::Result<Box<dyn HashContext>> {
        use sigstore_types::HashAlgorithm as A;
        Ok(match algorithm {
            A::Sha2256 => Box::new(Context(sha2::Sha256::new())),
            A::Sha2384 => Box::new(Context(sha2::Sha384::new())),
            A::Sha2512 => Box::new(Context(sha2::Sha512::new())),
            other => return Err(Error::UnsupportedAlgorithm(format!("{other:?}"))),
        })
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        spki_pubkey_bytes: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> sigstore_crypto::Result<()> {
        let verified = match scheme {
            SigningScheme::Ed25519 => hex::encode(spki_pubkey_bytes)
                .parse::<crate::PublicKey>()
                .and_then(|key| key.verify(data, signature)),
            // The core has put TAP 21's prefix before the data.
            SigningScheme::MlDsa65 => crate::ml_dsa::MlDsaPublic::from_bytes(spki_pubkey_bytes)
                .and_then(|key| key.verify(data, signature)),
            _ => return Err(Error::UnsupportedAlgorithm(format!("{scheme:?}"))),
        };
        verified.map_err(|e| Error::Verification(e.to_string()))
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        _: &[u8],
        _: &[u8],
        _: &[u8],
    ) -> sigstore_crypto::Result<()> {
        Err(Error::UnsupportedAlgorithm(format!(
            "{scheme:?} over a digest"
        )))
    }
}

/// Installs this provider in the core. Idempotent.
pub(crate) fn install() {
    // An error means that this provider, or one that the embedding program chose, is installed
    // already.
    let _ = sigstore_crypto::install_default_provider(&Provider);
}

//! TLS towards the server, on machines whose clock may be wrong.
//!
//! A certificate is checked at the machine's time if that is plausible: not before the newest time
//! that an offline key has vouched for, and not two years after it, when everything that was signed
//! would have expired. Otherwise it is checked at a time within its own validity. TLS protects
//! privacy here; whatever the device does is authenticated by signatures of its own.

use std::io::BufReader;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, KeyProvider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tidegate_protocol::Timestamp;
use tokio_rustls::TlsConnector;

use super::error::TransportError;

/// Knowledge of the time when a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsClock {
    /// The newest time that an offline key has vouched for; the epoch when there is none.
    pub floor: Timestamp,
    /// Whether the owner vouches for the machine's clock.
    pub trusted: bool,
}

impl TlsClock {
    /// Longest time after the floor for which a clock is believed: the lifetime of a root, after
    /// which nothing that was signed before is valid any more.
    const AHEAD: Duration = tidegate_trust::lifetime::ROOT;

    fn believes(self, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let floor = self.floor.as_secs();
        self.trusted
            || floor == 0
            || (now >= floor && now <= self.floor.plus(Self::AHEAD).as_secs())
    }
}

/// Verifies certificates as the public authorities, or the given one, require, at a plausible time.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    clock: TlsClock,
    /// Destination for the certificate that was shown, valid or not: for a diagnosis.
    seen: Option<Seen>,
}

/// Certificate that a server has shown.
pub(crate) type Seen = Arc<Mutex<Option<Vec<u8>>>>;

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(seen) = &self.seen {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.to_vec());
        }
        let mut at = now;
        // One certificate of the chain after the other may be outside of its validity.
        for _ in 0..8 {
            let result = self.inner.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                at,
            );
            at = match &result {
                Err(rustls::Error::InvalidCertificate(_)) if self.clock.believes(now) => {
                    return result;
                }
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
                    not_before,
                    ..
                })) => *not_before,
                Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                    not_after,
                    ..
                })) => *not_after,
                _ => return result,
            };
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::Expired))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Returns the crypto provider: ring is the smallest; the other one adds post-quantum key exchange.
fn provider() -> CryptoProvider {
    #[cfg(feature = "post-quantum")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "post-quantum"))]
    let provider = rustls::crypto::ring::default_provider();
    CryptoProvider {
        key_provider: &NoKeys,
        ..provider
    }
}

/// The agent shows no certificate of its own: without this, what signs with one is 20 KB of it.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General("no certificate is shown".into()))
    }
}

/// Adds the certificate authorities of a Linux system.
#[cfg(not(any(feature = "public-roots", windows, target_os = "macos")))]
fn add_system(roots: &mut RootCertStore) -> Result<(), TransportError> {
    add_file(roots, Path::new("/etc/ssl/certs/ca-certificates.crt"))
}

/// Adds the certificate authorities of the system's store, beside those that are built in.
#[cfg(any(windows, target_os = "macos"))]
fn add_system(roots: &mut RootCertStore) -> Result<(), TransportError> {
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = match found.errors.first() {
            Some(error) => crate::log::chain(error),
            None => "it is empty".into(),
        };
        return Err(TransportError::Authority("the system's store".into(), why));
    }
    Ok(())
}

/// Checks that a file of certificates can be read and holds at least one.
pub(crate) fn check_authority(path: &Path) -> Result<(), TransportError> {
    let mut roots = RootCertStore::empty();
    add_file(&mut roots, path)?;
    if roots.is_empty() {
        let what = "it holds no certificate in PEM".into();
        return Err(TransportError::Authority(path.display().to_string(), what));
    }
    Ok(())
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TransportError> {
    use rustls::pki_types::pem::PemObject as _;
    let refuse = |e: String| TransportError::Authority(path.display().to_string(), e);
    let file = std::fs::File::open(path).map_err(|e| refuse(e.to_string()))?;
    for certificate in CertificateDer::pem_reader_iter(BufReader::new(file)) {
        let certificate = certificate.map_err(|e| refuse(e.to_string()))?;
        roots.add(certificate).map_err(|e| refuse(e.to_string()))?;
    }
    Ok(())
}

/// TLS versions and key exchange groups that are offered to servers.
pub(crate) fn offered() -> String {
    let groups: Vec<String> = provider()
        .kx_groups
        .iter()
        .map(|group| format!("{:?}", group.name()))
        .collect();
    let versions = if cfg!(feature = "tls12") {
        "TLS 1.2, 1.3"
    } else {
        "TLS 1.3"
    };
    format!("{versions}; {}", groups.join(", "))
}

/// Returns a connector; `ca_file` replaces the public certificate authorities.
pub(crate) fn connector(
    ca_file: Option<&Path>,
    clock: TlsClock,
) -> Result<TlsConnector, TransportError> {
    observed(ca_file, clock, None)
}

/// Returns a connector that stores the certificate it is shown in `seen`.
pub(crate) fn observed(
    ca_file: Option<&Path>,
    clock: TlsClock,
    seen: Option<Seen>,
) -> Result<TlsConnector, TransportError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        add_file(&mut roots, path)?;
    } else {
        #[cfg(feature = "public-roots")]
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        #[cfg(any(not(feature = "public-roots"), windows, target_os = "macos"))]
        add_system(&mut roots)?;
    }
    let failed = |e: &dyn std::fmt::Display| TransportError::Authority("TLS".into(), e.to_string());
    let provider = Arc::new(provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| failed(&e))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { inner, clock, seen }))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_believed_near_the_floor_or_on_the_owners_word() {
        let floor = Timestamp::from_secs(1_800_000_000);
        let at = |secs: u64| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        let clock = TlsClock {
            floor,
            trusted: false,
        };
        assert!(!clock.believes(at(0)));
        assert!(clock.believes(at(1_800_000_000)));
        assert!(clock.believes(at(1_810_000_000)));
        assert!(!clock.believes(at(4_102_444_800)));
        let trusted = TlsClock {
            trusted: true,
            ..clock
        };
        assert!(trusted.believes(at(4_102_444_800)));
    }
}

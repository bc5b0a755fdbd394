//! TLS by rustls: 1.3, and 1.2 where it is enabled, with X25519MLKEM768 preferred.
//!
//! The agent's messages carry their own signatures; TLS keeps them confidential, even if today's
//! recordings meet tomorrow's quantum computers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// TLS settings.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// A PEM file with the certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// A PEM file with its private key.
    pub key: PathBuf,
    /// Whether clients that know only TLS 1.2 may connect.
    pub allow_tls12: bool,
}

/// Reason TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    File(String, String),
    /// Certificate and key do not match, or are of an unsupported kind.
    #[error("certificate and key: {0}")]
    Config(#[from] rustls::Error),
}

/// Interval between checks of the certificate's files.
const RELOAD: Duration = Duration::from_mins(1);

/// The certificate as it is on disk now: a renewed one is picked up without a restart.
#[derive(Debug)]
struct Current {
    settings: TlsSettings,
    key: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.load_full())
    }
}

impl TlsSettings {
    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let bad = |path: &PathBuf, e: &dyn std::fmt::Display| {
            TlsError::File(path.display().to_string(), e.to_string())
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| bad(&self.certificate, &e))?;
        if chain.is_empty() {
            return Err(bad(&self.certificate, &"the file contains no certificate"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| bad(&self.key, &e))?;
        Ok(CertifiedKey::from_der(
            chain,
            key,
            &aws_lc_rs::default_provider(),
        )?)
    }

    fn modified(&self) -> Vec<Option<std::time::SystemTime>> {
        [&self.certificate, &self.key]
            .into_iter()
            .map(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok())
            .collect()
    }
}

/// Makes what shakes hands with clients; renewed certificates are taken up until `stopping`.
pub(crate) fn acceptor(
    settings: TlsSettings,
    stopping: CancellationToken,
) -> Result<TlsAcceptor, TlsError> {
    let current = Arc::new(Current {
        key: ArcSwap::from_pointee(settings.load()?),
        settings,
    });
    let acceptor = TlsAcceptor::from(Arc::new(config(&current)?));
    tokio::spawn(reload(current, stopping));
    Ok(acceptor)
}

fn config(current: &Arc<Current>) -> Result<ServerConfig, TlsError> {
    let versions: &[&rustls::SupportedProtocolVersion] = if current.settings.allow_tls12 {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    } else {
        &[&rustls::version::TLS13]
    };
    let mut provider = aws_lc_rs::default_provider();
    // The server's order decides: the hybrid group before all others.
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(current.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn reload(current: Arc<Current>, stopping: CancellationToken) {
    let mut seen = current.settings.modified();
    let mut ticks = tokio::time::interval(RELOAD);
    while stopping.run_until_cancelled(ticks.tick()).await.is_some() {
        let now = current.settings.modified();
        if now == seen {
            continue;
        }
        seen = now;
        match current.settings.load() {
            Ok(key) => {
                current.key.store(Arc::new(key));
                tracing::info!("the renewed certificate is in use");
            }
            // The certificate in use is kept.
            Err(error) => {
                tracing::error!(%error, "the renewed certificate is invalid; the old one stays in use");
            }
        }
    }
}

//! Requirements that a product sets for its clients.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use tidegate_protocol::Version;

/// A TLS version, as servers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tls {
    /// SSL 3.0 or older.
    Ssl,
    /// TLS 1.0.
    V1_0,
    /// TLS 1.1.
    V1_1,
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// The text is not a TLS version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a TLS version: TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3")]
pub struct TlsError(String);

impl FromStr for Tls {
    type Err = TlsError;

    /// Parses a version as nginx writes it in `$ssl_protocol`.
    fn from_str(text: &str) -> Result<Self, TlsError> {
        match text {
            "SSLv2" | "SSLv3" => Ok(Self::Ssl),
            "TLSv1" => Ok(Self::V1_0),
            "TLSv1.1" => Ok(Self::V1_1),
            "TLSv1.2" => Ok(Self::V1_2),
            "TLSv1.3" => Ok(Self::V1_3),
            _ => Err(TlsError(text.chars().take(20).collect())),
        }
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ssl => "SSLv3",
            Self::V1_0 => "TLSv1",
            Self::V1_1 => "TLSv1.1",
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        })
    }
}

/// Requirements that a product sets for its clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatePolicy {
    /// The oldest supported version.
    pub min_version: Option<Version>,
    /// The oldest TLS version accepted.
    pub min_tls: Option<Tls>,
    /// Capabilities that a client must have.
    pub capabilities: BTreeSet<String>,
    /// Address of the upgrade instructions for people; may be empty.
    pub upgrade_url: String,
}

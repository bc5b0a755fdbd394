//! Addresses of control planes and mirrors.

use super::error::TransportError;

/// Address of a control plane or a mirror.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Host, with the port where the address gives one: requests name it in `Host` and sign it.
    pub(crate) authority: String,
    /// Path prefix of each request, which something at that address takes off again: a proxy may have the
    /// server in a folder, and a mirror its blobs.
    pub(crate) base: String,
}

impl Address {
    /// Placeholder for a client that connects to nothing.
    pub(crate) fn none() -> Self {
        Self {
            tls: false,
            host: String::new(),
            port: 0,
            authority: "nobody".into(),
            base: String::new(),
        }
    }

    /// Parses `http(s)://host[:port][/folder]`.
    pub(crate) fn parse(text: &str) -> Result<Self, TransportError> {
        let refuse = || TransportError::Address(text.chars().take(200).collect());
        let uri: hyper::Uri = text.parse().map_err(|_| refuse())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse()),
        };
        let authority = uri.authority().ok_or_else(refuse)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(refuse());
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(Self {
            tls,
            host,
            port,
            authority: authority.as_str().to_ascii_lowercase(),
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_addresses_are_taken() {
        for bad in [
            "",
            "ftp://x",
            "http://",
            "http://u:p@h/",
            "http://h/?q",
            "h:1",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        let address = Address::parse("https://Tide.example").unwrap();
        assert_eq!(
            (address.port, address.authority.as_str()),
            (443, "tide.example")
        );
        let address = Address::parse("http://[::1]:8420").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("::1", 8420));
        let address = Address::parse("https://tide.example/tidegate/").unwrap();
        assert_eq!(
            (address.authority.as_str(), address.base.as_str()),
            ("tide.example", "/tidegate")
        );
    }
}

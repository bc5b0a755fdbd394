//! Proxies from the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, in upper or
//! lower case.

use std::env;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A proxy for requests to one host.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The value of `Proxy-Authorization`; a secret.
    pub(crate) authorization: Option<String>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Returns the proxy for a host, if the environment names one. Upper-case `HTTP_PROXY` is ignored
/// where a web server may set it from a request (`REQUEST_METHOD` is there).
pub(crate) fn for_host(tls: bool, host: &str) -> Result<Option<Proxy>, String> {
    choose(tls, host, &|name| {
        env::var(name).ok().filter(|value| !value.is_empty())
    })
}

fn choose(
    tls: bool,
    host: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, String> {
    let either = |name: &str| {
        variable(&name.to_ascii_lowercase()).or_else(|| {
            let spoofed = name == "HTTP_PROXY" && variable("REQUEST_METHOD").is_some();
            variable(name).filter(|_| !spoofed)
        })
    };
    let own = if tls { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let Some(text) = either(own).or_else(|| either("ALL_PROXY")) else {
        return Ok(None);
    };
    if either("NO_PROXY").is_some_and(|list| is_spared(&list, host)) {
        return Ok(None);
    }
    parse(&text).map(Some)
}

/// Returns whether a host is in a list like `localhost,.plant.example,10.0.0.7`. A domain includes what is
/// below it, with or without a leading dot; `*` includes everything.
fn is_spared(list: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    list.split([',', ' ']).any(|entry| {
        let entry = entry.trim().trim_start_matches('.').to_ascii_lowercase();
        match entry.as_str() {
            "" => false,
            "*" => true,
            entry => {
                host == entry
                    || host
                        .strip_suffix(entry)
                        .is_some_and(|before| before.ends_with('.'))
            }
        }
    })
}

fn parse(text: &str) -> Result<Proxy, String> {
    // The text may hold a password: it is not quoted.
    let refuse = || "the proxy's address is not http://[user:password@]host:port".to_owned();
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return Err(refuse()),
        None => text,
    };
    let rest = rest.trim_end_matches('/');
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    let authority: hyper::http::uri::Authority = place.parse().map_err(|_| refuse())?;
    Ok(Proxy {
        host: authority.host().trim_matches(['[', ']']).to_owned(),
        port: authority.port_u16().unwrap_or(80),
        authorization: user.map(|user| format!("Basic {}", base64(&decoded(user)))),
    })
}

/// Decodes percent-encoding, such as `%40`.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let value = pair
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        at += if value.is_some() { 3 } else { 1 };
        out.push(value.unwrap_or(*byte));
    }
    out
}

/// Encodes base64 (RFC 4648); this is its only use in the agent.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for index in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

/// Opens a tunnel to a host through a proxy. Nothing is read beyond the proxy's answer.
pub(crate) async fn tunnel(
    stream: &mut TcpStream,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<(), String> {
    const LIMIT: usize = 8 << 10;
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request += &format!("Proxy-Authorization: {authorization}\r\n");
    }
    request += "\r\n";
    let failed = |e: std::io::Error| format!("the proxy does not answer: {e}");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Byte by byte: whatever follows the head belongs to the tunnel.
        head.push(stream.read_u8().await.map_err(failed)?);
        if head.len() > LIMIT {
            return Err("the proxy's answer is too long".into());
        }
    }
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    let status = line.split_whitespace().nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(());
    }
    Err(format!(
        "the proxy refused: {}",
        line.chars().take(100).collect::<String>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(tls: bool, host: &str, variables: &[(&str, &str)]) -> Option<Proxy> {
        choose(tls, host, &|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
        .unwrap()
    }

    #[test]
    fn the_variable_of_the_scheme_comes_before_the_one_for_all() {
        let both = [
            ("https_proxy", "http://p:3128"),
            ("ALL_PROXY", "q"),
            ("NO_PROXY", "localhost, .plant.example,10.0.0.7"),
        ];
        let proxy = chosen(true, "tide.example", &both).unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("p", 3128));
        assert_eq!(chosen(false, "tide.example", &both).unwrap().host, "q");
        for spared in [
            "localhost",
            "plc.plant.example",
            "plant.example",
            "10.0.0.7",
        ] {
            assert_eq!(chosen(true, spared, &both), None, "{spared}");
        }
        assert!(chosen(true, "otherplant.example", &both).is_some());
        assert_eq!(chosen(true, "x", &[]), None);
    }

    #[test]
    fn a_variable_that_a_request_may_have_set_is_not_believed() {
        let cgi = [("HTTP_PROXY", "evil:80"), ("REQUEST_METHOD", "GET")];
        assert_eq!(chosen(false, "x", &cgi), None);
    }

    #[test]
    fn a_password_is_decoded_and_never_shown() {
        let proxy = parse("http://me:p%40ss@proxy.example:8080/").unwrap();
        assert_eq!(proxy.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert_eq!(format!("{proxy:?}"), "proxy.example:8080");
        let refused = parse("socks5://me:secret@x").unwrap_err();
        assert!(!refused.contains("secret"));
    }
}

//! HTTP for the agent: one kept connection, bounded reads, deadlines.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::{TlsClock, connector};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(15);
/// How long the peer may be silent while bytes are expected.
const SILENCE: Duration = Duration::from_secs(30);

/// A download that drips: each byte comes in time, and the end never does. What was fetched is
/// kept, and the next try goes on from there, perhaps over a better way.
struct MinimumRate {
    since: Instant,
    bytes: usize,
}

impl MinimumRate {
    /// Over this long ...
    const WINDOW: Duration = Duration::from_mins(5);
    /// ... at least so many bytes: 13 bytes a second, less than any modem.
    const BYTES: usize = 4_096;

    fn begin(now: Instant) -> Self {
        Self {
            since: now,
            bytes: 0,
        }
    }

    /// Counts bytes; whether they come fast enough.
    fn goes_on(&mut self, now: Instant, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        if now.duration_since(self.since) < Self::WINDOW {
            return true;
        }
        let enough = self.bytes >= Self::BYTES;
        *self = Self::begin(now);
        enough
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address is not usable.
    #[error("not an address of a server: {0} (http://host:port or https://host:port)")]
    Address(String),
    /// A certificate file cannot be used.
    #[error("certificate authority {0}: {1}")]
    Authority(String, String),
    /// The connection could not be made.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing came for too long.
    #[error("no answer in time")]
    Timeout,
    /// More came than allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The server answered something else than was asked for.
    #[error("the server answered {status}: {text}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// What it said, cut short.
        text: String,
    },
    /// The answer cannot be understood.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
}

/// Where a server is.
#[derive(Debug, Clone)]
pub struct Address {
    tls: bool,
    host: String,
    port: u16,
    /// Host and, where it is not the default, port: what requests name and sign.
    pub authority: String,
}

impl Address {
    /// Reads `http://host:port` or `https://host:port`.
    pub fn parse(text: &str) -> Result<Self, TransportError> {
        let refuse = || TransportError::Address(text.chars().take(200).collect());
        let uri: hyper::Uri = text.parse().map_err(|_| refuse())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse()),
        };
        let authority = uri.authority().ok_or_else(refuse)?;
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") {
            return Err(refuse());
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(Self {
            tls,
            host,
            port,
            authority: authority.as_str().to_ascii_lowercase(),
        })
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: hyper::HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body, if the status is 200.
    pub fn ok(self) -> Result<Bytes, TransportError> {
        if self.status == StatusCode::OK {
            return Ok(self.body);
        }
        Err(refused(self.status, &self.body))
    }
}

fn refused(status: StatusCode, body: &[u8]) -> TransportError {
    // A problem document says what was wrong; anything else is shown as it is, cut short.
    let text = serde_json::from_slice::<tidegate_protocol::Problem>(body).map_or_else(
        |_| String::from_utf8_lossy(body).chars().take(200).collect(),
        |problem| format!("{}: {}", problem.code, problem.detail),
    );
    TransportError::Status {
        status: status.as_u16(),
        text,
    }
}

/// A connection to one server, made when it is needed and kept while it lasts.
pub struct Client {
    address: Address,
    tls: Option<TlsConnector>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client for a server; `ca_file` stands in for the public certificate authorities.
    pub fn new(
        server: &str,
        ca_file: Option<&Path>,
        clock: TlsClock,
    ) -> Result<Self, TransportError> {
        let address = Address::parse(server)?;
        let tls = if address.tls {
            Some(connector(ca_file, clock)?)
        } else {
            None
        };
        Ok(Self {
            address,
            tls,
            connection: None,
        })
    }

    /// What requests name and sign.
    pub fn authority(&self) -> &str {
        &self.address.authority
    }

    /// Another client for the same server: a download and a check-in can run side by side.
    pub fn sibling(&self) -> Self {
        Self {
            address: self.address.clone(),
            tls: self.tls.clone(),
            connection: None,
        }
    }

    /// Sends a request and reads an answer of at most `limit` bytes within a deadline.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
        limit: usize,
        deadline: Duration,
    ) -> Result<Answer, TransportError> {
        tokio::time::timeout(deadline, async {
            let response = self.request(method, path, headers, body).await?;
            let (parts, mut incoming) = response.into_parts();
            let mut body = Vec::new();
            while let Some(frame) = incoming.frame().await {
                let frame = frame.map_err(|e| self.broken(&e))?;
                if let Ok(data) = frame.into_data() {
                    if body.len() + data.len() > limit {
                        self.connection = None;
                        return Err(TransportError::TooLarge(limit));
                    }
                    body.extend_from_slice(&data);
                }
            }
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.into(),
            })
        })
        .await
        .unwrap_or_else(|_| {
            self.connection = None;
            Err(TransportError::Timeout)
        })
    }

    /// Fetches bytes from `offset` on and hands them over as they come. Gives the offset at which
    /// the server really began: 0 when it did not honour the range.
    pub async fn fetch<E>(
        &mut self,
        path: &str,
        etag: &str,
        offset: u64,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, TransportError> {
        let range = format!("bytes={offset}-");
        let etag = format!("\"{etag}\"");
        let headers = [("range", range.as_str()), ("if-range", etag.as_str())];
        let response = tokio::time::timeout(
            CONNECT + SILENCE,
            self.request(Method::GET, path, &headers, Vec::new()),
        )
        .await
        .map_err(|_| TransportError::Timeout)??;
        let (parts, mut incoming) = response.into_parts();
        let mut at = match parts.status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => {
                // Only the range that was asked for may be taken for it.
                let begins = parts
                    .headers
                    .get("content-range")
                    .and_then(|v| v.to_str().ok())
                    .and_then(|v| v.strip_prefix("bytes "))
                    .and_then(|v| v.split('-').next())
                    .and_then(|v| v.parse::<u64>().ok());
                if begins != Some(offset) {
                    self.connection = None;
                    return Err(TransportError::Malformed(
                        "another range than asked for".into(),
                    ));
                }
                offset
            }
            status => {
                self.connection = None;
                return Err(refused(status, b"while fetching a blob"));
            }
        };
        let mut rate = MinimumRate::begin(Instant::now());
        loop {
            let frame = tokio::time::timeout(SILENCE, incoming.frame()).await;
            let frame = match frame {
                Err(_) => {
                    self.connection = None;
                    return Err(TransportError::Timeout);
                }
                Ok(None) => return Ok(Ok(())),
                Ok(Some(frame)) => frame.map_err(|e| self.broken(&e))?,
            };
            if let Ok(data) = frame.into_data() {
                if !rate.goes_on(Instant::now(), data.len()) {
                    self.connection = None;
                    return Err(TransportError::Timeout);
                }
                if let Err(error) = take(at, &data) {
                    self.connection = None;
                    return Ok(Err(error));
                }
                at += data.len() as u64;
            }
        }
    }

    fn broken(&mut self, error: &hyper::Error) -> TransportError {
        self.connection = None;
        TransportError::Broken(crate::log::chain(error))
    }

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Response<hyper::body::Incoming>, TransportError> {
        let body = Bytes::from(body);
        // A kept connection may have been closed meanwhile: then once more on a new one.
        if let Some(mut kept) = self.connection.take()
            && kept.ready().await.is_ok()
        {
            let request = self.build(&method, path, headers, body.clone())?;
            match kept.send_request(request).await {
                Ok(response) => {
                    self.connection = Some(kept);
                    return Ok(response);
                }
                // Whether the server took it is not known; every request here may be repeated.
                Err(_) => drop(kept),
            }
        }
        let mut fresh = self.connect().await?;
        let request = self.build(&method, path, headers, body)?;
        let response = fresh
            .send_request(request)
            .await
            .map_err(|e| TransportError::Broken(crate::log::chain(&e)))?;
        self.connection = Some(fresh);
        Ok(response)
    }

    fn build(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, TransportError> {
        let malformed = |e: &dyn std::fmt::Display| TransportError::Malformed(e.to_string());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.address.authority)
            .header(
                "user-agent",
                concat!("tidegate-agent/", env!("CARGO_PKG_VERSION")),
            )
            .body(Full::new(body))
            .map_err(|e| malformed(&e))?;
        for (name, value) in headers {
            let name: HeaderName = name.parse().map_err(|e| malformed(&e))?;
            request.headers_mut().insert(
                name,
                HeaderValue::from_str(value).map_err(|e| malformed(&e))?,
            );
        }
        Ok(request)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, TransportError> {
        let Address {
            host,
            port,
            authority,
            ..
        } = &self.address;
        let refuse = |e: String| TransportError::Connect(authority.clone(), e);
        let connecting = async {
            let stream = TcpStream::connect((host.as_str(), *port))
                .await
                .map_err(|e| refuse(e.to_string()))?;
            let _ = stream.set_nodelay(true);
            match &self.tls {
                None => handshake(TokioIo::new(stream)).await,
                Some(tls) => {
                    let name =
                        ServerName::try_from(host.clone()).map_err(|e| refuse(e.to_string()))?;
                    let stream = tls
                        .connect(name, stream)
                        .await
                        .map_err(|e| refuse(e.to_string()))?;
                    handshake(TokioIo::new(stream)).await
                }
            }
        };
        tokio::time::timeout(CONNECT, connecting)
            .await
            .map_err(|_| refuse("no answer in time".into()))?
    }
}

async fn handshake<T>(io: T) -> Result<SendRequest<Full<Bytes>>, TransportError>
where
    T: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 << 10)
        .handshake(io)
        .await
        .map_err(|e| TransportError::Broken(crate::log::chain(&e)))?;
    tokio::spawn(async move {
        // Its error reaches whoever waits for an answer.
        let _ = connection.await;
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a28_a_byte_now_and_then_is_no_download() {
        let begin = Instant::now();
        let mut rate = MinimumRate::begin(begin);
        let at = |seconds| begin + Duration::from_secs(seconds);
        for second in (0..300).step_by(29) {
            assert!(rate.goes_on(at(second), 1));
        }
        assert!(!rate.goes_on(at(300), 1));
        // A slow link that carries a little is enough.
        for second in 300..1_200 {
            assert!(rate.goes_on(at(second), 30));
        }
    }

    #[test]
    fn only_plain_http_addresses_are_taken() {
        for bad in [
            "",
            "ftp://x",
            "http://",
            "http://u:p@h/",
            "http://h/path",
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
    }
}

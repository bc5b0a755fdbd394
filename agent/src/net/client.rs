//! HTTP client of the agent: one persistent connection, bounded reads, deadlines.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderName, HeaderValue,
};
use hyper::{Method, Request, Response, StatusCode};
use tidegate_protocol::{SESSION_SCHEME, is_loopback};
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::error::{TransportError, refused};
use super::line::{self, Connection, Line, SILENCE, handshake};
use super::proxy::{self, Proxy};
use super::tls::{TlsClock, connector};

/// A complete response.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: hyper::HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// Returns the body if the status is 200, else [`TransportError::Status`].
    pub fn ok(self) -> Result<Bytes, TransportError> {
        if self.status == StatusCode::OK {
            return Ok(self.body);
        }
        Err(refused(self.status, &self.body))
    }
}

/// HTTP client of one server: connects on demand and keeps the connection open.
pub struct Client {
    address: Address,
    proxy: Option<Proxy>,
    tls: Option<TlsConnector>,
    pub(super) connection: Option<Connection>,
    /// Ticket of the session with the server, shared by siblings: a download outlives it, and goes on with
    /// the next one. A mirror's client never has one.
    ticket: Arc<Mutex<Option<String>>>,
    /// Longest wait for the next bytes of an answer.
    pub(super) silence: Duration,
    /// Reason why this client never connects; `None` for a usable one.
    unfit: Option<String>,
}

impl Client {
    /// Returns a client that fails every request with a reason: for a machine whose settings are
    /// broken but which must still be able to roll back.
    pub(crate) fn unfit(why: String) -> Self {
        Self {
            address: Address::none(),
            proxy: None,
            tls: None,
            connection: None,
            ticket: Arc::default(),
            silence: SILENCE,
            unfit: Some(why),
        }
    }

    /// Returns whether every request fails, since the settings are broken.
    pub(crate) fn is_unfit(&self) -> bool {
        self.unfit.is_some()
    }

    /// Returns a client for a server; `ca_file` replaces the public certificate authorities. Plain
    /// HTTP that leaves this machine is refused unless it is allowed: a server is told secrets.
    pub fn new(
        server: &str,
        ca_file: Option<&Path>,
        plain_http: bool,
        clock: TlsClock,
    ) -> Result<Self, TransportError> {
        let client = Self::to(Address::parse(server)?, ca_file, clock)?;
        if client.shows_secrets() && !plain_http {
            return Err(TransportError::Plain(client.address()));
        }
        Ok(client)
    }

    /// Returns whether requests leave this machine unencrypted, to the server or to a proxy.
    fn shows_secrets(&self) -> bool {
        let proxy = self.proxy.as_ref().map(|proxy| proxy.host.as_str());
        let hosts = [Some(self.address.host.as_str()), proxy];
        !self.address.tls && !hosts.into_iter().flatten().all(is_loopback)
    }

    /// Returns a client for a mirror of a server's blobs. It is told nothing secret.
    pub(crate) fn mirror(
        address: &str,
        ca_file: Option<&Path>,
        clock: TlsClock,
    ) -> Result<Self, TransportError> {
        Self::to(Address::parse(address)?, ca_file, clock)
    }

    fn to(
        address: Address,
        ca_file: Option<&Path>,
        clock: TlsClock,
    ) -> Result<Self, TransportError> {
        let proxy = proxy::for_host(address.tls, &address.host)
            .map_err(|e| TransportError::Connect(address.authority.clone(), e))?;
        let tls = if address.tls {
            Some(connector(ca_file, clock)?)
        } else {
            None
        };
        Ok(Self {
            address,
            proxy,
            tls,
            connection: None,
            ticket: Arc::default(),
            silence: SILENCE,
            unfit: None,
        })
    }

    /// Returns a client over an existing connection. It cannot reconnect with TLS.
    pub(crate) async fn over(
        line: Box<dyn Line>,
        address: Address,
        proxy: Option<Proxy>,
    ) -> Result<Self, TransportError> {
        // Plain requests through a proxy carry the full URL; requests inside a tunnel do not.
        let proxy = proxy.filter(|_| !address.tls);
        Ok(Self {
            address,
            proxy,
            tls: None,
            connection: Some(handshake(line).await?),
            ticket: Arc::default(),
            silence: SILENCE,
            unfit: None,
        })
    }

    /// Returns whether requests carry a ticket.
    pub(crate) fn has_ticket(&self) -> bool {
        self.lock_ticket().is_some()
    }

    /// Sets the ticket that requests of this client and its siblings carry from now on.
    pub(crate) fn set_ticket(&self, ticket: Option<String>) {
        *self.lock_ticket() = ticket;
    }

    fn lock_ticket(&self) -> MutexGuard<'_, Option<String>> {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Host and port as requests name and sign them.
    pub fn authority(&self) -> &str {
        &self.address.authority
    }

    /// Address as people read it.
    pub(crate) fn address(&self) -> String {
        let Address {
            tls,
            authority,
            base,
            ..
        } = &self.address;
        format!("http{}://{authority}{base}", if *tls { "s" } else { "" })
    }

    /// Returns a second client for the same server, so that a download and a check-in can run
    /// concurrently.
    pub fn sibling(&self) -> Self {
        Self {
            address: self.address.clone(),
            proxy: self.proxy.clone(),
            tls: self.tls.clone(),
            connection: None,
            ticket: self.ticket.clone(),
            silence: self.silence,
            unfit: self.unfit.clone(),
        }
    }

    /// Sends a request and reads an answer of at most `limit` bytes before a deadline. An answer that has
    /// begun and falls silent is given up before it.
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
            loop {
                let frame = tokio::time::timeout(self.silence, incoming.frame()).await;
                let Some(frame) = frame.map_err(|_| TransportError::Timeout)? else {
                    break;
                };
                let frame = frame.map_err(|e| self.broken(&e))?;
                if let Ok(data) = frame.into_data() {
                    if body.len() + data.len() > limit {
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
        .unwrap_or(Err(TransportError::Timeout))
        .inspect_err(|_| self.connection = None)
    }

    pub(super) fn broken(&mut self, error: &hyper::Error) -> TransportError {
        self.connection = None;
        TransportError::Broken(crate::log::chain(error))
    }

    pub(super) async fn request(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Response<hyper::body::Incoming>, TransportError> {
        let body = Bytes::from(body);
        // The server may have closed the idle connection: retry once on a new one.
        if let Some(mut kept) = self.connection.take()
            && kept.ready().await.is_ok()
        {
            let request = self.build(&method, path, headers, body.clone())?;
            match kept.send_request(request).await {
                Ok(response) => return self.take(response, kept),
                // Whether the server processed it is unknown; every request here is safe to retry.
                Err(_) => drop(kept),
            }
        }
        let mut fresh = self.connect().await?;
        let request = self.build(&method, path, headers, body)?;
        let response = fresh
            .send_request(request)
            .await
            .map_err(|e| TransportError::Broken(crate::log::chain(&e)))?;
        self.take(response, fresh)
    }

    /// Takes an answer, unless something on the way has encoded its body. Its connection is kept for
    /// the next request.
    fn take(
        &mut self,
        response: Response<hyper::body::Incoming>,
        connection: Connection,
    ) -> Result<Response<hyper::body::Incoming>, TransportError> {
        let encoding = response.headers().get(CONTENT_ENCODING);
        if let Some(encoding) = encoding.filter(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            let text = String::from_utf8_lossy(encoding.as_bytes());
            let text: String = text.chars().take(40).collect();
            return Err(TransportError::Malformed(format!(
                "it has the Content-Encoding {text:?}, which was not asked for"
            )));
        }
        self.connection = Some(connection);
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
        let empty = body.is_empty() && *method == Method::POST;
        let mut request = Request::builder()
            .method(method)
            .uri(self.target(path))
            .header(HOST, &self.address.authority)
            // Bytes are hashed and ranges counted as they are stored: nothing on the way may compress.
            .header("accept-encoding", "identity")
            .header(
                "user-agent",
                concat!("tidegate-agent/", env!("CARGO_PKG_VERSION")),
            )
            .body(Full::new(body))
            .map_err(|e| malformed(&e))?;
        if empty {
            // There are proxies that refuse a POST without a length (411).
            request
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(Proxy {
            authorization: Some(authorization),
            ..
        }) = &self.proxy
            && self.tls.is_none()
        {
            let mut value = HeaderValue::from_str(authorization).map_err(|e| malformed(&e))?;
            value.set_sensitive(true);
            request.headers_mut().insert("proxy-authorization", value);
        }
        if let Some(ticket) = &*self.lock_ticket() {
            let text = format!("{SESSION_SCHEME} {ticket}");
            let mut value = HeaderValue::from_str(&text).map_err(|e| malformed(&e))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        for (name, value) in headers {
            let name: HeaderName = name.parse().map_err(|e| malformed(&e))?;
            request.headers_mut().insert(
                name,
                HeaderValue::from_str(value).map_err(|e| malformed(&e))?,
            );
        }
        Ok(request)
    }

    /// Target of the request line: a proxy that forwards plain requests needs the full URL.
    fn target(&self, path: &str) -> String {
        let Address {
            authority, base, ..
        } = &self.address;
        if self.proxy.is_some() && self.tls.is_none() {
            return format!("http://{authority}{base}{path}");
        }
        format!("{base}{path}")
    }

    async fn connect(&self) -> Result<Connection, TransportError> {
        if let Some(why) = &self.unfit {
            let authority = self.address.authority.clone();
            return Err(TransportError::Connect(authority, why.clone()));
        }
        line::connect(&self.address, self.proxy.as_ref(), self.tls.as_ref()).await
    }
}

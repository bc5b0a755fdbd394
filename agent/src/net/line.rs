//! Connections to a server, direct or through a proxy.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::error::TransportError;
use super::proxy::{self, Proxy};
use crate::host::threads;

/// Timeout for the next bytes from the peer.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);
/// Timeout for connecting.
pub(super) const CONNECT: Duration = Duration::from_secs(15);

/// A connection on which requests can be sent.
pub(super) type Connection = SendRequest<Full<Bytes>>;

/// A connection, encrypted or not: a single type, so that HTTP is compiled in once.
pub(crate) trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// Connects to a server, through its proxy and with TLS where there are any.
pub(super) async fn connect(
    address: &Address,
    proxy: Option<&Proxy>,
    tls: Option<&TlsConnector>,
) -> Result<Connection, TransportError> {
    let Address {
        host,
        port,
        authority,
        ..
    } = address;
    let refuse = |e: String| TransportError::Connect(authority.clone(), e);
    let connecting = async {
        let (to, at) = match proxy {
            Some(proxy) => (proxy.host.as_str(), proxy.port),
            None => (host.as_str(), *port),
        };
        let addresses = look_up(to, at).await.map_err(|e| refuse(e.to_string()))?;
        let mut stream = TcpStream::connect(&*addresses)
            .await
            .map_err(|e| refuse(e.to_string()))?;
        if let (Some(proxy), Some(_)) = (proxy, tls) {
            proxy::tunnel(&mut stream, proxy, host, *port)
                .await
                .map_err(refuse)?;
        }
        let _ = stream.set_nodelay(true);
        let line: Box<dyn Line> = match tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(host.clone()).map_err(|e| refuse(e.to_string()))?;
                let stream = tls.connect(name, stream).await;
                Box::new(stream.map_err(|e| refuse(e.to_string()))?)
            }
        };
        handshake(line).await
    };
    tokio::time::timeout(CONNECT, connecting)
        .await
        .map_err(|_| refuse("no answer in time".into()))?
}

/// Looks the addresses of a host up. An address that is a number needs no thread; the runtime's own lookup
/// panics where none is to be had.
pub(crate) async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let place = (host.to_owned(), port);
    let found = threads::run(move || place.to_socket_addrs().map(Iterator::collect)).await;
    found.unwrap_or_else(|why| Err(io::Error::other(why.to_string())))
}

/// Begins HTTP on a connection.
pub(super) async fn handshake(line: Box<dyn Line>) -> Result<Connection, TransportError> {
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(line))
        .await
        .map_err(|e| TransportError::Broken(crate::log::chain(&e)))?;
    tokio::spawn(async move {
        // The request that waits for an answer gets the error.
        let _ = connection.await;
    });
    Ok(sender)
}

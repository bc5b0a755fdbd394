//! The accept loop: HTTP/1.1 with a deadline for each thing that a client can be slow at.
//!
//! `axum::serve` sets no timer, so a socket that is opened and left would stay for ever.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tidegate_web::connections::{Admitted, Connection, Connections, Phase};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

mod body;
mod io;
mod lanes;
mod patience;

use lanes::{Lanes, Serving, Stranger};
pub use patience::Patience;

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Connections that may wait to be accepted.
const QUEUE: u32 = 4_096;
/// Pause after a failed accept where no connection can give way.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener with what it serves.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    /// `None` for plain HTTP.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) router: Router,
    pub(crate) connections: Arc<Connections>,
    pub(crate) patience: Patience,
}

impl Door {
    /// Accepts connections until `stopping`; the connections run as tasks of `tasks`, and end with
    /// the requests that they are answering.
    pub(crate) async fn run(self, tasks: TaskTracker, stopping: CancellationToken) {
        // All routes are boxed once, here, and not for each connection.
        let router: Router = self.router.with_state(());
        let served = Arc::new(Served {
            router,
            tls: self.tls,
            patience: self.patience,
            stopping: stopping.clone(),
        });
        let lanes = Arc::new(Lanes::default());
        for turn in 1_u64.. {
            // The whole queue at a time, not the hundred or so that a task is given before the others
            // have their turn: else whoever connects over and over keeps people waiting in it.
            let accepted = tokio::task::unconstrained(self.listener.accept());
            let (stream, peer) = match stopping.run_until_cancelled(accepted).await {
                None => return,
                Some(Ok(accepted)) => accepted,
                Some(Err(error)) => {
                    refused_by_the_system(&error, &self.connections).await;
                    continue;
                }
            };
            if turn.is_multiple_of(QUEUE.into()) {
                tokio::task::yield_now().await;
            }
            let mut place = self.connections.admit(peer.ip());
            if place.is_none() {
                // Those that came just before were not looked at yet: afterwards some may give way.
                tokio::task::yield_now().await;
                place = self.connections.admit(peer.ip());
            }
            let Some(admitted) = place else {
                tracing::debug!(%peer, "no place for another connection");
                continue;
            };
            let connection = admitted.connection().clone();
            let serving: Serving = Box::pin(served.clone().connection(stream, admitted));
            match connection.network() {
                // A proxy, which stands for many.
                None => drop(tasks.spawn(serving)),
                Some(network) => {
                    lanes.put(
                        network,
                        Stranger {
                            connection,
                            serving,
                        },
                        &tasks,
                    );
                }
            }
        }
    }
}

/// Handles an error of `accept`: a client that has gone already is nothing, a lack of descriptors
/// is met by closing the connection that has shown nothing for the longest.
async fn refused_by_the_system(error: &std::io::Error, connections: &Connections) {
    use std::io::ErrorKind;
    if matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    ) {
        return;
    }
    let (all, unproven) = connections.count();
    tracing::warn!(%error, connections = all, unproven, "accepting a connection");
    connections.make_room();
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// State that the connections of a listener share.
struct Served {
    router: Router,
    tls: Option<TlsAcceptor>,
    patience: Patience,
    stopping: CancellationToken,
}

impl Served {
    async fn connection(self: Arc<Self>, stream: TcpStream, admitted: Admitted) {
        let connection = admitted.connection().clone();
        let _ = stream.set_nodelay(true);
        io::keep_alive(&stream);
        let stream = io::Watched::new(stream, connection.clone());
        let closed = connection.closed().clone();
        let serving = async {
            match &self.tls {
                None => self.http(stream, &connection).await,
                Some(acceptor) => {
                    let shaken =
                        tokio::time::timeout(self.patience.handshake, acceptor.accept(stream));
                    match shaken.await {
                        Ok(Ok(stream)) => self.http(stream, &connection).await,
                        Ok(Err(error)) => {
                            tracing::debug!(peer = %connection.peer(), %error, "a TLS handshake failed");
                        }
                        Err(_) => {
                            tracing::debug!(peer = %connection.peer(), "a TLS handshake took too long");
                        }
                    }
                }
            }
        };
        if closed.run_until_cancelled(serving).await.is_none() {
            tracing::debug!(peer = %connection.peer(), "a connection gave way to another");
        }
    }

    async fn http<S>(&self, stream: S, connection: &Arc<Connection>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The time of the handshake was another's.
        connection.begin(Phase::Idle);
        let service = hyper::service::service_fn(|request| {
            answer(
                self.router.clone(),
                connection.clone(),
                self.patience,
                request,
            )
        });
        let mut serving = pin!(
            http1::Builder::new()
                // The deadlines are ours: hyper's does not tell an idle connection from a slow one.
                .header_read_timeout(None)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service)
        );
        let mut patience = pin!(self.patience.lost(connection));
        let mut stopped = pin!(self.stopping.cancelled());
        let mut stops = false;
        loop {
            tokio::select! {
                result = serving.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(peer = %connection.peer(), %error, "a connection ended");
                    }
                    return;
                }
                why = patience.as_mut() => {
                    tracing::debug!(peer = %connection.peer(), why, "a connection was too slow");
                    return;
                }
                () = stopped.as_mut(), if !stops => {
                    stops = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Answers a request.
fn answer(
    router: Router,
    connection: Arc<Connection>,
    patience: Patience,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<body::Watched>, Infallible>> + Send {
    connection.begin(Phase::Request);
    async move {
        let one_host = names_one_host(&request);
        request.extensions_mut().insert(connection.clone());
        let request = request.map(|body| Body::new(body::Slow::new(body, patience)));
        let mut response = if one_host {
            router.oneshot(request).await?
        } else {
            let mut response = Response::new(Body::from(
                "send one Host header, with the name or address of this server\n",
            ));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        };
        if response.status() == StatusCode::NO_CONTENT {
            // Never sent with it (RFC 9110 section 8.6), also not for a HEAD.
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let refused = response.status().is_client_error();
        if refused && connection.note_refusal() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        connection.begin(Phase::Answer);
        Ok(response.map(|body| body::Watched::new(body, connection)))
    }
}

/// Returns whether a request has the Host header that its version of HTTP asks for
/// (RFC 9112 section 3.2): one, or at most one before HTTP/1.1.
fn names_one_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host),
        (None, None) => request.version() < Version::HTTP_11,
        _ => false,
    }
}

/// Returns whether a header's value is a host and a port (RFC 9110 section 7.2), and of an http address, which
/// has a host.
fn is_host(value: &HeaderValue) -> bool {
    let authority = Authority::try_from(value.as_bytes());
    authority.is_ok_and(|a| !a.host().is_empty() && !a.as_str().contains('@'))
}

/// Listens on an address with a queue that outlasts a burst of connections.
pub(crate) fn bind(address: std::net::SocketAddr) -> std::io::Result<TcpListener> {
    use tokio::net::TcpSocket;
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As the standard library does: on Windows the option means another thing.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

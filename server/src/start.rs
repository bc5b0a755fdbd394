//! The composition: opens the stores, loads the fleet, starts the jobs and listens; and stops them
//! in order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{App, CoreError, Opened, claim, create_private, open, run_writer};
use tidegate_protocol::error_chain;
use tidegate_web::connections::{Connections, Limits};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::config::Settings;
use crate::listen::{self, Door};
use crate::tls::{self, TlsError};
use crate::{descriptors, health, router};

/// Reason a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A component failed.
    #[error("{0}")]
    Service(String),
    /// The address cannot be bound.
    #[error("cannot listen on {0}: {1}; is another server running there? choose another with {2}")]
    Listen(SocketAddr, std::io::Error, &'static str),
    /// Secrets would go over the network in the clear.
    #[error(
        "{0} is reached from beyond this machine, and without TLS everybody on the way reads the tokens of \
         people and the tickets of devices: serve TLS with --tls-cert and --tls-key; or listen on 127.0.0.1 \
         for a proxy on this machine that serves it; or, if the proxy is on another one or the network itself \
         is private, pass --allow-plain-http (TIDEGATE_ALLOW_PLAIN_HTTP=true)"
    )]
    PlainHttp(SocketAddr),
    /// TLS cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The data folder cannot be written.
    #[error("cannot write {0}: {1}")]
    Data(String, std::io::Error),
}

impl From<CoreError> for StartError {
    fn from(error: CoreError) -> Self {
        Self::Service(error_chain(&error))
    }
}

/// A running server.
pub struct Running {
    /// Address it listens on.
    pub address: SocketAddr,
    /// Address of the metrics endpoint; `None` if it is not served.
    pub metrics_address: Option<SocketAddr>,
    /// Token of the first administrator; `None` if it was created at an earlier start.
    pub first_token: Option<String>,
    app: Arc<App>,
    tasks: TaskTracker,
    writing: tokio::task::JoinHandle<()>,
    /// Lock of a database that is for one server.
    claimed: Option<std::fs::File>,
}

/// Grace period for requests in progress when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Descriptors that the metrics endpoint may take; Prometheus needs a few.
const METRICS_FILES: u64 = 128;

/// Starts a server: opens its stores, loads the fleet and listens.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    if settings.tls.is_none() && !settings.plain_http && !is_loopback(settings.listen.ip()) {
        return Err(StartError::PlainHttp(settings.listen));
    }
    // The S3 client and PostgreSQL over TLS share one provider. An error means it is already
    // installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let open_files = descriptors::raise();
    // Before anything is made: where the address is taken, the first start leaves nothing behind,
    // and the next one prints the first token.
    let listener = listen(settings.listen, "--listen")?;
    let metrics_listener = match settings.metrics_listen {
        Some(address) => Some(listen(address, "--metrics-listen")?),
        None => None,
    };
    let address = listener
        .local_addr()
        .map_err(|e| StartError::Listen(settings.listen, e, "--listen"))?;
    let metrics_address = metrics_listener.as_ref().and_then(|l| l.local_addr().ok());
    create_private(&settings.data)
        .map_err(|e| StartError::Data(settings.data.display().to_string(), e))?;
    let claimed = claim(&settings.database)?;
    let token_file = settings.data.join("admin.token");
    let keep = |secret: &str| write_secret(&token_file, secret);
    let Opened {
        app,
        queue,
        first_token,
    } = open(settings.core(), &settings.database, &settings.blobs, keep).await?;
    let tasks = TaskTracker::new();
    let writing = tokio::spawn(run_writer(app.clone(), queue));
    tidegate_jobs::spawn(&app, &tasks);
    let router = router::router(app.clone(), settings.max_requests)
        .map_err(|e| StartError::Service(format!("the API's document: {e}")))?;
    let tls = match &settings.tls {
        None => None,
        Some(tls) => Some(tls::acceptor(tls.clone(), app.stopping().clone())?),
    };
    let open = |listener, tls, router, limits| {
        let door = Door {
            listener,
            tls,
            router,
            connections: Connections::new(limits),
            patience: settings.patience,
        };
        tasks.spawn(door.run(tasks.clone(), app.stopping().clone()));
    };
    let limits = Limits::within(open_files, settings.trusted_proxies.clone());
    open(listener, tls, router, limits);
    if let Some(listener) = metrics_listener {
        let limits = Limits::within(METRICS_FILES, Vec::new());
        open(listener, None, health::router(app.clone()), limits);
    }
    tracing::info!(%address, devices = app.devices_known(), origin = app.origin(), "server runs");
    Ok(Running {
        address,
        metrics_address,
        first_token,
        app,
        tasks,
        writing,
        claimed,
    })
}

impl Running {
    /// Shared state, for tests that look inside.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Stops the server: takes no new requests, answers held ones and flushes pending writes.
    pub async fn stop(self) {
        self.app.stopping().cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(DRAIN, self.tasks.wait()).await;
        // Stop the writing task last: requests may use it until here.
        self.writing.abort();
        let _ = self.app.flush_heartbeats().await;
        self.app.close().await;
        drop(self.claimed);
        tracing::info!("server stopped");
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn listen(address: SocketAddr, option: &'static str) -> Result<TcpListener, StartError> {
    listen::bind(address).map_err(|e| StartError::Listen(address, e, option))
}

/// Writes a secret to a file that only its owner can read.
fn write_secret(path: &std::path::Path, secret: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    // A file that is there keeps its mode when it is opened.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    writeln!(file, "{secret}")?;
    file.sync_all()
}

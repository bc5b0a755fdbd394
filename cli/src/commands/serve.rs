//! `serve`, `migrate`, `healthcheck`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use tidegate_server::config::{
    BlobSettings, Clock, DeviceSettings, JobSettings, Network, Patience, PublicUrl, Settings,
};
use tidegate_server::tls::TlsSettings;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::api::{Api, Channel};
use crate::error::CliError;
use crate::log::Lines;
use crate::options::{duration, some_time};
use crate::output::line;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct DatabaseArgs {
    /// `sqlite:PATH` or `postgres://...`; defaults to SQLite in the data folder.
    #[arg(
        long,
        env = "TIDEGATE_DATABASE",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) database: Option<String>,
    /// Folder for the database, the blobs and the first token.
    #[arg(
        long,
        env = "TIDEGATE_DATA",
        default_value = "tidegate-data",
        value_name = "DIR"
    )]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// Address to listen on for people and devices.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "127.0.0.1:8420")]
    pub(crate) listen: SocketAddr,
    /// Serve TLS with this certificate chain (PEM); renewed files are picked up automatically.
    #[arg(
        long,
        env = "TIDEGATE_TLS_CERT",
        value_name = "PEM",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(
        long,
        env = "TIDEGATE_TLS_KEY",
        value_name = "PEM",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// Also accept clients that only support TLS 1.2.
    #[arg(long, env = "TIDEGATE_TLS12")]
    pub(crate) tls12: bool,
    /// Address to listen on for Prometheus (/metrics); off by default.
    #[arg(long, env = "TIDEGATE_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Blob store: a folder, or s3://bucket/prefix (credentials from the AWS environment
    /// variables).
    #[arg(long, env = "TIDEGATE_BLOBS", value_name = "PLACE")]
    pub(crate) blobs: Option<String>,
    /// Address that devices have, where a proxy in front changes Host; may be repeated. Requests that a
    /// device has signed for another address are refused.
    #[arg(
        long = "public-url",
        env = "TIDEGATE_PUBLIC_URLS",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub(crate) public_urls: Vec<PublicUrl>,
    /// Clients that blobs and metadata are served to: everyone, or enrolled devices and operators alone.
    #[arg(long, env = "TIDEGATE_BLOBS_FOR", default_value = "everyone")]
    pub(crate) blobs_for: BlobsFor,
    /// Interval between check-ins of a device.
    #[arg(long, env = "TIDEGATE_POLL", default_value = "60s", value_parser = some_time)]
    pub(crate) poll: Duration,
    /// Mirror from which devices may fetch payloads, an address with or without a folder; may be
    /// repeated, best first. Blobs are under /blobs/ there, as here.
    #[arg(
        long = "mirror",
        env = "TIDEGATE_MIRRORS",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub(crate) mirrors: Vec<String>,
    /// Largest artifact that may be uploaded, in MiB.
    #[arg(long, default_value_t = 8_192, value_name = "MIB", value_parser = mebibytes())]
    pub(crate) max_upload: u64,
    /// Maximum number of concurrent requests, held check-ins included; beyond it the answer is 429.
    #[arg(long, default_value_t = 200_000, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) max_requests: usize,
    /// Proxy in front of the server, an address or a network such as 10.1.0.0/16; may be repeated.
    /// The client's address in its X-Forwarded-For is believed, and many clients may come from it.
    #[arg(
        long = "trusted-proxy",
        env = "TIDEGATE_TRUSTED_PROXIES",
        value_name = "NETWORK",
        value_delimiter = ','
    )]
    pub(crate) trusted_proxies: Vec<Network>,
    /// Time over which held check-ins are answered when the plan changes and many are held.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) wake_ramp: Duration,
    /// Maximum memory of one delta build, in MiB; larger images get no delta, and archives with
    /// larger members are compared while packed.
    #[arg(long, default_value_t = 2_048, value_name = "MIB", value_parser = mebibytes())]
    pub(crate) delta_memory: u64,
    /// Number of threads of a delta build; the other cores are left to serve devices.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) delta_threads: u16,
    /// Log format: text or JSON. RUST_LOG selects what is logged.
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Exit when standard input is closed, for a parent process that may die.
    #[arg(long, hide = true)]
    pub(crate) exit_with_stdin: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BlobsFor {
    Everyone,
    Enrolled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// The server to ask; defaults to the one that listens on this machine, as `serve` would with
    /// the same environment.
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Address that the server listens on.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "127.0.0.1:8420")]
    pub(crate) listen: SocketAddr,
    /// Certificate with which the server serves TLS, if it does.
    #[arg(long, env = "TIDEGATE_TLS_CERT", value_name = "PEM")]
    pub(crate) tls_cert: Option<PathBuf>,
}

impl DatabaseArgs {
    /// Address of the database.
    pub(crate) fn url(&self) -> String {
        let file = || format!("sqlite:{}", self.data.join("tidegate.db").display());
        self.database.clone().unwrap_or_else(file)
    }
}

fn database(args: &DatabaseArgs) -> Result<String, CliError> {
    tidegate_server::create_private(&args.data)
        .map_err(|e| CliError::Failed(format!("{}: {e}", args.data.display())))?;
    Ok(args.url())
}

/// Builds the server's settings from the options.
pub(crate) fn settings(args: &ServeArgs, plain_http: bool) -> Result<Settings, CliError> {
    let data = &args.database.data;
    Ok(Settings {
        listen: args.listen,
        tls: match (&args.tls_cert, &args.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsSettings {
                certificate: certificate.clone(),
                key: key.clone(),
                allow_tls12: args.tls12,
            }),
            _ => None,
        },
        plain_http,
        metrics_listen: args.metrics_listen,
        database: database(&args.database)?,
        blobs: match &args.blobs {
            Some(place) => blobs(place)?,
            None => BlobSettings::Folder(data.join("blobs")),
        },
        data: data.clone(),
        devices: DeviceSettings {
            poll: args.poll,
            wake_ramp: args.wake_ramp,
            mirrors: mirrors(&args.mirrors)?,
            public_urls: public_urls(&args.public_urls)?,
            closed: args.blobs_for == BlobsFor::Enrolled,
            ..DeviceSettings::default()
        },
        jobs: JobSettings {
            delta_memory: args.delta_memory << 20,
            delta_threads: args.delta_threads.into(),
            ..JobSettings::default()
        },
        max_upload: args.max_upload << 20,
        max_requests: args.max_requests,
        trusted_proxies: args.trusted_proxies.clone(),
        patience: Patience::default(),
        clock: Clock::System,
    })
}

/// Parses a number of MiB whose bytes can be counted.
fn mebibytes() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::<u64>::new().range(1..=u64::MAX >> 20)
}

/// Parses the place of the blobs; refuses an address that is none.
fn blobs(place: &str) -> Result<BlobSettings, CliError> {
    let settings = BlobSettings::parse(place);
    let is_bad = match &settings {
        BlobSettings::Folder(_) => {
            place.is_empty() || place.contains("://") || place.starts_with("s3:")
        }
        BlobSettings::S3 { bucket, .. } => bucket.is_empty(),
    };
    if is_bad {
        return Err(CliError::Usage(format!(
            "--blobs {place}: expected a folder, or s3://bucket/prefix"
        )));
    }
    Ok(settings)
}

/// Checks the number of the server's addresses.
fn public_urls(urls: &[PublicUrl]) -> Result<Vec<PublicUrl>, CliError> {
    if urls.len() > PublicUrl::MOST {
        let most = PublicUrl::MOST;
        return Err(CliError::Usage(format!(
            "--public-url: at most {most} addresses"
        )));
    }
    Ok(urls.to_vec())
}

/// Checks the addresses of mirrors and strips trailing slashes.
fn mirrors(texts: &[String]) -> Result<Vec<String>, CliError> {
    texts
        .iter()
        .map(|text| {
            let text = text.trim().trim_end_matches('/');
            let rest = text
                .strip_prefix("https://")
                .or_else(|| text.strip_prefix("http://"));
            match rest {
                Some(rest) if !rest.is_empty() && !rest.contains(['?', '#', '@', ' ']) => {
                    Ok(text.to_owned())
                }
                _ => Err(CliError::Usage(format!(
                    "--mirror {text}: expected http(s)://host[:port][/folder]"
                ))),
            }
        })
        .collect()
}

fn start_log(format: LogFormat) {
    // RUST_LOG has its usual form: `info`, or `warn,tidegate_server=debug`.
    let filter: Targets = std::env::var("RUST_LOG")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = match format {
        LogFormat::Text => Lines::Text,
        LogFormat::Json => Lines::Json,
    };
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .event_format(lines);
    tracing_subscriber::registry()
        .with(log.with_filter(filter))
        .init();
}

/// Runs the control plane until it is asked to stop.
pub(crate) async fn serve(args: ServeArgs, plain_http: bool) -> Result<(), CliError> {
    start_log(args.log_format);
    let settings = settings(&args, plain_http)?;
    let token_file = settings.data.join("admin.token");
    let scheme = if settings.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let running = tidegate_server::start(settings)
        .await
        .map_err(|e| CliError::failed("the server failed to start", &e))?;
    // A server whose output goes to a full disk serves all the same.
    let _ = line(&format!(
        "tidegate listens on {scheme}://{}",
        running.address
    ));
    if let Some(metrics) = running.metrics_address {
        let _ = line(&format!("metrics on http://{metrics}/metrics"));
    }
    if running.first_token.is_some() {
        let _ = line(&format!(
            "first start: an administrator's token is in {}\n  next: tidegate login {} --token-file {}",
            token_file.display(),
            own_address(running.address, scheme == "https"),
            token_file.display(),
        ));
    }
    tidegate_agent::asked_to_stop(args.exit_with_stdin).await;
    running.stop().await;
    Ok(())
}

/// Brings the schema up to date, then exits.
pub(crate) async fn migrate(args: DatabaseArgs) -> Result<(), CliError> {
    tidegate_server::migrate(&database(&args)?)
        .await
        .map_err(|e| CliError::failed("the database", &e))?;
    line("the schema is up to date")
}

/// Asks a server whether it is ready.
pub(crate) async fn healthcheck(
    args: HealthcheckArgs,
    ca_file: Option<&Path>,
) -> Result<(), CliError> {
    let api = match &args.url {
        Some(url) => {
            // No token is sent.
            let channel = Channel {
                ca_file: ca_file.map(Path::to_owned),
                plain_http: true,
            };
            Api::over(url, "", &channel)?
        }
        None => Api::of_own_server(&own_address(args.listen, args.tls_cert.is_some()))?,
    };
    api.get::<serde_json::Value>("/readyz").await.map(drop)
}

/// Address at which a server that listens on `listen` is reached from its own machine.
fn own_address(mut listen: SocketAddr, tls: bool) -> String {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{listen}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_health_check_asks_where_the_server_listens() {
        for (listen, tls, address) in [
            ("0.0.0.0:8420", false, "http://127.0.0.1:8420"),
            ("[::]:9000", true, "https://[::1]:9000"),
            ("10.1.2.3:80", false, "http://10.1.2.3:80"),
        ] {
            assert_eq!(own_address(listen.parse().unwrap(), tls), address);
        }
    }
}

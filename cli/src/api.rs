//! Client of the API for the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_api::Page;
use tidegate_delta::Hasher;
use tidegate_protocol::{Problem, Sha256, is_loopback};

use crate::error::CliError;
use crate::pages::Pages;

/// Longest answer that is read as JSON, in bytes: a page of a list has a few hundred KiB.
const MOST_JSON: usize = 64 << 20;

/// Adds the parameters that are given to a path.
pub(crate) fn with_query(path: &str, pairs: &[(&str, Option<String>)]) -> Result<String, CliError> {
    let given = pairs
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    // The address is not used: only what its query is written like.
    let url = reqwest::Url::parse_with_params("http://server/", given)
        .map_err(|e| CliError::failed("the address", &e))?;
    Ok(match url.query() {
        None | Some("") => path.to_owned(),
        Some(query) => format!("{path}?{query}"),
    })
}

/// TLS configuration that trusts no certificate.
fn without_authorities() -> rustls::ClientConfig {
    rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// Address of a server, which is `http://` or `https://`.
fn address(server: &str) -> Result<reqwest::Url, CliError> {
    let url = reqwest::Url::parse(server).ok();
    let is_plain = |url: &reqwest::Url| {
        let bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        bare && matches!(url.scheme(), "http" | "https") && url.has_host()
    };
    url.filter(is_plain).ok_or_else(|| {
        CliError::Usage(format!(
            "{server} is not the address of a server: expected https://host[:port][/folder]"
        ))
    })
}

/// Protection of the way to a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Channel {
    /// The server's certificate authority (PEM); `None` for the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// Whether the token may leave this machine unencrypted.
    pub(crate) plain_http: bool,
}

/// A server and a token.
#[derive(Clone)]
pub(crate) struct Api {
    server: String,
    token: String,
    http: reqwest::Client,
}

impl Api {
    /// Creates a client for a server on this machine, or one that serves TLS.
    pub(crate) fn new(server: &str, token: &str) -> Result<Self, CliError> {
        Self::over(server, token, &Channel::default())
    }

    /// Creates a client for a server. One that would show the token to others is refused: nothing is
    /// sent before.
    pub(crate) fn over(server: &str, token: &str, channel: &Channel) -> Result<Self, CliError> {
        let url = address(server)?;
        let mut builder = reqwest::Client::builder();
        if url.scheme() == "http" {
            // Plain HTTP must work on a machine without any certificate authority, like a bare
            // container.
            builder = builder.tls_backend_preconfigured(without_authorities());
            if url.host_str().is_some_and(is_loopback) {
                // A proxy would take the token off the machine.
                builder = builder.no_proxy();
            } else if !token.is_empty() && !channel.plain_http {
                return Err(CliError::Hinted(
                    format!(
                        "{server} is plain http, which shows your token to everybody on the way; nothing was sent"
                    ),
                    "use https://, or pass --allow-plain-http where the network itself is private"
                        .into(),
                ));
            }
        } else if let Some(path) = &channel.ca_file {
            let failed =
                |e: &dyn std::fmt::Display| CliError::Failed(format!("{}: {e}", path.display()));
            let pem = std::fs::read(path).map_err(|e| failed(&e))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| failed(&e))?;
            builder = builder.tls_certs_only(roots);
        }
        let http = builder
            .connect_timeout(Duration::from_secs(10))
            // A redirect could lead to plain HTTP or to somebody else, with the token.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| CliError::failed("HTTP", &e))?;
        Ok(Self {
            server: server.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            http,
        })
    }

    /// Creates a client for the health check of a server on this machine. Any certificate is
    /// accepted: the connection does not leave the machine, and the certificate is for the name
    /// that others call the server by. It sends no token.
    pub(crate) fn of_own_server(server: &str) -> Result<Self, CliError> {
        if !server.starts_with("https:") {
            return Self::new(server, "");
        }
        let http = reqwest::Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| CliError::failed("HTTP", &e))?;
        Ok(Self {
            server: server.trim_end_matches('/').to_owned(),
            token: String::new(),
            http,
        })
    }

    /// The server's address.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server));
        if self.token.is_empty() {
            request
        } else {
            request.bearer_auth(&self.token)
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, CliError> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let id = response
            .headers()
            .get("x-request-id")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let text = response.text().await.unwrap_or_default();
        match serde_json::from_str::<Problem>(&text) {
            Ok(problem) => Err(CliError::Problem(Box::new(Problem {
                request_id: id,
                ..problem
            }))),
            Err(_) => Err(CliError::Failed(format!(
                "{} answered {status}",
                self.server
            ))),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        CliError::Unreachable {
            server: self.server.clone(),
            cause: cause.to_string(),
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        mut response: reqwest::Response,
    ) -> Result<T, CliError> {
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            if body.len() + bytes.len() > MOST_JSON {
                return Err(CliError::Failed(format!(
                    "the server's answer is longer than {} MiB",
                    MOST_JSON >> 20
                )));
            }
            body.extend_from_slice(&bytes);
        }
        serde_json::from_slice(&body)
            .map_err(|e| CliError::failed("cannot parse the server's answer", &e))
    }

    /// GET.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let response = self
            .send(
                self.request(Method::GET, path)
                    .timeout(Duration::from_secs(30)),
            )
            .await?;
        self.json(response).await
    }

    /// GET, as bytes; `None` when the server answers 404.
    pub(crate) async fn get_bytes(&self, path: &str) -> Result<Option<Vec<u8>>, CliError> {
        match self
            .send(
                self.request(Method::GET, path)
                    .timeout(Duration::from_secs(30)),
            )
            .await
        {
            Ok(response) => {
                let bytes = response.bytes().await.map_err(|e| self.unreachable(&e))?;
                Ok(Some(bytes.to_vec()))
            }
            Err(CliError::Problem(p)) if p.status == StatusCode::NOT_FOUND.as_u16() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// GET into a file, in constant memory; fails if the bytes do not match the hash. Returns their
    /// number.
    pub(crate) async fn save(
        &self,
        path: &str,
        to: &Path,
        sha256: Sha256,
    ) -> Result<u64, CliError> {
        use std::io::Write as _;
        let failed = |e: &dyn std::fmt::Display| CliError::Failed(format!("{}: {e}", to.display()));
        let mut response = self.send(self.request(Method::GET, path)).await?;
        let mut file = std::fs::File::create(to).map_err(|e| failed(&e))?;
        let mut hasher = Hasher::new();
        while let Some(bytes) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            hasher.update(&bytes);
            file.write_all(&bytes).map_err(|e| failed(&e))?;
        }
        let image = hasher.finish();
        if image.sha256 != sha256 {
            return Err(failed(&"the server sent bytes that do not match the hash"));
        }
        Ok(image.length)
    }

    /// Fetches every item of a list, page by page; a list that does not end is refused.
    pub(crate) async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, CliError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        let mut pages = Pages::default();
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let page = match &cursor {
                None => format!("{path}{sign}limit=200"),
                Some(cursor) => format!("{path}{sign}limit=200&cursor={cursor}"),
            };
            let page: Page<T> = self.get(&page).await?;
            let found = page.items.len();
            items.extend(page.items);
            let Some(next) = page.next_cursor else {
                return Ok(items);
            };
            pages.follow(found, &next)?;
            cursor = Some(next);
        }
    }

    /// POST.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let request = self
            .request(Method::POST, path)
            .json(body)
            .timeout(Duration::from_mins(1));
        let response = self.send(request).await?;
        self.json(response).await
    }

    /// POST whose answer has no body.
    pub(crate) async fn post_empty(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), CliError> {
        let request = self
            .request(Method::POST, path)
            .json(body)
            .timeout(Duration::from_mins(1));
        self.send(request).await.map(drop)
    }

    /// PATCH.
    pub(crate) async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let request = self
            .request(Method::PATCH, path)
            .json(body)
            .timeout(Duration::from_mins(1));
        let response = self.send(request).await?;
        self.json(response).await
    }

    /// PUT.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let request = self
            .request(Method::PUT, path)
            .json(body)
            .timeout(Duration::from_mins(1));
        let response = self.send(request).await?;
        self.json(response).await
    }

    /// POST that creates something once, however often the request is sent (idempotency key).
    pub(crate) async fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let key = format!("cli-{:032x}", rand::random::<u128>());
        let request = || {
            self.request(Method::POST, path)
                .json(body)
                .header("idempotency-key", &key)
                .timeout(Duration::from_mins(1))
        };
        let response = match self.send(request()).await {
            // The answer may have been lost on the way: retry once, with the same key.
            Err(CliError::Unreachable { .. }) => self.send(request()).await?,
            other => other?,
        };
        self.json(response).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), CliError> {
        self.send(
            self.request(Method::DELETE, path)
                .timeout(Duration::from_secs(30)),
        )
        .await
        .map(drop)
    }

    /// PUT of a stream.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        length: u64,
        body: reqwest::Body,
    ) -> Result<T, CliError> {
        let request = self
            .request(Method::PUT, path)
            .header(reqwest::header::CONTENT_LENGTH, length)
            .body(body);
        let response = self.send(request).await?;
        self.json(response).await
    }
}

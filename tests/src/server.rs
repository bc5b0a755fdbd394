//! A control plane in its own process, with helpers that act as its operators.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tidegate_server::config::{
    BlobSettings, Clock, DeviceSettings, JobSettings, Patience, Settings,
};

use crate::{application, binary, eventually};

/// Database of a server.
#[derive(Debug, Clone)]
pub enum Database {
    /// A file in its data folder.
    Sqlite,
    /// A PostgreSQL database by address.
    Postgres(String),
}

/// Settings of a server in this process, with SQLite in a folder and no address of its own.
pub fn settings(data: &Path) -> Settings {
    Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        plain_http: false,
        metrics_listen: None,
        database: format!("sqlite:{}", data.join("tidegate.db").display()),
        blobs: BlobSettings::Folder(data.join("blobs")),
        data: data.to_owned(),
        devices: DeviceSettings::default(),
        jobs: JobSettings::default(),
        max_upload: 1 << 30,
        max_requests: 1_000,
        trusted_proxies: Vec::new(),
        patience: Patience::default(),
        clock: Clock::System,
    }
}

/// A running control plane with a folder, keys and an administrator.
pub struct Server {
    /// Address it listens on.
    pub url: String,
    /// Address of its metrics, if `--metrics-listen` is among its options.
    pub metrics: String,
    /// Folder for everything in this test.
    pub dir: tempfile::TempDir,
    /// The administrator's token.
    pub token: String,
    http: reqwest::Client,
    child: Option<Child>,
    database: Database,
    data: PathBuf,
    port: u16,
    /// Additional options of `serve`.
    options: Vec<String>,
    /// Hard limit of open files, if it has one of its own.
    open_files: Option<u32>,
    /// Level of its log, if not the usual one.
    log_level: Option<String>,
}

impl Server {
    /// Starts a server on SQLite.
    pub async fn start() -> Self {
        Self::start_on(Database::Sqlite).await
    }

    /// Starts a server on a database.
    pub async fn start_on(database: Database) -> Self {
        Self::start_with(database, &[]).await
    }

    /// Starts a server with additional options, which may make it serve TLS.
    pub async fn start_with(database: Database, options: &[&str]) -> Self {
        Self::start_in(database, options, None).await
    }

    /// Starts a server that may open this many files.
    pub async fn start_limited(database: Database, open_files: u32) -> Self {
        Self::start_in(database, &[], Some(open_files)).await
    }

    #[expect(clippy::unused_async, reason = "like everything else of a server")]
    async fn start_in(database: Database, options: &[&str], open_files: Option<u32>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut server = Self {
            url: String::new(),
            token: String::new(),
            http: reqwest::Client::new(),
            child: None,
            database,
            data,
            metrics: String::new(),
            port: 0,
            options: options.iter().map(ToString::to_string).collect(),
            open_files,
            log_level: None,
            dir,
        };
        server.launch();
        let token = std::fs::read_to_string(server.data.join("admin.token")).unwrap();
        server.token = token.trim().into();
        server
    }

    /// Starts another replica on the same database and blobs.
    pub fn replica(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self {
            url: String::new(),
            token: self.token.clone(),
            http: self.http.clone(),
            child: None,
            database: self.database.clone(),
            data: self.data.clone(),
            metrics: String::new(),
            port: 0,
            options: self.options.clone(),
            open_files: self.open_files,
            log_level: self.log_level.clone(),
            dir,
        };
        server.launch();
        server
    }

    fn launch(&mut self) {
        std::fs::create_dir_all(&self.data).unwrap();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data.join("server.log"))
            .unwrap();
        let mut command = match self.open_files {
            None => Command::new(binary("tidegate")),
            Some(limit) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {limit} && exec \"$@\"");
                shell.args(["-c", &script, "sh"]).arg(binary("tidegate"));
                shell
            }
        };
        command
            .args(["serve", "--exit-with-stdin"])
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .arg("--data")
            .arg(&self.data)
            .args(&self.options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        if !self.options.iter().any(|option| option == "--poll") {
            command.args(["--poll", "1s"]);
        }
        if let Database::Postgres(url) = &self.database {
            command.env("TIDEGATE_DATABASE", url);
        }
        if let Some(level) = &self.log_level {
            command.env("RUST_LOG", level);
        }
        let mut child = command.spawn().unwrap();
        let mut first = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut first).unwrap();
        if self.options.iter().any(|o| o == "--metrics-listen") {
            let mut second = String::new();
            lines.read_line(&mut second).unwrap();
            self.metrics = second.trim().rsplit(' ').next().unwrap_or_default().into();
        }
        self.url = first.trim().rsplit(' ').next().unwrap_or_default().into();
        assert!(
            self.url.starts_with("http"),
            "the server did not start: {}",
            self.log()
        );
        // Keep the port for a restart: agents know the address.
        self.port = self.url.rsplit(':').next().unwrap().parse().unwrap();
        self.child = Some(child);
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Starts again with another level of its log.
    pub fn log_at(&mut self, level: &str) {
        self.log_level = Some(level.into());
        self.restart();
    }

    /// Returns its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("server.log")).unwrap_or_default()
    }

    /// Path of a stored blob.
    pub fn blob(&self, sha256: &str) -> PathBuf {
        self.data.join("blobs").join(&sha256[..2]).join(sha256)
    }

    /// Folder of the signing keys.
    pub fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    /// Runs the command line as the administrator; returns its standard output.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.cli_raw(arguments);
        assert_eq!(code, 0, "tidegate {arguments:?}: {err}");
        out
    }

    /// Runs the command line; returns exit code, standard output and standard error.
    pub fn cli_raw(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(binary("tidegate"))
            .args(arguments)
            .env("TIDEGATE_SERVER", &self.url)
            .env("TIDEGATE_TOKEN", &self.token)
            .env("TIDEGATE_KEYS", self.keys())
            // No saved profile of anybody's.
            .env("HOME", self.dir.path())
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// Creates keys and publishes releases of the product `app`, each generally available. Returns
    /// the tree of each.
    pub fn publish(&self, releases: &[(&str, bool)]) -> Vec<PathBuf> {
        if !self.keys().exists() {
            self.cli(&["keys", "init", "--no-passphrase"]);
        }
        releases
            .iter()
            .map(|(version, healthy)| {
                let tree = application(self.dir.path(), version, *healthy);
                self.publish_tree(&tree, version, &[]);
                tree
            })
            .collect()
    }

    /// Publishes a tree, generally available, with additional options.
    pub fn publish_tree(&self, tree: &Path, version: &str, options: &[&str]) {
        let tree = tree.display().to_string();
        let mut arguments = vec!["release", "publish", &tree, "--product", "app"];
        arguments.extend(["--release", version, "--health-cmd", "health.sh"]);
        arguments.extend(["--health-timeout", "20s"]);
        arguments.extend(options);
        self.cli(&arguments);
        self.cli(&[
            "release", "promote", "app", version, "--to", "ga", "--reason", "test",
        ]);
    }

    /// Publishes one file as it is, and promotes it.
    pub fn publish_raw(&self, file: &Path, version: &str, health: &str) {
        let file = file.display().to_string();
        self.cli(&[
            "release",
            "publish",
            &file,
            "--format",
            "raw",
            "--product",
            "app",
            "--release",
            version,
            "--health-cmd",
            health,
        ]);
        self.cli(&[
            "release", "promote", "app", version, "--to", "ga", "--reason", "test",
        ]);
    }

    /// Waits until no payload of a release is being built any more.
    pub async fn built(&self, version: &str) {
        eventually("payloads are built", async || {
            let list = self
                .get(&format!("/api/v1/products/app/releases/{version}/deltas"))
                .await;
            let building = |p: &Value| p["state"] == "building";
            (!list.as_array().unwrap().iter().any(building)).then_some(())
        })
        .await;
    }

    /// Makes a token on the server's host; returns exit code, standard output and standard error.
    pub fn rescue(&self, name: &str, role: &str) -> (i32, String, String) {
        let data = self.data.display().to_string();
        let mut arguments = vec!["token", "rescue", name, "--role", role, "--data", &data];
        if let Database::Postgres(url) = &self.database {
            arguments.extend(["--database", url]);
        }
        self.cli_raw(&arguments)
    }

    /// Makes a token on the server's host, of a person of their own; returns its secret once the
    /// server knows it.
    pub async fn person(&self, name: &str, role: &str) -> String {
        let (code, out, err) = self.rescue(name, role);
        assert_eq!(code, 0, "token rescue {name}: {err}");
        let secret = out.trim().to_owned();
        eventually("the server knows who came in", async || {
            let (status, _) = self.call("GET", "/api/v1/whoami", None, &secret).await;
            (status == 200).then_some(())
        })
        .await;
        secret
    }

    /// Creates a join token for any number of devices.
    pub fn join_token(&self) -> String {
        let token = self.cli(&["device", "join-token", "--product", "app", "--uses", "1000"]);
        token.trim().to_owned()
    }

    /// GET of JSON; panics unless it succeeds.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None, &self.token).await;
        assert!((200..300).contains(&status), "GET {path}: {status} {body}");
        body
    }

    /// POST of JSON; panics unless it succeeds.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call("POST", path, Some(body), &self.token).await;
        assert!(
            (200..300).contains(&status),
            "POST {path}: {status} {answer}"
        );
        answer
    }

    /// Sends any request; returns status and body.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        token: &str,
    ) -> (u16, Value) {
        let mut request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .timeout(crate::PATIENCE);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// Starts a rollout with one wave per region and quick settings; returns its id.
    pub async fn roll_out(&self, release: &str, regions: &[&str], change: Value) -> String {
        self.roll_out_accepting(0, release, regions, change).await
    }

    /// Starts a rollout after which `accepted` devices cannot be ordered back.
    pub async fn roll_out_accepting(
        &self,
        accepted: u64,
        release: &str,
        regions: &[&str],
        change: Value,
    ) -> String {
        let waves: Vec<Value> = regions
            .iter()
            .map(|r| json!({ "name": r, "selector": format!("region={r}") }))
            .collect();
        let mut body = json!({
            "product": "app", "release": release, "waves": waves,
            "soak_s": 0, "pace_start": 0, "rollback_window_s": 0,
        });
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        let draft = self.post("/api/v1/rollouts", body).await;
        let id = draft["id"].as_str().unwrap().to_owned();
        let order = json!({ "accept_no_way_back": accepted });
        self.post(&format!("/api/v1/rollouts/{id}/start"), order)
            .await;
        id
    }

    /// Waits until a rollout has a state; returns the rollout.
    pub async fn rollout_is(&self, id: &str, state: &str) -> Value {
        eventually(&format!("rollout is {state}"), async || {
            let rollout = self.get(&format!("/api/v1/rollouts/{id}")).await;
            (rollout["state"] == state).then_some(rollout)
        })
        .await
    }

    /// Returns the deployments of a rollout.
    pub async fn deployments(&self, id: &str) -> Vec<Value> {
        let page = self
            .get(&format!("/api/v1/rollouts/{id}/deployments?limit=200"))
            .await;
        page["items"].as_array().unwrap().clone()
    }

    /// Returns every device.
    pub async fn devices(&self) -> Vec<Value> {
        self.get("/api/v1/devices?limit=200").await["items"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// Waits until every device runs a release and has nothing under way.
    pub async fn all_run(&self, release: &str) {
        eventually(&format!("all run {release}"), async || {
            let there = |d: &Value| d["release"] == release && d["state"].is_null();
            self.devices().await.iter().all(there).then_some(())
        })
        .await;
    }
}

impl Server {
    /// Prints the server's own explanation of why nothing happens, the first question after a
    /// failed test.
    fn say_why(&self) {
        if self.child.is_none() {
            return;
        }
        let rollouts = self.cli_raw(&["rollout", "list"]).1;
        eprintln!("--- rollouts ---\n{rollouts}");
        let (_, devices, _) = self.cli_raw(&["device", "list", "-o", "json"]);
        let devices: Value = serde_json::from_str(&devices).unwrap_or_default();
        for device in devices["items"].as_array().into_iter().flatten().take(20) {
            let name = device["name"].as_str().unwrap_or_default();
            let why = self.cli_raw(&["device", "why", name]).1;
            eprintln!("--- why {name} ---\n{why}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.say_why();
        }
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- server log ---\n{}", self.log());
        }
    }
}

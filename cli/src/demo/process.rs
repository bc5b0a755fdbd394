//! The demo's processes. They end with the demo, however it ends: they are killed on drop, and they
//! exit when their standard input, a pipe from the demo, is closed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::error::CliError;

/// Number of devices that enroll at once.
const ENROL_AT_ONCE: usize = 6;
/// Time a process may take to exit by itself.
const GRACE: Duration = Duration::from_secs(15);

fn this_program() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(|e| CliError::Failed(format!("finding this program: {e}")))
}

/// A running process with the pipe that keeps it alive.
struct Kept {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Kept {
    fn spawn(command: &mut Command) -> Result<Self, CliError> {
        command.stdin(Stdio::piped()).kill_on_drop(true);
        // The demo handles Ctrl-C itself: it stops its processes in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command
            .spawn()
            .map_err(|e| CliError::Failed(format!("starting a process: {e}")))?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }

    /// Closes the pipe and waits; kills the process if it does not exit in time.
    async fn stop(mut self) {
        drop(self.stdin.take());
        if tokio::time::timeout(GRACE, self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
    }
}

/// The control plane.
pub(super) struct Server {
    pub(super) url: String,
    process: Kept,
}

impl Server {
    /// Starts it on a free port and waits until it serves.
    pub(super) async fn start(data: &Path) -> Result<Self, CliError> {
        std::fs::create_dir_all(data)?;
        let log = std::fs::File::create(data.join("server.log"))?;
        let mut process = Kept::spawn(
            Command::new(this_program()?)
                .args([
                    "serve",
                    "--listen",
                    "127.0.0.1:0",
                    "--poll",
                    "1s",
                    "--exit-with-stdin",
                ])
                .arg("--data")
                .arg(data)
                .stdout(Stdio::piped())
                .stderr(log),
        )?;
        let failed = || {
            let log = std::fs::read_to_string(data.join("server.log")).unwrap_or_default();
            CliError::Failed(format!("the server did not start:\n{log}"))
        };
        let stdout = process.child.stdout.take().ok_or_else(failed)?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(GRACE * 2, lines.next_line()).await;
        let url = match first {
            Ok(Ok(Some(text))) => text.rsplit(' ').next().unwrap_or_default().to_owned(),
            _ => return Err(failed()),
        };
        // The rest of its output is drained, so that the pipe never fills.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { url, process })
    }

    /// Stops it cleanly.
    pub(super) async fn stop(self) {
        self.process.stop().await;
    }
}

struct Device {
    name: String,
    region: String,
    state: PathBuf,
}

/// The fleet.
pub(super) struct Agents {
    dir: PathBuf,
    devices: Vec<Device>,
    running: Vec<Kept>,
}

impl Agents {
    pub(super) fn new(dir: &Path) -> Result<Self, CliError> {
        std::fs::create_dir_all(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            devices: Vec::new(),
            running: Vec::new(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.devices.len()
    }

    pub(super) fn add(&mut self, name: &str, region: &str) {
        let state = self.dir.join(name);
        self.devices.push(Device {
            name: name.into(),
            region: region.into(),
            state,
        });
    }

    /// Enrolls each device, on a version that it has already installed.
    pub(super) async fn enroll(
        &self,
        url: &str,
        token: &str,
        product: &str,
        tree: &Path,
        version: &str,
    ) -> Result<(), CliError> {
        let program = this_program()?;
        futures::stream::iter(&self.devices)
            .map(|device| {
                let mut command = Command::new(&program);
                command
                    .args(["agent", "enroll", "--server", url, "--product", product])
                    .args(["--name", &device.name, "--region", &device.region])
                    .args(["--release", version])
                    .arg("--adopt")
                    .arg(tree)
                    .arg("--state")
                    .arg(&device.state)
                    // Not on the command line, where every user of the machine could read it.
                    .env("TIDEGATE_JOIN_TOKEN", token)
                    .stdin(Stdio::null())
                    .kill_on_drop(true);
                async move {
                    let output = command.output().await?;
                    if output.status.success() {
                        return Ok(());
                    }
                    let text = String::from_utf8_lossy(&output.stderr).into_owned();
                    Err(CliError::Failed(format!(
                        "{} did not enroll: {text}",
                        device.name
                    )))
                }
            })
            .buffer_unordered(ENROL_AT_ONCE)
            .try_collect()
            .await
    }

    /// Starts every agent.
    pub(super) fn run(&mut self) -> Result<(), CliError> {
        let program = this_program()?;
        for device in &self.devices {
            let log = std::fs::File::create(device.state.join("agent.log"))?;
            let process = Kept::spawn(
                Command::new(&program)
                    .args(["agent", "run", "--exit-with-stdin", "--state"])
                    .arg(&device.state)
                    .stdout(Stdio::null())
                    .stderr(log),
            )?;
            self.running.push(process);
        }
        Ok(())
    }

    /// Stops all agents at once.
    pub(super) async fn stop(self) {
        futures::future::join_all(self.running.into_iter().map(Kept::stop)).await;
    }
}

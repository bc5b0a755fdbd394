//! A device: an agent process with its own slots on disk.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{binary, eventually};

/// A device.
pub struct Device {
    /// Its name.
    pub name: String,
    /// The agent's folder.
    pub state: PathBuf,
    /// The agent's program: the one for this machine, or a wrapper that runs a foreign one here.
    pub agent: PathBuf,
    /// Path of its log; in its folder by default.
    pub log_file: PathBuf,
    child: Option<Child>,
}

/// Exit of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Exited by itself, with a code.
    Code(i32),
    /// Killed by a signal.
    Signal,
}

impl Device {
    /// Enrolls a device, with a version already installed if one is given; panics if that fails.
    pub fn enroll(
        dir: &Path,
        name: &str,
        url: &str,
        token: &str,
        region: &str,
        installed: Option<(&Path, &str)>,
    ) -> Self {
        let device = Self {
            name: name.into(),
            state: dir.join(name),
            agent: binary("tidegate-agent"),
            log_file: dir.join(name).join("agent.log"),
            child: None,
        };
        let (ok, text) = device.try_enroll(url, token, region, installed, &[]);
        assert!(ok, "{name} does not enroll: {text}");
        device
    }

    /// Creates a device that is not enrolled yet.
    pub fn blank(dir: &Path, name: &str) -> Self {
        Self {
            name: name.into(),
            state: dir.join(name),
            agent: binary("tidegate-agent"),
            log_file: dir.join(name).join("agent.log"),
            child: None,
        }
    }

    /// Tries to enroll; returns whether it worked, and the output.
    pub fn try_enroll(
        &self,
        url: &str,
        token: &str,
        region: &str,
        installed: Option<(&Path, &str)>,
        options: &[&str],
    ) -> (bool, String) {
        let mut command = Command::new(&self.agent);
        command
            .args([
                "enroll",
                "--server",
                url,
                "--token",
                token,
                "--product",
                "app",
            ])
            .args(["--region", region, "--name", &self.name])
            .args(options)
            .arg("--state")
            .arg(&self.state);
        if let Some((tree, version)) = installed {
            command
                .arg("--adopt")
                .arg(tree)
                .args(["--release", version]);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    }

    /// Starts the agent.
    pub fn run(&mut self) {
        self.run_with(&[]);
    }

    /// Starts the agent with additional environment variables.
    pub fn run_with(&mut self, environment: &[(&str, &str)]) {
        // Decoding speed on a busy machine must not affect a test: it could make the server choose
        // another payload.
        let measured = self.state.join("measured");
        if self.state.is_dir() && !measured.exists() {
            std::fs::write(measured, "20000").unwrap();
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log_file)
            .unwrap();
        let mut command = Command::new(&self.agent);
        command
            .args(["run", "--exit-with-stdin", "--state"])
            .arg(&self.state)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Process id of the running agent.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Kills the agent with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Returns how the agent exited, if it has.
    pub fn ended(&mut self) -> Option<Exit> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status.code().map_or(Exit::Signal, Exit::Code))
    }

    /// Runs `tidegate-agent status --json`.
    pub fn status(&self) -> Value {
        let output = Command::new(&self.agent)
            .args(["status", "--json", "--state"])
            .arg(&self.state)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Returns the version that is really in use, read from the disk.
    pub fn installed(&self) -> Option<String> {
        let current = self.state.join("current");
        // `current` is a small file where symbolic links are not available.
        let folder = match std::fs::read_to_string(&current) {
            Ok(slot) => self.state.join("slots").join(slot.trim()),
            Err(_) => current,
        };
        std::fs::read_to_string(folder.join("tree/VERSION")).ok()
    }

    /// Waits until the disk holds a version and the agent is idle.
    pub async fn settles_on(&self, version: &str) {
        eventually(&format!("{} settles on {version}", self.name), async || {
            let idle = self.status()["state"].is_null();
            (idle && self.installed().as_deref() == Some(version)).then_some(())
        })
        .await;
    }

    /// Returns the agent's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log_file).unwrap_or_default()
    }

    /// Returns the device's id.
    pub fn id(&self) -> String {
        self.status()["device"].as_str().unwrap().to_owned()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.name, self.log());
        }
    }
}

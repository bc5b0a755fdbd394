//! A PostgreSQL server for one test: a new cluster in a temporary folder, on a Unix socket.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::eventually;

/// A running cluster; stopped and removed when it is dropped.
pub struct Cluster {
    dir: tempfile::TempDir,
    child: Child,
    bin: PathBuf,
}

/// Environment variable that makes a missing PostgreSQL a failure instead of a skip.
const REQUIRE: &str = "TIDEGATE_REQUIRE_POSTGRES";

fn find() -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("bin"))
        .collect();
    candidates.sort();
    candidates.reverse();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    candidates.extend(std::env::split_paths(&paths));
    candidates
        .into_iter()
        .find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists())
}

/// Builds a command. PostgreSQL refuses to run as root: then it runs as its package's user.
fn command(program: &Path, as_postgres: bool) -> Command {
    if as_postgres {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

impl Cluster {
    /// Starts a cluster; returns `None` and says so where PostgreSQL is not installed.
    pub async fn start() -> Option<Self> {
        let Some(bin) = find() else {
            assert!(
                std::env::var_os(REQUIRE).is_none(),
                "{REQUIRE} is set and initdb is not there"
            );
            eprintln!("SKIPPED: PostgreSQL is not installed (initdb was not found)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        if root {
            let owned = Command::new("chown")
                .arg("postgres")
                .arg(dir.path())
                .status()
                .unwrap();
            assert!(owned.success());
        }
        let data = dir.path().join("data");
        let output = command(&bin.join("initdb"), root)
            .args([
                "--auth=trust",
                "--username=postgres",
                "--no-sync",
                "--encoding=UTF8",
                "-D",
            ])
            .arg(&data)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = command(&bin.join("postgres"), root)
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-c",
                "max_connections=60",
                "-k",
            ])
            .arg(dir.path())
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let cluster = Self { dir, child, bin };
        eventually("PostgreSQL answers", async || {
            cluster
                .psql("SELECT 1")
                .ok()
                .filter(|out| out.trim() == "1")
        })
        .await;
        Some(cluster)
    }

    /// Runs SQL as its superuser; returns what it prints.
    pub fn psql(&self, sql: &str) -> Result<String, String> {
        let output = Command::new(self.bin.join("psql"))
            .arg("-h")
            .arg(self.dir.path())
            .args(["-U", "postgres", "-d", "postgres", "-qAtc", sql])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Returns the address of its database.
    pub fn url(&self) -> String {
        format!(
            "postgres://postgres@localhost/postgres?host={}",
            self.dir.path().display()
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The postmaster ends its own children when told to stop immediately.
        let pid = std::fs::read_to_string(self.dir.path().join("data/postmaster.pid"));
        let pid = pid
            .ok()
            .and_then(|text| text.lines().next().map(str::to_owned));
        if let Some(pid) = pid {
            let _ = Command::new("kill").args(["-QUIT", &pid]).status();
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

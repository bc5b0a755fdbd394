//! The agent updates itself through the same server and the same slots, under its guard.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;

use serde_json::json;
use tidegate_tests::{Device, Server, binary, eventually};

/// Builds a release of the agent: a folder with `tidegate-agent` in it, here a script that becomes
/// the real one, or does not.
fn agent_release(dir: &Path, version: &str, becomes: &str) -> PathBuf {
    let tree = dir.join(format!("agent-{version}"));
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("VERSION"), version).unwrap();
    let program = tree.join("tidegate-agent");
    std::fs::write(&program, format!("#!/bin/sh\n# {version}\n{becomes}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    tree
}

struct Guard {
    child: Child,
    log: PathBuf,
    /// Messages that a service manager would have received.
    told: Receiver<String>,
}

impl Guard {
    fn start(dir: &Path, own: &Device, main: &Device, deadline: &str) -> Self {
        let log = dir.join("guard.log");
        let file = std::fs::File::create(&log).unwrap();
        let socket = dir.join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        // All the time, as systemd does: with a full queue the agent would wait for its reader.
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(length) = manager.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if tell.send(text).is_err() {
                    return;
                }
            }
        });
        // As systemd starts a service: signs of life are expected from its own process id.
        let child = Command::new("sh")
            .args(["-c", "export WATCHDOG_PID=$$; exec \"$0\" \"$@\""])
            .arg(binary("tidegate-guard"))
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "3000000")
            .args(["--deadline", deadline])
            .arg(&own.state)
            .arg("run")
            .arg("--state")
            .arg(&main.state)
            .arg("--self-state")
            .arg(&own.state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log, told }
    }

    /// Waits until the service manager has received a message.
    async fn says(&self, wanted: &str) {
        eventually(&format!("the service says {wanted}"), async || {
            self.told
                .try_iter()
                .any(|text| text.contains(wanted))
                .then_some(())
        })
        .await;
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- guard ---\n{}", self.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_updates_itself_and_comes_back_from_one_that_ends_and_one_that_hangs() {
    let server = Server::start().await;
    let dir = server.dir.path();
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let real = format!("exec {} \"$@\"", binary("tidegate-agent").display());
    let publish = |version: &str, becomes: &str| {
        let tree = agent_release(dir, version, becomes);
        let path = tree.display().to_string();
        server.cli(&[
            "release",
            "publish",
            &path,
            "--product",
            "tidegate-agent",
            "--release",
            version,
        ]);
        server.cli(&[
            "release",
            "promote",
            "tidegate-agent",
            version,
            "--to",
            "ga",
            "--reason",
            "test",
        ]);
        tree
    };
    let first = publish("0.1.0", &real);
    publish("0.2.0", &real);
    publish("0.3.0", "exit 1");
    publish("0.4.0", "exec sleep 600");
    publish("0.5.0", &real);
    let token = server.cli(&["device", "join-token", "--product", "tidegate-agent"]);
    let own = Device::blank(dir, "plc-agent");
    let adopt = first.display().to_string();
    let output = Command::new(binary("tidegate-agent"))
        .args(["enroll", "--server", &server.url, "--token", token.trim()])
        .args([
            "--product",
            "tidegate-agent",
            "--region",
            "NA",
            "--name",
            "plc-agent",
        ])
        .args([
            "--backend",
            "agent",
            "--adopt",
            &adopt,
            "--release",
            "0.1.0",
            "--state",
        ])
        .arg(&own.state)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let main = Device::enroll(
        dir,
        "plc",
        &server.url,
        &server.join_token(),
        "NA",
        installed,
    );
    let guard = Guard::start(dir, &own, &main, "6");
    guard.says("READY=1").await;
    guard.says("WATCHDOG=1").await;
    let roll_out = async |version: &str| -> String {
        let own = json!({ "product": "tidegate-agent", "rollback_window_s": 1 });
        server.roll_out(version, &["NA"], own).await
    };
    let settles = async |version: &str| {
        eventually(&format!("the agent is {version}"), async || {
            let there = own.installed().as_deref() == Some(version);
            (there && own.status()["state"].is_null()).then_some(())
        })
        .await;
    };
    let id = roll_out("0.2.0").await;
    server.rollout_is(&id, "completed").await;
    settles("0.2.0").await;
    // A service manager that hears nothing more would kill it.
    guard.says("READY=1").await;
    guard.says("WATCHDOG=1").await;
    // An agent that exits at once: after three starts the guard returns by itself.
    let id = roll_out("0.3.0").await;
    server.rollout_is(&id, "halted").await;
    settles("0.2.0").await;
    let deployment = &server.deployments(&id).await[0];
    assert_eq!(
        deployment["reason"]["code"], "crashed_in_trial",
        "{deployment}"
    );
    let ends = guard
        .log()
        .matches("the agent in slot a ended: exit status: 1")
        .count();
    assert_eq!(ends, 3, "{}", guard.log());
    // An agent that hangs is killed at its deadline.
    let id = roll_out("0.4.0").await;
    server.rollout_is(&id, "halted").await;
    settles("0.2.0").await;
    assert!(guard.log().contains("did not check in within 6 s"));
    // An agent rolled back within its window: the guard stays with the agent before it.
    let own_window = json!({ "product": "tidegate-agent", "rollback_window_s": 600 });
    let id = server.roll_out("0.5.0", &["NA"], own_window).await;
    eventually("0.5.0 in its window", async || {
        (server.deployments(&id).await.first()?["state"] == "probation").then_some(())
    })
    .await;
    server.cli(&["rollback", &id, "--reason", "it polls too often"]);
    server.rollout_is(&id, "rolled_back").await;
    settles("0.2.0").await;
    let confirmed = std::fs::read_to_string(own.state.join("confirmed")).unwrap();
    let pointer = std::fs::read_link(own.state.join("current")).unwrap();
    assert_eq!(pointer, Path::new("slots").join(confirmed));
    // All the while the machine's own product is served.
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    main.settles_on("1.1.0").await;
}

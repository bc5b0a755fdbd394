//! Agents for other processors and systems, run here in an emulator: enroll, update by delta, fail
//! the health check, roll back.
//!
//! `TIDEGATE_FOREIGN_AGENTS` names them, `platform=program` with spaces between; `.ci/foreign-agents` builds
//! them. Without it this is skipped.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tidegate_tests::{Device, Server, application, eventually};

/// Publishes a version that is healthy if a file exists.
fn publish(server: &Server, platform: &str, version: &str, healthy: bool) {
    let tree = application(server.dir.path(), version, true);
    let alive = tree.join("alive");
    let _ = std::fs::remove_file(&alive);
    if healthy {
        std::fs::write(alive, "").unwrap();
    }
    server.publish_tree(&tree, version, &["--platform", platform]);
}

async fn full_circle(platform: &str, program: &str) {
    let server = Server::start().await;
    server.cli(&["keys", "init", "--no-passphrase"]);
    for (version, healthy) in [
        ("1.0.0", true),
        ("1.1.0", true),
        ("1.1.1", true),
        ("1.2.0", false),
        ("1.2.1", true),
    ] {
        publish(&server, platform, version, healthy);
    }
    server.built("1.2.0").await;
    let mut device = Device::blank(server.dir.path(), "plc");
    device.agent = PathBuf::from(program);
    let installed = server.dir.path().join("app-1.0.0");
    let (ok, said) = device.try_enroll(
        &server.url,
        &server.join_token(),
        "NA",
        Some((&installed, "1.0.0")),
        &["--health-cmd", "file:alive:86400", "--health-timeout", "1"],
    );
    assert!(ok, "{platform}: {said}");
    if !platform.starts_with("windows") {
        // An emulated program cannot start itself: its decoder needs the emulator too.
        let settings = format!("decoder = {program}\n");
        std::fs::write(device.state.join("agent.conf"), settings).unwrap();
    }
    device.run();
    let mut deployments = Vec::new();
    // The adopted version is not a base where files have no executable mode: its archive differs.
    for version in ["1.1.0", "1.1.1"] {
        let id = server.roll_out(version, &["NA"], json!({})).await;
        server.rollout_is(&id, "completed").await;
        device.settles_on(version).await;
        deployments = server.deployments(&id).await;
    }
    let deployment = deployments.pop().unwrap();
    let fetched = deployment["bytes_downloaded"].as_u64().unwrap();
    assert!(
        fetched < 20_000,
        "{platform}: {fetched} bytes: not by delta"
    );
    let id = server.roll_out("1.2.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "halted").await;
    device.settles_on("1.1.1").await;
    // It goes on after an interruption.
    device.kill();
    device.run();
    device.settles_on("1.1.1").await;
    let output = Command::new(program)
        .args(["doctor", "--state"])
        .arg(&device.state)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("clock_skew"), "{platform}: {said}");
    if platform.starts_with("windows") {
        no_command_outlives_it(&mut device).await;
        as_a_service(&server, &mut device).await;
    }
}

/// A command of a killed agent ends with it, and with it what the command has started: here a program
/// below a shell. On Linux the next agent sees to that.
async fn no_command_outlives_it(device: &mut Device) {
    device.kill();
    let conf = device.state.join("agent.conf");
    let check = "health-cmd = cmd.exe /c ping -n 600 127.0.0.1\n";
    let settings = format!("{check}health-timeout = 600\nhealth-every = 1\n");
    std::fs::write(&conf, settings).unwrap();
    let pinging = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.starts_with(b"ping\0-n\x00600\0")
        })
        .count()
    };
    device.run();
    eventually("the check runs", async || (pinging() == 1).then_some(())).await;
    device.kill();
    eventually("the check ends", async || (pinging() == 0).then_some(())).await;
    std::fs::remove_file(conf).unwrap();
    device.run();
}

/// Does what the Windows service manager does: starts it, restarts it after it was killed, stops
/// it, removes it.
async fn as_a_service(server: &Server, device: &mut Device) {
    device.kill();
    // The same log file that the harness wrote to.
    let starts = || {
        let log = std::fs::read_to_string(device.state.join("agent.log")).unwrap();
        log.matches("runs, state in").count()
    };
    let before = starts();
    let said = asked(device, "install");
    assert!(said.contains("started tidegate-agent"), "{said}");
    let first = pid(device).await;
    let id = server.roll_out("1.2.1", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    device.settles_on("1.2.1").await;
    assert_eq!(starts(), before + 1);
    let killed = Command::new(&device.agent)
        .env("TIDEGATE_TEST_PROGRAM", "taskkill.exe")
        .args(["/F", "/PID", &first.to_string()])
        .output()
        .unwrap();
    assert!(killed.status.success(), "{killed:?}");
    eventually("the service runs again", async || {
        // Not by its process id: the next process may reuse it.
        (starts() == before + 2).then_some(())
    })
    .await;
    let said = asked(device, "uninstall");
    assert!(said.contains("removed the service"), "{said}");
    eventually("it has stopped", async || {
        let text = asked(device, "status");
        text.contains("not running").then_some(())
    })
    .await;
}

/// Returns the process id of the running agent.
async fn pid(device: &Device) -> u64 {
    eventually("the agent runs", async || {
        let text = asked(device, "status --json");
        let said: serde_json::Value = serde_json::from_str(&text).ok()?;
        said["agent"]["pid"].as_u64()
    })
    .await
}

fn asked(device: &Device, words: &str) -> String {
    let output = Command::new(&device.agent)
        .args(words.split_whitespace())
        .arg("--state")
        .arg(&device.state)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_other_machines_update_by_delta_fail_and_come_back() {
    let Ok(list) = std::env::var("TIDEGATE_FOREIGN_AGENTS") else {
        println!(
            "skipped: TIDEGATE_FOREIGN_AGENTS names no agents; .ci/foreign-agents builds them"
        );
        return;
    };
    for agent in list.split_whitespace() {
        let (platform, program) = agent.split_once('=').unwrap();
        println!("{platform}");
        full_circle(platform, program).await;
    }
}

//! The agents of other processors and systems, started here by an emulator: enrol, update by delta,
//! fail the health check, come back.
//!
//! `TIDEGATE_FOREIGN_AGENTS` names them, `platform=program` with spaces between; `.ci/targets` builds
//! them. Without it this is skipped.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tidegate_tests::{Device, Server, application};

/// A version whose health is that a file is there.
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
    ] {
        publish(&server, platform, version, healthy);
    }
    server.built("1.2.0").await;
    let mut device = Device::blank(server.dir.path(), "plc");
    device.agent = PathBuf::from(program);
    let installed = server.dir.path().join("app-1.0.0");
    let (ok, said) = device.try_enrol(
        &server.url,
        &server.join_token(),
        "NA",
        Some((&installed, "1.0.0")),
        &["--health-cmd", "file:alive:86400", "--health-timeout", "1"],
    );
    assert!(ok, "{platform}: {said}");
    device.run();
    let mut deployments = Vec::new();
    // What was adopted is no base where files have no mode to be executed by: its archive differs.
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
    // Cut in the middle, it goes on.
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
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_other_machines_update_by_delta_fail_and_come_back() {
    let Ok(list) = std::env::var("TIDEGATE_FOREIGN_AGENTS") else {
        println!("skipped: TIDEGATE_FOREIGN_AGENTS names no agents; .ci/targets builds them");
        return;
    };
    for agent in list.split_whitespace() {
        let (platform, program) = agent.split_once('=').unwrap();
        println!("{platform}");
        full_circle(platform, program).await;
    }
}

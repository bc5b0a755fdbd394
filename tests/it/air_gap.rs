//! Devices without a network: a bundle is carried to them, their reports are carried back.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tidegate_tests::{Device, Server, binary, eventually};

fn agent(device: &Device, words: &[&str]) -> (bool, String) {
    let output = Command::new(binary("tidegate-agent"))
        .args(words)
        .arg("--state")
        .arg(&device.state)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

async fn bundle(server: &Server, release: &str, name: &str) -> (String, PathBuf) {
    let id = server.roll_out(release, &["NA"], json!({})).await;
    let folder = server.dir.path().join(name);
    let out = folder.display().to_string();
    let words = [
        "bundle",
        "create",
        &id,
        "--select",
        "region=NA",
        "--out",
        &out,
    ];
    eventually("the wave has begun", async || {
        (server.cli_raw(&words).0 == 0).then_some(())
    })
    .await;
    (id, folder)
}

fn apply(device: &Device, folder: &Path) -> (bool, String) {
    agent(device, &["apply", &folder.display().to_string()])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_applied_without_a_server_and_its_result_is_carried_back() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true), ("1.2.0", false)]);
    let dir = server.dir.path();
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let device = Device::enroll(dir, "press", &server.url, &token, "NA", installed);
    let (id, first) = bundle(&server, "1.1.0", "first").await;
    // Nobody listens there: everything the agent needs is in the folder.
    let config = device.state.join("agent.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&server.url, "http://127.0.0.1:9")).unwrap();
    let (ok, said) = apply(&device, &first);
    assert!(ok && said.contains("running 1.1.0"), "{said}");
    assert_eq!(device.installed().as_deref(), Some("1.1.0"));
    let reports = device.state.join("reports.json").display().to_string();
    server.cli(&["bundle", "import", &reports]);
    server.rollout_is(&id, "completed").await;
    let view = server
        .get(&format!("/api/v1/devices/{}", device.id()))
        .await;
    assert_eq!(view["release"], "1.1.0");
    // Importing the same reports twice changes nothing.
    server.cli(&["bundle", "import", &reports]);
    // The same bundle again is a replay.
    let (ok, said) = apply(&device, &first);
    assert!(!ok && said.contains("refused"), "{said}");
    // A bad release is rolled back by the device itself, and reported too.
    let (id, second) = bundle(&server, "1.2.0", "second").await;
    let (ok, said) = apply(&device, &second);
    assert!(!ok && said.contains("rolled_back"), "{said}");
    assert_eq!(device.installed().as_deref(), Some("1.1.0"));
    server.cli(&["bundle", "import", &reports]);
    eventually("the rollout hears of it", async || {
        let deployment = server.deployments(&id).await.pop()?;
        (deployment["reason"]["code"] == "health_failed").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_back_that_is_carried_is_obeyed_within_the_rollback_window() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let dir = server.dir.path();
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let device = Device::enroll(dir, "press", &server.url, &token, "NA", installed);
    let window = json!({ "rollback_window_s": 600 });
    let id = server.roll_out("1.1.0", &["NA"], window).await;
    let carry = async |name: &str| {
        let folder = dir.join(name).display().to_string();
        eventually("a bundle is made", async || {
            let words = ["bundle", "create", &id, "--out", &folder];
            (server.cli_raw(&words).0 == 0).then_some(())
        })
        .await;
        folder
    };
    let import = || {
        let reports = device.state.join("reports.json").display().to_string();
        server.cli(&["bundle", "import", &reports]);
    };
    let there = carry("there").await;
    let (ok, said) = agent(&device, &["apply", &there, "--no-wait"]);
    assert!(ok && said.contains("running 1.1.0"), "{said}");
    import();
    // The same bundle again, as after a power cut: nothing to do but to wait.
    let (ok, said) = agent(&device, &["apply", &there, "--no-wait"]);
    assert!(ok && said.contains("running 1.1.0"), "{said}");
    server.cli(&["rollback", &id, "--reason", "too loud"]);
    let back = carry("back").await;
    let (ok, said) = agent(&device, &["apply", &back]);
    assert!(ok && said.contains("running 1.0.0"), "{said}");
    assert_eq!(device.installed().as_deref(), Some("1.0.0"));
    import();
    server.rollout_is(&id, "rolled_back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_comes_too_early_can_be_applied_when_the_window_is_over() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true), ("1.2.0", true)]);
    let dir = server.dir.path();
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let device = Device::enroll(dir, "press", &server.url, &token, "NA", installed);
    let window = json!({ "rollback_window_s": 8 });
    let id = server.roll_out("1.1.0", &["NA"], window).await;
    let first = dir.join("first").display().to_string();
    eventually("a bundle is made", async || {
        let words = ["bundle", "create", &id, "--out", &first];
        (server.cli_raw(&words).0 == 0).then_some(())
    })
    .await;
    // Made before the device has reported, and carried together with the first one.
    server.cli(&["rollout", "cancel", &id, "--reason", "the next one is out"]);
    let (_, second) = bundle(&server, "1.2.0", "second").await;
    let second = second.display().to_string();
    let (ok, said) = agent(&device, &["apply", &first, "--no-wait"]);
    assert!(ok && said.contains("running 1.1.0"), "{said}");
    let (ok, said) = agent(&device, &["apply", &second]);
    assert!(
        !ok && said.contains("in the middle of another update"),
        "{said}"
    );
    // To the end of the window, with the bundle that it belongs to.
    let (ok, said) = agent(&device, &["apply", &first]);
    assert!(ok && said.contains("running 1.1.0"), "{said}");
    let (ok, said) = agent(&device, &["apply", &second]);
    assert!(ok && said.contains("running 1.2.0"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_on_the_way_is_refused_and_leaves_the_machine_as_it_is() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let dir = server.dir.path();
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let device = Device::enroll(dir, "press", &server.url, &token, "NA", installed);
    let other = Device::enroll(dir, "other", &server.url, &token, "EU", installed);
    let (_, folder) = bundle(&server, "1.1.0", "stick").await;
    let (ok, said) = apply(&other, &folder);
    assert!(!ok && said.contains("none for this device"), "{said}");
    // Each file in turn, one byte changed, and then missing.
    let before = dir.join("before");
    copy(&device.state, &before);
    let (mut refused, mut went_on) = (0, 0);
    for path in walk(&folder) {
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        let bytes = std::fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        for bad in [Some(changed), None] {
            match bad {
                Some(bad) => std::fs::write(&path, bad).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let (ok, said) = apply(&device, &folder);
            // One of two payloads may be damaged, and some signed files are for others; either way
            // one
            // whole version runs.
            let needed = ["timestamp", "snapshot", "targets", "app-stable", "orders/"];
            let is_needed = needed.iter().any(|part| name.contains(part));
            assert!(!ok || !is_needed, "{name}: {said}");
            let wanted = if ok { "1.1.0" } else { "1.0.0" };
            assert_eq!(
                device.installed().as_deref(),
                Some(wanted),
                "{name}: {said}"
            );
            *(if ok { &mut went_on } else { &mut refused }) += 1;
            std::fs::remove_dir_all(&device.state).unwrap();
            copy(&before, &device.state);
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(
        refused >= 8 && went_on >= 2,
        "{refused} refused, {went_on} not"
    );
    let (ok, said) = apply(&device, &folder);
    assert!(ok && said.contains("running 1.1.0"), "{said}");
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(done.unwrap().success());
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

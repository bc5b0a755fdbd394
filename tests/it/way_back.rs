//! The way back when the kept version is damaged: it is never run under its old name.

use std::path::Path;

use serde_json::json;
use tidegate_tests::{Device, Mode, Proxy, Server, application, eventually};

/// Sets up a device in the rollback window of 1.1.0, which keeps 1.0.0 in slot a.
async fn in_window(server: &Server, url: &str) -> (Device, String) {
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "one", url, &server.join_token(), "NA", installed);
    device.run();
    let id = server
        .roll_out("1.1.0", &["NA"], json!({ "rollback_window_s": 600 }))
        .await;
    eventually("probation", async || {
        (server.deployments(&id).await.first()?["state"] == "probation").then_some(())
    })
    .await;
    (device, id)
}

/// Existing fleets come with versions that the server never saw, or that were not promoted to the
/// channel of the device: within its window a device goes back to them all the same, and what cannot go
/// back after it is told apart from what can.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_ordered_back_to_what_it_came_with_whether_it_was_ever_published_or_not() {
    let server = Server::start().await;
    server.publish(&[("1.1.0", true)]);
    let dir = server.dir.path();
    let token = server.join_token();
    let mut devices = Vec::new();
    for (name, release) in [("unseen", "0.8.0"), ("draft", "0.9.0"), ("alpha", "1.0.0")] {
        let tree = application(dir, release, true);
        if name != "unseen" {
            let path = tree.display().to_string();
            let names = ["--product", "app", "--release", release];
            server.cli(&[&["release", "publish", &path][..], &names].concat());
        }
        if name == "alpha" {
            let to = ["app", release, "--to", "alpha", "--reason", "test"];
            server.cli(&[&["release", "promote"][..], &to].concat());
        }
        let installed = Some((tree.as_path(), release));
        let mut device = Device::enroll(dir, name, &server.url, &token, "NA", installed);
        device.run();
        devices.push((device, release));
    }
    let window = json!({ "rollback_window_s": 600 });
    let id = server.roll_out("1.1.0", &["NA"], window).await;
    eventually("all are in their window", async || {
        let list = server.deployments(&id).await;
        let there = |d: &&serde_json::Value| d["state"] == "probation";
        (list.iter().filter(there).count() == 3).then_some(())
    })
    .await;
    let path = format!("/api/v1/rollouts/{id}/rollback");
    let order = json!({ "reason": "bad", "dry_run": true });
    let dry = server.post(&path, order).await;
    assert_eq!(dry["sheet"]["inside_window"], 3, "{dry}");
    server.cli(&["rollback", &id, "--reason", "bad"]);
    for (device, release) in &devices {
        device.settles_on(release).await;
        assert!(!device.log().contains("was refused"), "{}", device.log());
        assert!(!device.log().contains(&format!("downloading {release}")));
    }
    let rollout = server.rollout_is(&id, "rolled_back").await;
    assert_eq!(rollout["tally"]["returned"], 3, "{rollout}");
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_kept_version_is_fetched_again_before_it_is_put_to_use() {
    let server = Server::start().await;
    let (device, id) = in_window(&server, &server.url).await;
    let artifact = device.state.join("slots/a/artifact");
    let whole = std::fs::read(&artifact).unwrap();
    damage(&artifact);
    damage(&device.state.join("slots/a/tree/VERSION"));
    server.cli(&["rollback", &id, "--reason", "orders are lost"]);
    eventually("the server hears why it takes so long", async || {
        let why = server
            .get(&format!("/api/v1/devices/{}/why", device.id()))
            .await;
        let told = why.to_string().contains("damaged");
        let back = device.installed().as_deref() == Some("1.0.0");
        (told || back).then_some(())
    })
    .await;
    device.settles_on("1.0.0").await;
    assert!(std::fs::read(&artifact).unwrap() == whole);
    server.rollout_is(&id, "rolled_back").await;
    assert!(
        device.log().contains("fetching the previous version again"),
        "{}",
        device.log()
    );
    // Nothing is left of the download.
    assert!(!device.state.join("download").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_folder_is_unpacked_again_without_the_network_and_nothing_is_lost() {
    let server = Server::start().await;
    let proxy = Proxy::start(&server.url, Mode::Pass).await;
    let (device, id) = in_window(&server, &proxy.url).await;
    let tree = device.state.join("slots/a/tree");
    std::fs::write(tree.join("VERSION"), "edited").unwrap();
    let before = proxy.passed();
    server.cli(&["rollback", &id, "--reason", "orders are lost"]);
    device.settles_on("1.0.0").await;
    server.rollout_is(&id, "rolled_back").await;
    assert!(proxy.passed() - before < 100_000, "it took a download");
    let was = std::fs::read_to_string(device.state.join("slots/a/tree.was/VERSION")).unwrap();
    assert_eq!(was, "edited");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_of_what_runs_is_made_again_and_a_folder_in_its_place_is_put_aside() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true)]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let mut device = Device::enroll(
        dir,
        "one",
        &server.url,
        &server.join_token(),
        "NA",
        installed,
    );
    std::fs::remove_dir_all(device.state.join("slots/a/tree")).unwrap();
    let current = device.state.join("current");
    std::fs::remove_file(&current).unwrap();
    std::fs::create_dir(&current).unwrap();
    std::fs::write(current.join("own"), "of a person").unwrap();
    device.run();
    eventually("it runs again", async || {
        (device.installed().as_deref() == Some("1.0.0")).then_some(())
    })
    .await;
    let own = std::fs::read_to_string(device.state.join("current.was/own")).unwrap();
    assert_eq!(own, "of a person");
}

/// A release may break everything that only the server needs: it can be left all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_needs_no_settings_no_key_and_no_server() {
    let server = Server::start().await;
    let (mut device, _) = in_window(&server, &server.url).await;
    device.kill();
    for (name, text) in [
        ("agent.conf", "server = nonsense\nno-such-setting = 1\n"),
        ("identity.pem", ""),
    ] {
        std::fs::write(device.state.join(name), text).unwrap();
    }
    std::fs::remove_dir_all(device.state.join("trust")).unwrap();
    // The new version turns bad.
    let sick = device.state.join("slots/b/tree/health.sh");
    std::fs::write(sick, "#!/bin/sh\nexit 1\n").unwrap();
    device.run();
    eventually("it is back", async || {
        (device.installed().as_deref() == Some("1.0.0")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_key_is_gone_says_so_and_speaks_with_nobody() {
    let server = Server::start().await;
    let (mut device, _) = in_window(&server, &server.url).await;
    device.kill();
    std::fs::remove_file(device.state.join("identity.pem")).unwrap();
    device.run();
    eventually("it has tried several times", async || {
        let tries = device.log().matches("asking the server failed").count();
        (tries >= 3).then_some(())
    })
    .await;
    let log = device.log();
    assert!(log.contains("identity.pem is gone"), "{log}");
    // With a made-up key the server would say that it knows no such device.
    assert!(!log.contains("401"), "{log}");
    assert!(!device.state.join("identity.pem").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_previous_version_nobody_has_any_more_stays_and_says_so() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", false)]);
    // Bytes other than the published ones: nobody else has them.
    std::fs::write(trees[0].join("own"), "made here").unwrap();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let token = server.join_token();
    let mut device = Device::enroll(dir, "one", &server.url, &token, "NA", installed);
    std::fs::remove_file(device.state.join("slots/a/artifact")).unwrap();
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    let reason = eventually("it says that it cannot go back", async || {
        let deployment = server.deployments(&id).await.pop()?;
        (deployment["state"] == "failed").then(|| deployment["reason"].clone())
    })
    .await;
    assert_eq!(reason["code"], "no_previous_slot");
    assert!(reason.to_string().contains("1.1.0 stays"), "{reason}");
    device.settles_on("1.1.0").await;
    assert_eq!(device.status()["kept"], json!(null));
}

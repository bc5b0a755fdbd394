//! One device, one update, and everything that may go wrong in between.

use serde_json::json;
use tidegate_tests::{Device, Mode, Proxy, Server, eventually};

#[tokio::test]
async fn a_device_moves_to_the_next_release_by_delta() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    server.built("1.1.0").await;
    let token = server.join_token();
    let dir = server.dir.path();
    let mut device = Device::enroll(
        dir,
        "one",
        &server.url,
        &token,
        "NA",
        Some((&trees[0], "1.0.0")),
    );
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    device.settles_on("1.1.0").await;
    let deployment = &server.deployments(&id).await[0];
    assert_eq!(deployment["state"], "succeeded");
    // The image has 320 KB that do not compress; the delta is a few hundred bytes.
    let fetched = deployment["bytes_downloaded"].as_u64().unwrap();
    assert!(fetched < 20_000, "{fetched} bytes: not by delta");
    let new = std::fs::read(trees[1].join("table")).unwrap();
    assert!(std::fs::read(device.state.join("current/tree/table")).unwrap() == new);
}

#[tokio::test]
async fn a_device_that_decodes_nothing_takes_the_image_as_it_is() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    server.built("1.1.0").await;
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "one", &server.url, &token, "NA", installed);
    let settings = "decode = no\ndecoder = /no/such/program\n";
    std::fs::write(device.state.join("agent.conf"), settings).unwrap();
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    device.settles_on("1.1.0").await;
    let deployment = &server.deployments(&id).await[0];
    let fetched = deployment["bytes_downloaded"].as_u64().unwrap();
    let table = std::fs::metadata(trees[1].join("table")).unwrap().len();
    assert!(fetched > table, "{fetched} bytes");
}

#[tokio::test]
async fn a_device_with_nothing_installed_gets_the_whole_release() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let token = server.join_token();
    let mut device = Device::enroll(server.dir.path(), "bare", &server.url, &token, "NA", None);
    device.run();
    server.roll_out("1.0.0", &["NA"], json!({})).await;
    device.settles_on("1.0.0").await;
}

#[tokio::test]
async fn a_failed_health_check_brings_the_device_back_and_keeps_it_from_the_release() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", false)]);
    let token = server.join_token();
    let dir = server.dir.path();
    let mut device = Device::enroll(
        dir,
        "one",
        &server.url,
        &token,
        "NA",
        Some((&trees[0], "1.0.0")),
    );
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    // One failure out of one is no proof, but no wave passes with it either.
    let rollout = server.rollout_is(&id, "halted").await;
    assert_eq!(rollout["reason"]["code"], "gate_breached");
    device.settles_on("1.0.0").await;
    let deployment = &server.deployments(&id).await[0];
    assert_eq!(deployment["state"], "rolled_back");
    assert_eq!(deployment["reason"]["code"], "health_failed");
    // It is never offered again automatically, not even by another rollout; a person can lift that.
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    let why = server
        .get(&format!("/api/v1/devices/{}/why", device.id()))
        .await;
    assert_eq!(why["reason"]["code"], "quarantined", "{why}");
    let kept = server
        .get(&format!("/api/v1/devices/{}", device.id()))
        .await;
    assert_eq!(kept["quarantine"], json!(["1.1.0"]));
    server.cli(&[
        "device",
        "lift-quarantine",
        "one",
        "1.1.0",
        "--reason",
        "looked into it",
    ]);
    let free = server
        .get(&format!("/api/v1/devices/{}", device.id()))
        .await;
    assert_eq!(free["quarantine"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_goes_on_where_it_stopped() {
    let server = Server::start().await;
    server.publish(&[("1.1.0", true)]);
    // Without a base, the whole image of 330 KB is downloaded.
    let proxy = Proxy::start(&server.url, Mode::CutAfter(60_000)).await;
    let token = server.join_token();
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "one", &proxy.url, &token, "NA", None);
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
    assert!(proxy.cuts() >= 4, "{} cuts", proxy.cuts());
    let fetched = eventually("the report of success", async || {
        let deployment = server.deployments(&id).await.pop()?;
        let done = deployment["state"] == "succeeded";
        done.then(|| deployment["bytes_downloaded"].as_u64().unwrap())
    })
    .await;
    let image = std::fs::metadata(device.state.join("slots/a/artifact"))
        .unwrap()
        .len();
    assert!(
        fetched <= image + image / 50,
        "{fetched} bytes for an image of {image}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_rolls_back_within_the_window_without_a_download() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let proxy = Proxy::start(&server.url, Mode::Pass).await;
    let token = server.join_token();
    let dir = server.dir.path();
    let mut device = Device::enroll(
        dir,
        "one",
        &proxy.url,
        &token,
        "NA",
        Some((&trees[0], "1.0.0")),
    );
    device.run();
    let id = server
        .roll_out("1.1.0", &["NA"], json!({ "rollback_window_s": 600 }))
        .await;
    eventually("probation", async || {
        (server.deployments(&id).await.first()?["state"] == "probation").then_some(())
    })
    .await;
    assert_eq!(device.installed().as_deref(), Some("1.1.0"));
    // The way back cannot download the image any more: it is gone from the server.
    let image =
        tidegate_delta::sha256(&std::fs::read(device.state.join("slots/a/artifact")).unwrap());
    std::fs::remove_file(server.blob(&image.to_string())).unwrap();
    let before = proxy.passed();
    server.cli(&["rollback", &id, "--reason", "orders are lost"]);
    device.settles_on("1.0.0").await;
    server.rollout_is(&id, "rolled_back").await;
    assert!(
        proxy.passed() - before < 100_000,
        "the way back took a download"
    );
    let deployment = &server.deployments(&id).await[0];
    assert_eq!(deployment["state"], "rolled_back");
    assert_eq!(deployment["reason"]["code"], "rollback_ordered");
}

#[tokio::test]
async fn a_device_offline_for_two_releases_is_brought_up_over_the_stepping_stone() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true)]);
    let dir = server.dir.path();
    let stone = tidegate_tests::application(dir, "1.1.0", true);
    server.publish_tree(&stone, "1.1.0", &["--stepping-stone"]);
    server.publish(&[("1.2.0", true)]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let mut early = Device::enroll(dir, "early", &server.url, &token, "NA", installed);
    let mut late = Device::enroll(dir, "late", &server.url, &token, "NA", installed);
    early.run();
    for release in ["1.1.0", "1.2.0"] {
        // The silent device must not hold up the wave: it counts as offline after a while, so the
        // wave waits only for the one that answers.
        let id = server
            .roll_out(
                release,
                &["NA"],
                json!({ "waves": [
                { "name": "early", "selector": "region=NA,canary!=no", "size": "all" },
            ] }),
            )
            .await;
        early.settles_on(release).await;
        let rollout = server.get(&format!("/api/v1/rollouts/{id}")).await;
        assert!(rollout["state"] == "running" || rollout["state"] == "completed");
    }
    late.run();
    late.settles_on("1.2.0").await;
    let log = late.log();
    let first = log
        .find("downloading 1.1.0")
        .expect("over the stepping stone");
    let second = log.find("downloading 1.2.0").expect("and on");
    assert!(first < second, "{log}");
}

/// As in the README: no `--state`, so that the agent's folder is a relative path.
#[tokio::test]
async fn an_agent_with_a_relative_state_folder_finds_its_health_check() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.join_token();
    let home = server.dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let agent = |arguments: &[&str]| {
        let mut command = std::process::Command::new(tidegate_tests::binary("tidegate-agent"));
        command
            .args(arguments)
            .current_dir(&home)
            .env("TIDEGATE_JOIN_TOKEN", &token);
        command
    };
    let adopt = trees[0].display().to_string();
    let enroll = [
        "enroll",
        "--server",
        &server.url,
        "--product",
        "app",
        "--region",
        "NA",
    ];
    let enrolled = agent(&enroll)
        .args(["--adopt", &adopt, "--release", "1.0.0"])
        .status()
        .unwrap();
    assert!(enrolled.success());
    let mut running = agent(&["run", "--exit-with-stdin"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    drop(running.stdin.take());
    assert!(running.wait().unwrap().success());
}

#[tokio::test]
async fn a_rollout_is_not_complete_before_the_last_window_has_closed_and_the_gate_watches_until_then()
 {
    let server = Server::start().await;
    let dir = server.dir.path();
    server.cli(&["keys", "init", "--no-passphrase"]);
    let old = tidegate_tests::application(dir, "1.0.0", true);
    server.publish_tree(&old, "1.0.0", &[]);
    // Healthy until a file outside says otherwise.
    let new = tidegate_tests::application(dir, "1.1.0", true);
    let mark = dir.join("broken");
    std::fs::write(
        new.join("health.sh"),
        format!("#!/bin/sh\ntest ! -e {}\n", mark.display()),
    )
    .unwrap();
    server.publish_tree(&new, "1.1.0", &[]);
    let token = server.join_token();
    let installed = Some((old.as_path(), "1.0.0"));
    let mut devices: Vec<Device> = (0..2)
        .map(|n| Device::enroll(dir, &format!("d{n}"), &server.url, &token, "NA", installed))
        .collect();
    devices.iter_mut().for_each(Device::run);
    let id = server
        .roll_out("1.1.0", &["NA"], json!({ "rollback_window_s": 100 }))
        .await;
    eventually("the wave has passed", async || {
        let rollout = server.get(&format!("/api/v1/rollouts/{id}")).await;
        (rollout["waves"][0]["state"] == "passed").then_some(())
    })
    .await;
    let rollout = server.get(&format!("/api/v1/rollouts/{id}")).await;
    assert_eq!(rollout["reason"]["code"], "probation_open");
    std::fs::write(&mark, "").unwrap();
    // Each rolls back by itself, and even this late the gate halts.
    server.rollout_is(&id, "halted").await;
    for device in &devices {
        device.settles_on("1.0.0").await;
    }
}

/// The next version does not see what was written into the one before, and people at the server cannot read
/// the log of a machine.
#[tokio::test]
async fn data_that_somebody_wrote_into_a_version_is_told_to_the_server_when_its_slot_is_used_again()
{
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true), ("1.2.0", true)]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "one", &server.url, &token, "NA", installed);
    let notes = device.state.join("current/tree/notes");
    std::fs::create_dir(&notes).unwrap();
    std::fs::write(notes.join("one.txt"), "rows").unwrap();
    std::fs::write(notes.join("two.txt"), "more rows").unwrap();
    device.run();
    let path = format!("/api/v1/devices/{}/events?limit=200", device.id());
    let told = async || {
        let page = server.get(&path).await;
        let events = page["items"].as_array().unwrap().clone();
        let mut told = events.into_iter().filter(|e| e["kind"] == "data_left");
        (told.next(), told.next())
    };
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    assert_eq!(told().await, (None, None), "it is in the slot that is kept");
    let id = server.roll_out("1.2.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    device.settles_on("1.2.0").await;
    let event = eventually("it is told", async || told().await.0).await;
    let folder = device.state.join("slots/left").display().to_string();
    let wanted = format!(
        "2 files (13 bytes) that somebody wrote into an earlier version are kept in {folder}"
    );
    assert!(event.to_string().contains(&wanted), "{event}");
    // It stays until a person takes it away.
    device.kill();
    device.run();
    let why = || server.cli(&["device", "why", "one"]);
    eventually("`device why` says it", async || {
        why().contains(&wanted).then_some(())
    })
    .await;
    device.kill();
    std::fs::remove_dir_all(&folder).unwrap();
    device.run();
    eventually("it is gone", async || {
        (!why().contains(&folder)).then_some(())
    })
    .await;
    assert!(told().await.1.is_none(), "it was told once");
}

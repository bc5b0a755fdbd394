//! Device identity: copies give themselves away, keys change, isolated or revoked devices are told
//! nothing more, and a lost root is restored.

use std::time::Duration;

use serde_json::json;
use tidegate_protocol::{DeviceId, KeyChange};
use tidegate_server::config::{Clock, Settings};
use tidegate_tests::{Device, Mode, Proxy, Server, eventually};
use tidegate_trust::http_signature::Signer;
use tidegate_trust::{SecretKey, key_change};

use crate::checkin::{present, settings};

async fn scene() -> (Server, Device) {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let device = Device::enroll(
        server.dir.path(),
        "plc",
        &server.url,
        &token,
        "NA",
        installed,
    );
    (server, device)
}

async fn shown(server: &Server, device: &Device) -> serde_json::Value {
    server
        .get(&format!("/api/v1/devices/{}", device.id()))
        .await
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a56_a_copied_device_gives_itself_away_and_is_isolated() {
    let (server, mut device) = scene().await;
    let mut clone = Device::blank(server.dir.path(), "clone");
    copy(&device.state, &clone.state);
    device.run();
    eventually("the device is seen", async || {
        let log = server.get("/api/v1/devices").await;
        log["items"][0]["agent_version"]
            .as_str()
            .filter(|v| !v.is_empty())
            .map(drop)
    })
    .await;
    clone.run();
    let view = eventually("the copy is noticed", async || {
        let view = shown(&server, &device).await;
        view["isolated"].is_string().then_some(view)
    })
    .await;
    assert!(
        view["isolated"].as_str().unwrap().contains("two machines"),
        "{view}"
    );
    assert_eq!(view["reason"]["code"], "device_isolated");
    // The server detected it while answering the request; the leader had no part in it.
    let events = format!("/api/v1/devices/{}/events", device.id());
    let events = server.get(&events).await["items"].clone();
    let events = events.as_array().unwrap();
    let isolated = events.iter().find(|e| e["kind"] == "device_isolated");
    let isolated = isolated.unwrap_or_else(|| panic!("{events:#?}"));
    assert_eq!(isolated["actor_kind"], "check_in");
    assert!(isolated["body"]["request"].is_u64(), "{isolated}");
    // Neither copy is told to install anything.
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    let why = server
        .get(&format!("/api/v1/devices/{}/why", device.id()))
        .await;
    assert_eq!(why["reason"]["code"], "device_isolated");
    clone.kill();
    server.cli(&[
        "device",
        "readmit",
        "plc",
        "--reason",
        "the copy is destroyed",
    ]);
    device.settles_on("1.1.0").await;
}

/// Waits until a device is isolated; returns what people are shown.
async fn isolated(server: &Server, device: &Device) -> String {
    eventually("the copy is noticed", async || {
        let view = shown(server, device).await;
        view["isolated"].as_str().map(str::to_owned)
    })
    .await
}

async fn checks_in(server: &Server, device: &Device) {
    eventually("the device is seen", async || {
        let view = shown(server, device).await;
        view["agent_version"]
            .as_str()
            .filter(|v| !v.is_empty())
            .map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a120_a_copy_beside_a_running_device_is_found_at_its_next_check_ins_and_both_places_are_told()
 {
    let (server, mut device) = scene().await;
    device.run();
    checks_in(&server, &device).await;
    // The device's session lasts for an hour, and the copy opens one of its own.
    let mut clone = Device::blank(server.dir.path(), "clone");
    copy(&device.state, &clone.state);
    clone.run();
    let why = isolated(&server, &device).await;
    assert!(why.contains("two machines have this identity"), "{why}");
    assert_eq!(why.matches("127.0.0.1 at 20").count(), 2, "{why}");
    let path = format!("/api/v1/devices/{}", device.id());
    let said = server.get(&format!("{path}/why")).await;
    assert!(
        said["reason"]["text"].as_str().unwrap().contains(&why),
        "{said}"
    );
    let events = server.get(&format!("{path}/events")).await;
    assert!(events.to_string().contains(&why), "{events}");
    // The device itself is not told where the other is: it may be the copy.
    assert!(
        !device.log().contains("127.0.0.1 at 20"),
        "{}",
        device.log()
    );
    // With the copy gone it is readmitted, and nothing of before counts.
    clone.kill();
    server.cli(&[
        "device",
        "readmit",
        "plc",
        "--reason",
        "the copy is destroyed",
    ]);
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
    assert!(shown(&server, &device).await["isolated"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a121_a_copy_that_asks_another_server_is_found_with_the_next_heartbeat() {
    let Some(cluster) = tidegate_tests::Cluster::start().await else {
        return;
    };
    let first = Server::start_on(tidegate_tests::Database::Postgres(cluster.url())).await;
    let second = first.replica();
    let trees = first.publish(&[("1.0.0", true)]);
    let token = first.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = first.dir.path();
    let mut device = Device::enroll(dir, "plc", &first.url, &token, "NA", installed);
    device.run();
    checks_in(&first, &device).await;
    let mut clone = Device::blank(dir, "clone");
    copy(&device.state, &clone.state);
    let config = clone.state.join("agent.json");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains(&first.url), "{text}");
    std::fs::write(&config, text.replace(&first.url, &second.url)).unwrap();
    clone.run();
    let why = isolated(&second, &device).await;
    assert!(why.contains("two machines have this identity"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a49_a_device_put_back_from_an_image_holds_nothing_up_once_it_is_readmitted() {
    let (server, mut device) = scene().await;
    let image = server.dir.path().join("image");
    copy(&device.state, &image);
    device.run();
    let rollout = server
        .roll_out("1.1.0", &["NA"], json!({ "rollback_window_s": 3_600 }))
        .await;
    eventually("the device is in its window", async || {
        let list = server.deployments(&rollout).await;
        (list.first()?["state"] == "probation").then_some(())
    })
    .await;
    device.kill();
    std::fs::remove_dir_all(&device.state).unwrap();
    copy(&image, &device.state);
    device.run();
    eventually("it is noticed", async || {
        shown(&server, &device).await["isolated"]
            .is_string()
            .then_some(())
    })
    .await;
    server.cli(&[
        "device",
        "readmit",
        "plc",
        "--reason",
        "its disk was restored",
    ]);
    eventually("its deployment ends", async || {
        let list = server.deployments(&rollout).await;
        (list.first()?["state"] == "rolled_back").then_some(())
    })
    .await;
    // Without any journal it stops rather than starting over.
    device.kill();
    for name in ["journal.a", "journal.b"] {
        let _ = std::fs::remove_file(device.state.join(name));
    }
    device.run();
    eventually("the agent stops", async || device.ended()).await;
    assert!(
        device.log().contains("both copies of the journal"),
        "{}",
        device.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_changes_its_key_when_asked_and_the_old_one_is_worth_nothing() {
    let (server, mut device) = scene().await;
    let mut thief = Device::blank(server.dir.path(), "thief");
    copy(&device.state, &thief.state);
    device.run();
    let old = std::fs::read_to_string(device.state.join("identity.pem")).unwrap();
    server.cli(&["device", "new-key", "plc", "--reason", "yearly"]);
    eventually("the key changes", async || {
        let new = std::fs::read_to_string(device.state.join("identity.pem")).unwrap();
        (new != old).then_some(())
    })
    .await;
    thief.run();
    eventually("the old key is refused", async || {
        thief
            .log()
            .contains("no device with this id has this key")
            .then_some(())
    })
    .await;
    assert!(shown(&server, &device).await["isolated"].is_null());
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_change_cut_at_any_step_ends_with_one_key() {
    let (server, _) = scene().await;
    let token = server.join_token();
    // The agent's first kill points are those of changing its key.
    for at in 1..=6 {
        let name = format!("plc-{at}");
        let mut device = Device::enroll(server.dir.path(), &name, &server.url, &token, "NA", None);
        let output = std::process::Command::new(tidegate_tests::binary("tidegate-agent"))
            .args(["new-key", "--state"])
            .arg(&device.state)
            .output()
            .unwrap();
        assert!(output.status.success());
        device.run_with(&[("TIDEGATE_CRASH_AT", &at.to_string())]);
        eventually("it is killed or through", async || {
            let through = !device.state.join("identity.next.pem").exists();
            (device.ended().is_some() || through).then_some(())
        })
        .await;
        device.kill();
        device.run();
        eventually("the key is changed", async || {
            (!device.state.join("identity.next.pem").exists()).then_some(())
        })
        .await;
        eventually("the device is heard of", async || {
            let view = shown(&server, &device).await;
            let heard = view["agent_version"]
                .as_str()
                .is_some_and(|v| !v.is_empty());
            (heard && view["isolated"].is_null()).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_device_is_told_nothing_until_it_is_readmitted() {
    let (server, mut device) = scene().await;
    device.run();
    server.cli(&[
        "device",
        "isolate",
        "plc",
        "--reason",
        "its cabinet was opened",
    ]);
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    eventually("it is online and isolated", async || {
        let view = shown(&server, &device).await;
        (view["online"] == true && view["reason"]["code"] == "device_isolated").then_some(())
    })
    .await;
    assert_eq!(device.installed().as_deref(), Some("1.0.0"));
    server.cli(&[
        "device",
        "readmit",
        "plc",
        "--reason",
        "it was the electrician",
    ]);
    device.settles_on("1.1.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a49_a_lost_root_stops_the_agent_and_is_found_again_without_losing_the_floors() {
    let (server, mut device) = scene().await;
    device.run();
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
    device.kill();
    let trust = device.state.join("trust");
    // One copy is silently repaired from the other.
    std::fs::write(trust.join("root.1"), "rubbish").unwrap();
    for name in ["timestamp", "snapshot", "targets", "role"] {
        for copy in ["1", "2"] {
            std::fs::write(trust.join(format!("{name}.{copy}")), "rubbish").unwrap();
        }
    }
    server.publish(&[("1.2.0", true)]);
    device.run();
    server.roll_out("1.2.0", &["NA"], json!({})).await;
    device.settles_on("1.2.0").await;
    device.kill();
    for copy in ["1", "2"] {
        std::fs::remove_file(trust.join(format!("root.{copy}"))).unwrap();
    }
    server.publish(&[("1.3.0", true)]);
    device.run();
    server.roll_out("1.3.0", &["NA"], json!({})).await;
    eventually("the agent stops", async || device.ended()).await;
    assert!(
        device.log().contains("tidegate-agent recover"),
        "{}",
        device.log()
    );
    let token = server.join_token();
    let recover = |token: &str| {
        std::process::Command::new(tidegate_tests::binary("tidegate-agent"))
            .args(["recover", "--token", token, "--state"])
            .arg(&device.state)
            .output()
            .unwrap()
    };
    let refused = recover("tgj2_nonsense");
    assert!(!refused.status.success());
    let done = recover(&token);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    device.run();
    device.settles_on("1.3.0").await;
}

#[tokio::test]
async fn a60_signed_requests_cannot_be_used_twice_and_results_must_be_signed() {
    use tidegate_protocol::{DeploymentId, DeploymentState, Report, SessionRequest, paths};
    use tidegate_trust::http_signature::{RequestFacts, sign_request};

    let (server, device) = scene().await;
    let pem = std::fs::read_to_string(device.state.join("identity.pem")).unwrap();
    let key = SecretKey::from_pem(&pem).unwrap();
    let http = reqwest::Client::new();
    let post = async |path: &str, body: Vec<u8>, headers: Vec<(&str, String)>| {
        let mut request = http.post(format!("{}{path}", server.url)).body(body);
        request = request.header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send().await.unwrap()
    };
    let body = serde_json::to_vec(&SessionRequest {
        format: tidegate_protocol::Format::CURRENT,
        device: device.id().parse().unwrap(),
        counter: 1,
    })
    .unwrap();
    let first = post(paths::SESSION, body.clone(), vec![]).await;
    let nonce = first.headers()["tidegate-nonce"]
        .to_str()
        .unwrap()
        .to_owned();
    let authority = server.url.trim_start_matches("http://");
    let sign = |path: &str, query: &str| {
        let facts = RequestFacts {
            method: "POST",
            authority,
            path,
            query,
            body: &body,
        };
        let signed = sign_request(&key, &facts, 1_700_000_000, &nonce);
        vec![
            ("content-digest", signed.content_digest),
            ("signature-input", signed.signature_input),
            ("signature", signed.signature),
        ]
    };
    // The digest is missing, or the query differs from the signed one.
    let mut stripped = sign(paths::SESSION, "");
    stripped.remove(0);
    assert_eq!(
        post(paths::SESSION, body.clone(), stripped).await.status(),
        401
    );
    let other = sign(paths::SESSION, "");
    let path = format!("{}?a=1", paths::SESSION);
    assert_eq!(post(&path, body.clone(), other).await.status(), 401);
    // It is accepted once; the second time it is refused, and nobody is isolated for it.
    let granted = post(paths::SESSION, body.clone(), sign(paths::SESSION, "")).await;
    assert_eq!(granted.status(), 200);
    let ticket: serde_json::Value = granted.json().await.unwrap();
    let again = post(paths::SESSION, body.clone(), sign(paths::SESSION, "")).await;
    assert_eq!(again.status(), 401);
    assert!(shown(&server, &device).await["isolated"].is_null());
    // A report that the device has not signed.
    let report = Report {
        seq: 1,
        deployment: DeploymentId::from_random([1; 16]),
        state: DeploymentState::Succeeded,
        reason: None,
        release: Some("6.6.6".parse().unwrap()),
        image: None,
        bytes_downloaded: 0,
        downtime_ms: None,
        signature: None,
    };
    let batch = serde_json::to_vec(&json!({ "reports": [report] })).unwrap();
    let session = format!("Tidegate-Session {}", ticket["ticket"].as_str().unwrap());
    let refused = post(paths::REPORTS, batch, vec![("authorization", session)]).await;
    assert_eq!(refused.status(), 400);
    assert!(
        refused
            .text()
            .await
            .unwrap()
            .contains("not signed by this device")
    );
    assert_eq!(shown(&server, &device).await["release"], "1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_is_told_of_a_device_counts_on_all_of_them() {
    let Some(cluster) = tidegate_tests::Cluster::start().await else {
        return;
    };
    let first = Server::start_on(tidegate_tests::Database::Postgres(cluster.url())).await;
    let second = first.replica();
    let trees = first.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = first.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    // The device talks to the second server, people to the first.
    let mut device = Device::enroll(
        first.dir.path(),
        "plc",
        &second.url,
        &token,
        "NA",
        installed,
    );
    device.run();
    first.cli(&[
        "device",
        "isolate",
        "plc",
        "--reason",
        "its cabinet was opened",
    ]);
    first.roll_out("1.1.0", &["NA"], json!({})).await;
    eventually("the second server isolates it", async || {
        let view = shown(&second, &device).await;
        (view["reason"]["code"] == "device_isolated").then_some(())
    })
    .await;
    // Online keys and tickets change under a running fleet.
    first.cli(&["keys", "online", "--rotate", "a drill"]);
    first.cli(&["keys", "sign", "--yes"]);
    first.cli(&["keys", "push"]);
    first.cli(&[
        "device",
        "readmit",
        "plc",
        "--reason",
        "it was the electrician",
    ]);
    device.settles_on("1.1.0").await;
    first.cli(&["device", "revoke", "plc", "--reason", "scrapped"]);
    eventually("the second server refuses it", async || {
        device.log().contains("device_revoked").then_some(())
    })
    .await;
}

fn databases(data: &std::path::Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(data).unwrap().flatten();
    files
        .map(|file| file.path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("tidegate.db")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a104_whoever_is_on_the_way_cannot_have_a_device_change_its_key() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let lie = (&b"\"new_key\":false"[..], &b"\"new_key\":true "[..]);
    let mode = Mode::Replace(lie.0.to_vec(), lie.1.to_vec());
    let proxy = Proxy::start(&server.url, mode).await;
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let token = server.join_token();
    let mut device = Device::enroll(dir, "plc", &proxy.url, &token, "NA", installed);
    device.run();
    let key = || std::fs::read_to_string(device.state.join("identity.pem")).unwrap();
    let before = key();
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    // Some ten answers later.
    device.settles_on("1.1.0").await;
    assert_eq!(key(), before);
    // The server's own order is signed.
    server.cli(&["device", "new-key", "plc", "--reason", "yearly"]);
    eventually("the key changes", async || (key() != before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a103_a_key_given_to_a_server_that_is_gone_again_does_not_shut_the_device_out() {
    let (mut server, mut device) = scene().await;
    let data = server.dir.path().join("data");
    // The backup from before: the server that takes the new key might as well be a thief's.
    server.kill();
    let backup = tempfile::tempdir().unwrap();
    for path in databases(&data) {
        std::fs::copy(&path, backup.path().join(path.file_name().unwrap())).unwrap();
    }
    server.restart();
    device.run();
    let key = || std::fs::read_to_string(device.state.join("identity.pem")).unwrap();
    let old = key();
    server.cli(&["device", "new-key", "plc", "--reason", "yearly"]);
    eventually("the key changes", async || (key() != old).then_some(())).await;
    let new = key();
    server.kill();
    for path in databases(&data) {
        std::fs::remove_file(path).unwrap();
    }
    for path in databases(backup.path()) {
        std::fs::copy(&path, data.join(path.file_name().unwrap())).unwrap();
    }
    server.restart();
    eventually("the earlier key is used", async || {
        device.log().contains("an earlier key").then_some(())
    })
    .await;
    // And the new one is announced to the true server.
    eventually("the new key is taken", async || {
        let taken = !device.state.join("identity.next.pem").exists() && key() == new;
        taken.then_some(())
    })
    .await;
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
    assert!(shown(&server, &device).await["isolated"].is_null());
}

/// Whoever holds a device's key cannot fill the log of events with its changes: there are four an hour.
#[tokio::test]
async fn a_key_changes_four_times_an_hour_and_again_when_the_hour_is_over() {
    let mut server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let token = server.join_token();
    let dir = server.dir.path().to_owned();
    let device = Device::enroll(&dir, "plc", &server.url, &token, "NA", None);
    let id: DeviceId = device.id().parse().unwrap();
    let pem = std::fs::read_to_string(device.state.join("identity.pem")).unwrap();
    server.kill();
    let clock = Clock::manual(present());
    let running = tidegate_server::start(Settings {
        clock: clock.clone(),
        ..settings(&dir.join("data"), 1_000)
    })
    .await
    .unwrap();
    let app = running.app().clone();
    let mut key = SecretKey::from_pem(&pem).unwrap();
    let mut counter = 0;
    let mut change = async |seed: u8| {
        counter += 1;
        let next = SecretKey::from_seed([seed; 32]);
        let statement = key_change(id, counter, &key.public(), &next.public());
        let request = KeyChange {
            device: id,
            counter,
            public_key: next.public().to_string(),
            proof: hex::encode(next.sign(&statement)),
        };
        let signer = Signer {
            key: key.public(),
            nonce: counter.to_string(),
        };
        let changed = app.change_device_key(&request, &signer, "127.0.0.1").await;
        if changed.is_ok() {
            key = next;
        }
        changed
            .map(|done| done.public_key)
            .map_err(|refused| refused.to_string())
    };
    for seed in 1..=4 {
        let expected = SecretKey::from_seed([seed; 32]).public().to_string();
        assert_eq!(change(seed).await, Ok(expected));
        clock.advance(Duration::from_mins(10));
    }
    let refused = change(5).await.unwrap_err();
    assert!(refused.contains("4 times within an hour"), "{refused}");
    // An hour after the first one there is place for one, and for no second.
    clock.advance(Duration::from_mins(21));
    assert!(change(6).await.is_ok());
    assert!(change(7).await.is_err());
    running.stop().await;
}

//! Attacks from the network and from a tampered server: each ends in a refusal with its reason,
//! and the device keeps running the version it had.

use serde_json::{Value, json};
use tidegate_tests::{Device, Mode, Proxy, Server, eventually};

/// Sets up a server with two releases, a proxy, and a device on the first release.
async fn scene() -> (Server, Proxy, Device) {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    server.built("1.1.0").await;
    let proxy = Proxy::start(&server.url, Mode::Pass).await;
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let device = Device::enroll(
        server.dir.path(),
        "victim",
        &proxy.url,
        &token,
        "NA",
        installed,
    );
    (server, proxy, device)
}

/// Finds the payload blobs of a release, as manifests on the server's disk name them.
fn payloads(server: &Server, delta: bool) -> Vec<String> {
    let mut found = Vec::new();
    let inside = std::fs::read_dir(server.dir.path().join("data/blobs")).unwrap();
    for dir in inside.flatten().filter(|entry| entry.path().is_dir()) {
        for file in std::fs::read_dir(dir.path()).unwrap().flatten() {
            let bytes = std::fs::read(file.path()).unwrap();
            let Ok(manifest) = serde_json::from_slice::<Value>(&bytes) else {
                continue;
            };
            if manifest["from"].is_object() == delta
                && let Some(sha256) = manifest["payload"]["sha256"].as_str()
            {
                found.push(sha256.to_owned());
            }
        }
    }
    found
}

fn tamper(server: &Server, blobs: &[String]) {
    for sha256 in blobs {
        let path = server.blob(sha256);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        std::fs::write(&path, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_delta_is_refused_and_the_whole_image_taken_instead() {
    let (server, _proxy, mut device) = scene().await;
    let deltas = payloads(&server, true);
    assert!(!deltas.is_empty());
    tamper(&server, &deltas);
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
    let fetched = server.rollout_is(&id, "completed").await;
    assert_eq!(fetched["tally"]["failed"], 0);
    let deployment = server.deployments(&id).await.pop().unwrap();
    assert!(
        deployment["bytes_downloaded"].as_u64().unwrap() > 200_000,
        "{deployment}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_chunk_of_every_payload_changes_nothing_on_the_device() {
    let (server, _proxy, mut device) = scene().await;
    tamper(&server, &payloads(&server, true));
    tamper(&server, &payloads(&server, false));
    device.run();
    let id = server
        .roll_out("1.1.0", &["NA"], json!({ "max_attempts": 1 }))
        .await;
    server.rollout_is(&id, "halted").await;
    let deployment = server.deployments(&id).await.pop().unwrap();
    assert_eq!(deployment["reason"]["code"], "chunk_corrupt");
    device.settles_on("1.0.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_assignment_is_refused() {
    let (server, proxy, mut device) = scene().await;
    // The window is part of the signed content; inside a JSON string quotes are escaped.
    let (from, to) = (br#"\"rollback_window_s\":6"#, br#"\"rollback_window_s\":7"#);
    proxy.set(Mode::Replace(from.to_vec(), to.to_vec()));
    device.run();
    server
        .roll_out("1.1.0", &["NA"], json!({ "rollback_window_s": 600 }))
        .await;
    eventually("the refusal is logged", async || {
        device.log().contains("threshold not met").then_some(())
    })
    .await;
    assert_eq!(device.installed().as_deref(), Some("1.0.0"));
    // Nothing is stuck: once the attacker is gone, the update goes through.
    proxy.set(Mode::Pass);
    eventually("the update", async || {
        (device.installed().as_deref() == Some("1.1.0")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tampered_metadata_is_refused() {
    let (server, proxy, mut device) = scene().await;
    // The images' paths in the offline-signed role.
    let (from, to) = (b"app/stable/1.1.0/", b"app/stable/1.1.9/");
    proxy.set(Mode::Replace(from.to_vec(), to.to_vec()));
    device.run();
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    eventually("the refusal is logged", async || {
        device
            .log()
            .contains("integrity check failed")
            .then_some(())
    })
    .await;
    assert_eq!(device.installed().as_deref(), Some("1.0.0"));
}

#[tokio::test]
async fn an_image_that_the_database_names_and_nobody_signed_is_refused() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let mut device = Device::enroll(
        server.dir.path(),
        "victim",
        &server.url,
        &token,
        "NA",
        installed,
    );
    device.run();
    // Someone with the server's API and a stolen token uploads their own bytes as a release:
    // without the offline keys it cannot be given a stage.
    let evil = b"evil".to_vec();
    let sha256 = tidegate_delta::sha256(&evil).to_string();
    let put = reqwest::Client::new()
        .put(format!("{}/api/v1/blobs/{sha256}", server.url))
        .bearer_auth(&server.token)
        .body(evil)
        .send()
        .await
        .unwrap();
    assert!(put.status().is_success());
    server
        .post(
            "/api/v1/products/app/releases",
            json!({ "version": "6.6.6" }),
        )
        .await;
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let artifact = json!({ "platform": platform, "sha256": sha256 });
    server
        .post("/api/v1/products/app/releases/6.6.6/artifacts", artifact)
        .await;
    let body = json!({ "to": "ga", "reason": "mine" });
    let path = "/api/v1/products/app/releases/6.6.6/promote";
    let (status, problem) = server.call("POST", path, Some(body), &server.token).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (409, Some("conflict")),
        "{problem}"
    );
    assert_eq!(device.installed().as_deref(), Some("1.0.0"));
}

#[tokio::test]
async fn a_wrong_used_up_or_foreign_join_token_is_refused() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let dir = server.dir.path();
    let token = server
        .cli(&["device", "join-token", "--product", "app"])
        .trim()
        .to_owned();
    let enroll = |name: &str, token: &str| {
        Device::blank(dir, name).try_enroll(&server.url, token, "NA", None, &[])
    };
    let mut wrong = token.clone();
    // The first digit of the secret.
    let at = token.match_indices('_').nth(1).unwrap().0 + 1;
    wrong.replace_range(
        at..=at,
        if token.as_bytes()[at] == b'0' {
            "1"
        } else {
            "0"
        },
    );
    let (ok, text) = enroll("wrong", &wrong);
    assert!(!ok && text.contains("token_refused"), "{text}");
    // A root other than the pinned one: this is not the server that made the token.
    let other = Server::start().await;
    other.publish(&[("1.0.0", true)]);
    let (ok, text) = Device::blank(dir, "stray").try_enroll(&other.url, &token, "NA", None, &[]);
    assert!(!ok && text.contains("token_refused"), "{text}");
    assert!(enroll("first", &token).0);
    let (ok, text) = enroll("second", &token);
    assert!(!ok && text.contains("used up"), "{text}");
}

#[tokio::test]
async fn a_revoked_device_is_shut_out_at_its_next_request() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let mut device = Device::enroll(
        server.dir.path(),
        "stolen",
        &server.url,
        &token,
        "NA",
        installed,
    );
    device.run();
    server.cli(&[
        "device",
        "revoke",
        "stolen",
        "--reason",
        "stolen from the van",
    ]);
    eventually("the refusal", async || {
        device.log().contains("device_revoked").then_some(())
    })
    .await;
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    let why = server
        .get(&format!("/api/v1/devices/{}/why", device.id()))
        .await;
    assert_eq!(why["reason"]["code"], "device_revoked");
}

//! Values that mean nothing, and are refused rather than taken: attack A115 of
//! `docs/explain/security-model.md`.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tidegate_tests::{Device, Server, binary};

#[tokio::test]
async fn a115_odd_values_are_refused_with_a_sentence() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let refused = async |path: &str, body: Value, wanted: &str| {
        let (status, said) = server.call("POST", path, Some(body), &server.token).await;
        assert_eq!(status, 400, "{said}");
        let detail = said["detail"].as_str().unwrap();
        assert!(detail.contains(wanted), "{detail}");
    };
    let rollout = |names: [&str; 2], soak_s: u64| {
        let waves: Vec<Value> = names
            .iter()
            .map(|name| json!({ "name": name, "selector": "region=NA" }))
            .collect();
        json!({ "product": "app", "release": "1.0.0", "waves": waves, "soak_s": soak_s })
    };
    let rollouts = "/api/v1/rollouts";
    refused(
        rollouts,
        rollout(["NA", "NA"], 0),
        "two waves have one name",
    )
    .await;
    refused(rollouts, rollout(["NA", "EU"], u64::MAX), "soak_s: at most").await;
    server
        .post(rollouts, rollout(["NA", "EU"], 2_592_000))
        .await;
    let hold = |link: &str| json!({ "product": "app", "selector": "region=NA", "reason": "r", "link": link });
    for link in ["javascript:alert(1)", "data:text/html,x", "//evil.example"] {
        refused("/api/v1/holds", hold(link), "link: begin it with https://").await;
    }
    server
        .post("/api/v1/holds", hold("https://tickets.example/7"))
        .await;
}

fn serve(data: &std::path::Path, options: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary("tidegate"))
        .args([
            "serve",
            "--exit-with-stdin",
            "--listen",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(data)
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn a115_a_place_of_blobs_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for place in [
        "s3://",
        "s3:///prefix",
        "s3:bucket",
        "gs://bucket",
        "https://bucket",
    ] {
        let (code, said) = serve(&dir.path().join("data"), &["--blobs", place]);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("expected a folder, or s3://bucket/prefix"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a115_a_second_server_on_one_sqlite_file_is_refused() {
    let mut server = Server::start().await;
    let data = server.dir.path().join("data");
    let (code, said) = serve(&data, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("another server uses") && said.contains("PostgreSQL"),
        "{said}"
    );
    // One that was killed leaves nothing behind that keeps the next one out.
    server.restart();
    assert!(server.devices().await.is_empty());
}

#[tokio::test]
async fn a115_a_device_without_a_name_of_its_own_does_not_join() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let token = server.join_token();
    for name in ["", " ", "dev_00000000000000000000000000000000"] {
        let mut device = Device::blank(server.dir.path(), "plc");
        device.name = name.into();
        let (ok, said) = device.try_enroll(&server.url, &token, "NA", None, &[]);
        assert!(
            !ok && said.contains("people find the device by it"),
            "{name:?}: {said}"
        );
    }
    assert!(server.devices().await.is_empty());
}

//! Blobs and metadata for nobody else: attack A110 of `docs/explain/security-model.md`.

use std::time::Duration;

use serde_json::json;
use tidegate_protocol::{DeviceId, Format, SESSION_SCHEME, SessionRequest};
use tidegate_server::config::{Clock, DeviceSettings, Settings};
use tidegate_tests::{Database, Device, Mode, Proxy, Server, eventually};
use tidegate_trust::SecretKey;
use tidegate_trust::http_signature::Signer;

use crate::checkin::{at_rest, present, settings};
use crate::plain_http::Eavesdropper;

#[tokio::test]
async fn a110_blobs_and_metadata_are_for_enrolled_devices_and_operators_where_the_server_says_so() {
    let mut server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let token = server.join_token();
    let dir = server.dir.path().to_owned();
    let device = Device::enroll(&dir, "plc", &server.url, &token, "NA", None);
    let id: DeviceId = device.id().parse().unwrap();
    let viewer = server.cli(&["token", "create", "cache", "--role", "viewer"]);
    let release = server.get("/api/v1/products/app/releases/1.0.0").await;
    let image = release["artifacts"][0]["sha256"]
        .as_str()
        .unwrap()
        .to_owned();
    server.kill();
    let clock = Clock::manual(present());
    let open = settings(&dir.join("data"), 1_000);
    let running = tidegate_server::start(Settings {
        clock: clock.clone(),
        devices: DeviceSettings {
            closed: true,
            ..open.devices.clone()
        },
        ..open
    })
    .await
    .unwrap();
    let app = running.app().clone();
    at_rest(&app).await;
    let paths = [
        "/metadata/timestamp.json".to_owned(),
        format!("/blobs/{image}"),
        format!("/targets/app/stable/{image}.linux"),
    ];
    let http = reqwest::Client::new();
    let statuses = async |authorization: &str| {
        let mut statuses = Vec::new();
        for path in &paths {
            let request = http.get(format!("http://{}{path}", running.address));
            let request = match authorization {
                "" => request,
                text => request.header("authorization", text),
            };
            let answer = request.send().await.unwrap();
            let cache = answer.headers().get("cache-control");
            assert!(cache.is_none_or(|v| !v.to_str().unwrap().contains("public")));
            statuses.push(answer.status().as_u16());
        }
        statuses
    };
    let pem = std::fs::read_to_string(device.state.join("identity.pem")).unwrap();
    let signer = Signer {
        key: SecretKey::from_pem(&pem).unwrap().public(),
        nonce: "1".into(),
    };
    let first = session_of(id, 1);
    let ticket = app
        .grant_session(&first, &signer, "127.0.0.1")
        .await
        .unwrap()
        .ticket;
    let session = format!("{SESSION_SCHEME} {ticket}");
    for stranger in [
        "",
        "Bearer tgo_nonsense",
        "Tidegate-Session a.b.c",
        "Basic eDp5",
    ] {
        assert_eq!(statuses(stranger).await, [401; 3], "{stranger}");
    }
    assert_eq!(
        statuses(&format!("Bearer {}", viewer.trim())).await,
        [200; 3]
    );
    assert_eq!(statuses(&session).await, [200; 3]);
    // A download outlives the session that it began in, by an hour.
    clock.advance(Duration::from_mins(90));
    assert!(app.authenticate_device(&ticket).is_err());
    assert_eq!(statuses(&session).await, [200; 3]);
    clock.advance(Duration::from_mins(30));
    assert_eq!(statuses(&session).await, [401; 3]);
    // Whoever is shut out is shut out here too.
    let second = session_of(id, 2);
    let ticket = app
        .grant_session(&second, &signer, "127.0.0.1")
        .await
        .unwrap()
        .ticket;
    let session = format!("{SESSION_SCHEME} {ticket}");
    assert_eq!(statuses(&session).await, [200; 3]);
    let by = app.authenticate(&server.token).unwrap();
    app.set_device_active(&by, id, false, "stolen")
        .await
        .unwrap();
    assert_eq!(statuses(&session).await, [403; 3]);
    drop(app);
    running.stop().await;
}

fn session_of(device: DeviceId, counter: u64) -> SessionRequest {
    SessionRequest {
        format: Format::CURRENT,
        device,
        counter,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a110_a_device_updates_from_a_closed_server_and_its_mirror_sees_no_ticket() {
    let mirror = Eavesdropper::start("HTTP/1.1 404 No\r\n".into());
    let options = ["--blobs-for", "enrolled", "--mirror", &mirror.url];
    let server = Server::start_with(Database::Sqlite, &options).await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let anonymous = reqwest::get(format!("{}/metadata/timestamp.json", server.url));
    assert_eq!(anonymous.await.unwrap().status(), 401);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "plc", &server.url, &token, "NA", installed);
    device.run();
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
    let heard = mirror.heard();
    assert!(heard.contains("get /blobs/"), "{heard}");
    assert!(!heard.contains("authorization"), "{heard}");
    let examined = std::process::Command::new(&device.agent)
        .args(["doctor", "--state"])
        .arg(&device.state)
        .output()
        .unwrap();
    let examined = String::from_utf8_lossy(&examined.stdout).into_owned();
    assert!(!examined.contains("bad      server"), "{examined}");
    // Started again, it asks with a session of its own.
    server.publish(&[("1.2.0", true)]);
    device.kill();
    server.roll_out("1.2.0", &["NA"], json!({})).await;
    device.run();
    device.settles_on("1.2.0").await;
}

/// A download that is cut again and again, also by the end of the agent, goes on with the bytes that it has
/// although each request must show a ticket.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_from_a_closed_server_goes_on_where_it_stopped() {
    let options = ["--blobs-for", "enrolled"];
    let server = Server::start_with(Database::Sqlite, &options).await;
    server.publish(&[("1.1.0", true)]);
    // Without a base, the whole image of 330 KB is downloaded.
    let proxy = Proxy::start(&server.url, Mode::CutAfter(60_000)).await;
    let token = server.join_token();
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "one", &proxy.url, &token, "NA", None);
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    eventually("half of it is there", async || {
        (proxy.passed() > 160_000).then_some(())
    })
    .await;
    // The ticket that it began with is gone with its process.
    device.kill();
    device.run();
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
    // What was not synced before the kill is fetched again.
    assert!(
        fetched <= image + image / 4,
        "{fetched} bytes for an image of {image}"
    );
    assert!(!device.log().contains("401"), "{}", device.log());
}

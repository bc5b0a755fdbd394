//! Attacks on the server and on its neighbours: those of A54 to A67 in `docs/explain/security-model.md`
//! that are not tested beside the code they attack.

use serde_json::json;
use tidegate_protocol::{DeploymentId, DeploymentState, Report, SessionRequest, paths};
use tidegate_tests::{Device, Server, eventually};
use tidegate_trust::http_signature::{RequestFacts, sign_request};
use tidegate_trust::{SecretKey, sign_report};

/// Opens a session of a device with its key.
async fn session(server: &Server, device: &Device, counter: u64) -> (SecretKey, String) {
    let pem = std::fs::read_to_string(device.state.join("identity.pem")).unwrap();
    let key = SecretKey::from_pem(&pem).unwrap();
    let body = serde_json::to_vec(&SessionRequest {
        format: tidegate_protocol::Format::CURRENT,
        device: device.id().parse().unwrap(),
        counter,
    })
    .unwrap();
    let url = format!("{}{}", server.url, paths::SESSION);
    let http = reqwest::Client::new();
    let first = http.post(&url).body(body.clone()).send().await.unwrap();
    let nonce = first.headers()["tidegate-nonce"]
        .to_str()
        .unwrap()
        .to_owned();
    let facts = RequestFacts {
        method: "POST",
        authority: server.url.trim_start_matches("http://"),
        path: paths::SESSION,
        query: "",
        body: &body,
    };
    let signed = sign_request(&key, &facts, 1_700_000_000, &nonce);
    let granted = http
        .post(&url)
        .header("content-digest", signed.content_digest)
        .header("signature-input", signed.signature_input)
        .header("signature", signed.signature)
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(granted.status(), 200);
    let granted: serde_json::Value = granted.json().await.unwrap();
    (key, granted["ticket"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a57_a_device_cannot_speak_for_another() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let mut victim = Device::enroll(dir, "victim", &server.url, &token, "NA", installed);
    let spy = Device::enroll(dir, "spy", &server.url, &token, "EU", installed);
    let (key, ticket) = session(&server, &spy, 1).await;
    victim.run();
    let rollout = server
        .roll_out("1.1.0", &["NA"], json!({ "rollback_window_s": 600 }))
        .await;
    let deployment = eventually("the victim is in its window", async || {
        let list = server.deployments(&rollout).await;
        list.into_iter().find(|d| d["state"] == "probation")
    })
    .await;
    let id: DeploymentId = deployment["id"].as_str().unwrap().parse().unwrap();
    let report = |device: &Device, seq| {
        let report = Report {
            seq,
            deployment: id,
            state: DeploymentState::RolledBack,
            reason: None,
            release: Some("1.0.0".parse().unwrap()),
            image: None,
            bytes_downloaded: 0,
            downtime_ms: None,
            signature: None,
        };
        sign_report(&key, device.id().parse().unwrap(), report).unwrap()
    };
    let send = async |report: Report, ticket: &str| {
        reqwest::Client::new()
            .post(format!("{}{}", server.url, paths::REPORTS))
            .header("authorization", format!("Tidegate-Session {ticket}"))
            .json(&json!({ "reports": [report] }))
            .send()
            .await
            .unwrap()
            .status()
    };
    // Reports in its own name, about the victim's deployment, and in the victim's name.
    assert_eq!(send(report(&spy, 1), &ticket).await, 200);
    assert_eq!(send(report(&victim, 2), &ticket).await, 400);
    let forged = ticket.replacen(&spy.id(), &victim.id(), 1);
    assert_eq!(send(report(&victim, 3), &forged).await, 401);
    let still = server.deployments(&rollout).await;
    assert_eq!(still[0]["state"], "probation", "{still:?}");
}

/// Whoever has the ticket of a device can say what runs there; its key alone signs results.
#[tokio::test(flavor = "multi_thread")]
async fn a122_what_a_check_in_claims_is_marked_and_satisfies_no_gate() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let mut honest = Device::enroll(dir, "honest", &server.url, &token, "NA", installed);
    let liar = Device::enroll(dir, "liar", &server.url, &token, "NA", installed);
    let (_, ticket) = session(&server, &liar, 1).await;
    let claim = json!({
        "format": tidegate_protocol::Format::CURRENT, "nonce": "ab".repeat(32), "counter": 0,
        "agent_version": "0.1.0", "release": "1.1.0",
    });
    let answer = reqwest::Client::new()
        .post(format!("{}{}", server.url, paths::CHECK_IN))
        .header("authorization", format!("Tidegate-Session {ticket}"))
        .json(&claim)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let view = server.get(&format!("/api/v1/devices/{}", liar.id())).await;
    assert_eq!(view["release"], "1.1.0");
    let claimed = view["claimed"].as_array().unwrap();
    assert!(claimed.contains(&json!("release")) && claimed.contains(&json!("battery_percent")));
    let shown = server.cli(&["device", "show", "liar"]);
    assert!(shown.contains("1.1.0 (claimed)"), "{shown}");
    // Two have to show that the release is good.
    honest.run();
    let rollout = server
        .roll_out("1.1.0", &["NA"], json!({ "min_sample": 2 }))
        .await;
    honest.settles_on("1.1.0").await;
    let waits = eventually("the gate waits for a second device", async || {
        let rollout = server.get(&format!("/api/v1/rollouts/{rollout}")).await;
        assert_ne!(rollout["state"], "completed", "{rollout}");
        (rollout["reason"]["code"] == "sample_too_small").then_some(rollout)
    })
    .await;
    assert!(
        waits["reason"]["text"]
            .as_str()
            .unwrap()
            .contains("1 of 2 needed"),
        "{waits}"
    );
    // What a report has signed is marked no longer.
    let view = server
        .get(&format!("/api/v1/devices/{}", honest.id()))
        .await;
    assert!(
        !view["claimed"]
            .as_array()
            .unwrap()
            .contains(&json!("release"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a58_of_many_who_come_at_once_with_a_token_for_one_one_joins() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let token = server
        .cli(&["device", "join-token", "--product", "app"])
        .trim()
        .to_owned();
    let (url, dir) = (server.url.clone(), server.dir.path().to_owned());
    let tries: Vec<_> = (0..6)
        .map(|n| {
            let (url, dir, token) = (url.clone(), dir.clone(), token.clone());
            std::thread::spawn(move || {
                let device = Device::blank(&dir, &format!("racer-{n}"));
                device.try_enroll(&url, &token, "NA", None, &[]).0
            })
        })
        .collect();
    let joined = tries.into_iter().map(|t| t.join().unwrap());
    assert_eq!(joined.filter(|ok| *ok).count(), 1);
    assert_eq!(server.devices().await.len(), 1);
}

#[tokio::test]
async fn a66_input_that_is_code_elsewhere_is_text_here() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    for path in [
        "/api/v1/devices?product=app'%20OR%20'1'='1",
        "/api/v1/devices?limit=999999999999",
        "/api/v1/devices?limit=-1",
        "/api/v1/devices/x';DROP%20TABLE%20device;--",
        "/api/v1/products/app/releases/1.0.0'--",
        "/api/v1/rollouts?cursor=AAAA",
        "/metadata/..%2f..%2fetc%2fpasswd",
        "/metadata/1.root.json'%20OR%201=1",
        "/targets/..%2f..%2fetc/passwd",
    ] {
        let (status, body) = server.call("GET", path, None, &server.token).await;
        assert!(status < 500, "{path}: {status} {body}");
    }
    let long = "(a+)+".repeat(20_000);
    let body = json!({
        "product": "app", "release": "1.0.0", "waves": [{ "name": "x", "selector": long }],
    });
    let (status, _) = server
        .call("POST", "/api/v1/rollouts", Some(body), &server.token)
        .await;
    assert!((400..500).contains(&status), "{status}");
    assert_eq!(server.devices().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a67_no_secret_is_written_to_a_log_or_left_for_others_to_read() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "plc", &server.url, &token, "NA", installed);
    let (ok, refused) =
        Device::blank(dir, "other").try_enroll(&server.url, &token[..70], "NA", None, &[]);
    assert!(!ok);
    device.run();
    let rollout = server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
    let secret = token.split('_').nth(2).unwrap();
    let identity = std::fs::read_to_string(device.state.join("identity.pem")).unwrap();
    let body = identity.lines().nth(1).unwrap();
    let events = server
        .get(&format!("/api/v1/rollouts/{rollout}/events"))
        .await
        .to_string();
    for (what, text) in [
        ("the server's log", server.log()),
        ("the agent's log", device.log()),
        ("a refusal", refused),
        ("the events", events),
    ] {
        for secret in [server.token.as_str(), secret, body] {
            assert!(!text.contains(secret), "{what} holds a secret");
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        for file in [
            device.state.join("identity.pem"),
            dir.join("data/admin.token"),
            dir.join("keys/private/owner.pem"),
        ] {
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", file.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a55_a_health_check_is_a_program_with_arguments_and_never_a_line_of_shell() {
    let server = Server::start().await;
    let tree = tidegate_tests::application(server.dir.path(), "1.0.0", true);
    server.cli(&["keys", "init", "--no-passphrase"]);
    let evil = server.dir.path().join("evil");
    let tree = tree.display().to_string();
    let command = format!("health.sh ;touch {} $(touch {0})", evil.display());
    server.cli(&[
        "release",
        "publish",
        &tree,
        "--product",
        "app",
        "--release",
        "1.0.0",
        "--health-cmd",
        &command,
    ]);
    server.cli(&[
        "release", "promote", "app", "1.0.0", "--to", "ga", "--reason", "x",
    ]);
    let token = server.join_token();
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "plc", &server.url, &token, "NA", None);
    device.run();
    server.roll_out("1.0.0", &["NA"], json!({})).await;
    device.settles_on("1.0.0").await;
    assert!(!evil.exists());
}

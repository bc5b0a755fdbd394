//! Text of others on a person's terminal: a server that puts escape sequences, invisible characters
//! and forged lines into every text field of its answers, and the commands that show them.

use std::process::{Command, Stdio};

use axum::Router;
use axum::http::Uri;
use axum::response::IntoResponse as _;
use serde_json::{Map, Value, json};
use tidegate_protocol::{
    Diagnosis, Explained, Finding, Format, Reason, SessionRequest, Timestamp, Verdict, paths,
};
use tidegate_tests::{Device, Server, application};
use tidegate_trust::SecretKey;
use tidegate_trust::http_signature::{RequestFacts, sign_request};

/// Text that moves the cursor, hides what follows, turns it round and forges a line.
const HOSTILE: &str =
    "x\nFORGED: all is well\r\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}8m\u{202e}\u{200b}\u{2028}\u{e0041}\t.";

/// Makes an answer of a schema with hostile text in every field that can hold text.
fn example(schema: &Value, doc: &Value, depth: u8) -> Value {
    if depth > 12 {
        return Value::Null;
    }
    let within = |schema: &Value| example(schema, doc, depth + 1);
    if let Some(name) = schema["$ref"].as_str() {
        let found = doc.pointer(name.trim_start_matches('#'));
        return within(found.unwrap_or_else(|| panic!("{name} is not in the document")));
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let not_null = choices.iter().find(|s| s["type"] != "null");
            return not_null.map_or(Value::Null, within);
        }
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|k| *k != "null").unwrap(),
        kind => kind,
    };
    match kind.as_str() {
        Some("object") => {
            let mut made = Map::new();
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                // Another page would never end.
                let page = name == "next_cursor";
                made.insert(name.clone(), if page { Value::Null } else { within(field) });
            }
            match &schema["additionalProperties"] {
                Value::Object(of) => {
                    made.insert(HOSTILE.into(), within(&Value::Object(of.clone())));
                }
                _ if made.is_empty() => {
                    made.insert(HOSTILE.into(), HOSTILE.into());
                }
                _ => {}
            }
            Value::Object(made)
        }
        Some("array") => json!([within(&schema["items"])]),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        _ => HOSTILE.into(),
    }
}

/// Answer of the API's document to a request; a problem where it knows none.
fn answer(doc: &Value, method: &str, path: &str) -> (u16, Value) {
    let matches = |template: &str| {
        let mut parts = template.split('/').zip(path.split('/'));
        template.split('/').count() == path.split('/').count()
            && parts.all(|(t, p)| t.starts_with('{') || t == p)
    };
    let paths = doc["paths"].as_object().unwrap();
    let operation = paths
        .iter()
        .filter(|(template, _)| matches(template))
        // A path without a parameter before one with.
        .min_by_key(|(template, _)| template.matches('{').count())
        .map(|(_, operations)| &operations[method]);
    let content = operation.and_then(|o| {
        ["200", "201", "202"]
            .iter()
            .find_map(|s| o.pointer(&format!("/responses/{s}/content/application~1json/schema")))
    });
    match content {
        Some(schema) => (200, example(schema, doc, 0)),
        None => (
            409,
            json!({
                "type": HOSTILE, "title": HOSTILE, "status": 409, "code": "conflict",
                "detail": HOSTILE, "request_id": HOSTILE,
            }),
        ),
    }
}

/// Starts the hostile server; returns its address.
async fn serve() -> String {
    serve_with(answer).await
}

/// Starts a server with answers of its own.
async fn serve_with(
    answer: impl FnMut(&Value, &str, &str) -> (u16, Value) + Send + 'static,
) -> String {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/reference/openapi.json"
    );
    let doc: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = std::sync::Arc::new(std::sync::Mutex::new(answer));
    let router = Router::new().fallback(async move |method: axum::http::Method, uri: Uri| {
        let method = method.as_str().to_lowercase();
        let (status, body) = (answer.lock().unwrap())(&doc, &method, uri.path());
        let status = axum::http::StatusCode::from_u16(status).unwrap();
        (status, axum::Json(body)).into_response()
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Checks that a terminal shows a text as it is: each line ours, nothing that moves or hides.
fn assert_harmless(command: &[&str], text: &str) {
    for line in text.lines() {
        assert!(
            !line.trim_start().starts_with("FORGED"),
            "{command:?}: {text}"
        );
    }
    for c in text.chars() {
        let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{e0000}'..='\u{e007f}');
        let harmless = c == '\n' || !(c.is_control() || hidden);
        assert!(harmless, "{command:?} shows {c:?}: {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a113_no_text_of_the_server_moves_a_cursor_hides_or_forges_a_line() {
    let url = serve().await;
    let dir = tempfile::tempdir().unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    let [rollout, device, incident, hold] =
        ["rol", "dev", "inc", "hold"].map(|kind| format!("{kind}_{id}"));
    let commands: Vec<Vec<&str>> = vec![
        vec!["whoami"],
        vec!["token", "list"],
        vec!["release", "list"],
        vec!["release", "list", "app"],
        vec!["release", "get", "app", "1.0.0"],
        vec!["release", "delta", "app", "1.0.0"],
        vec!["product", "show", "app"],
        vec!["rollout", "list"],
        vec!["rollout", "get", &rollout],
        vec!["rollout", "why", &rollout],
        vec!["rollout", "presets"],
        vec!["rollout", "deployments", &rollout],
        vec!["rollout", "events", &rollout],
        vec!["rollout", "pause", &rollout, "--reason", "x"],
        vec!["rollout", "halt", &rollout, "--reason", "x"],
        vec!["rollout", "cancel", &rollout, "--reason", "x"],
        vec!["rollout", "resume", &rollout],
        vec!["rollout", "advance", &rollout],
        vec!["rollback", &rollout, "--reason", "x"],
        vec!["rollback", &rollout, "--reason", "x", "--dry-run"],
        vec!["incident", "list"],
        vec!["incident", "show", &incident],
        vec!["hold", "list"],
        vec!["hold", "lift", &hold, "--reason", "x"],
        vec!["device", "list"],
        vec!["device", "show", &device],
        vec!["device", "why", &device],
        vec!["device", "isolate", &device, "--reason", "x"],
        vec!["device", "revoke", &device, "--reason", "x"],
        vec!["device", "join-token", "--product", "app"],
        vec!["keys", "fetch"],
        vec!["doctor"],
    ];
    let mut understood = Vec::new();
    for command in &commands {
        for format in ["table", "json"] {
            let output = Command::new(tidegate_tests::binary("tidegate"))
                .args(command)
                .args(["-o", format])
                .env("TIDEGATE_SERVER", &url)
                .env("TIDEGATE_TOKEN", "tgo_x")
                .env("TIDEGATE_KEYS", dir.path().join("keys"))
                .env("HOME", dir.path())
                .env_remove("XDG_CONFIG_HOME")
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let [out, err] = [&output.stdout, &output.stderr]
                .map(|bytes| String::from_utf8(bytes.clone()).unwrap());
            assert_harmless(command, &out);
            assert_harmless(command, &err);
            if out.contains("FORGED") {
                understood.push(format!("{} {format}", command.join(" ")));
            }
            if format == "json" && output.status.success() && !out.is_empty() {
                // The escaped form is the same JSON: a script gets the very text.
                let value: Value = serde_json::from_str(&out).unwrap();
                assert!(!out.contains("FORGED") || value.to_string().contains("FORGED"));
            }
        }
    }
    // The test can fail: most commands did show what the server said.
    assert!(
        understood.len() >= 35,
        "{}: {understood:#?}",
        understood.len()
    );
}

/// A list that goes on for ever: the same page again and again, or empty pages with ever new cursors. It
/// ends after a while for a command that reads on, which then fails the test and does not hang.
#[tokio::test(flavor = "multi_thread")]
async fn a106_a_server_that_never_ends_its_pages_is_told_so_and_keeps_no_command_reading() {
    const READ_ON: u32 = 300;
    let dir = tempfile::tempdir().unwrap();
    for empty in [false, true] {
        let mut number = 0;
        let url = serve_with(move |doc, method, path| {
            let (status, mut body) = answer(doc, method, path);
            if body["items"].is_array() {
                number += 1;
                if empty {
                    body["items"] = json!([]);
                }
                let cursor = if empty {
                    number.to_string()
                } else {
                    "again".into()
                };
                body["next_cursor"] = (number < READ_ON).then_some(cursor).into();
            }
            (status, body)
        })
        .await;
        for command in [
            &["device", "list"][..],
            &["rollout", "list"],
            &[
                "rollout",
                "get",
                "rol_0123456789abcdef0123456789abcdef",
                "--watch",
            ],
        ] {
            let output = Command::new(tidegate_tests::binary("tidegate"))
                .args(command)
                .env("TIDEGATE_SERVER", &url)
                .env("TIDEGATE_TOKEN", "tgo_x")
                .env("HOME", dir.path())
                .env_remove("XDG_CONFIG_HOME")
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("list does not end"), "{command:?}: {said}");
            assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        }
    }
}

/// Sends a check-in of a device that is no agent, with its own words in it.
async fn check_in(server: &Server, device: &Device, words: &str) {
    let pem = std::fs::read_to_string(device.state.join("identity.pem")).unwrap();
    let key = SecretKey::from_pem(&pem).unwrap();
    let http = reqwest::Client::new();
    let body = serde_json::to_vec(&SessionRequest {
        format: Format::CURRENT,
        device: device.id().parse().unwrap(),
        counter: 1,
    })
    .unwrap();
    let session = || {
        http.post(format!("{}{}", server.url, paths::SESSION))
            .header("content-type", "application/json")
            .body(body.clone())
    };
    let nonce = session().send().await.unwrap().headers()["tidegate-nonce"].clone();
    let facts = RequestFacts {
        method: "POST",
        authority: server.url.trim_start_matches("http://"),
        path: paths::SESSION,
        query: "",
        body: &body,
    };
    let signed = sign_request(&key, &facts, 1_700_000_000, nonce.to_str().unwrap());
    let granted = session()
        .header("content-digest", signed.content_digest)
        .header("signature-input", signed.signature_input)
        .header("signature", signed.signature)
        .send()
        .await
        .unwrap();
    let granted: Value = granted.json().await.unwrap();
    let ticket = granted["ticket"].as_str().unwrap();
    let finding = Finding::new(words, words, words, Verdict::Bad);
    let body = json!({
        "format": Format::CURRENT, "nonce": "ab".repeat(32), "counter": 0, "agent_version": words,
        "refused": Explained::new(Reason::MetadataRefused, words),
        "diagnosis": Diagnosis { time: Timestamp::ZERO, cut_off_s: 60, findings: vec![finding] },
    });
    let answer = http
        .post(format!("{}{}", server.url, paths::CHECK_IN))
        .header("authorization", format!("Tidegate-Session {ticket}"))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a108_no_text_of_a_device_publisher_or_operator_forges_a_line_of_the_servers_log() {
    let mut server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true)]);
    server.log_at("debug");
    let dir = server.dir.path();
    // Its health check speaks, too: a report.
    let bad = application(dir, "1.1.0", true);
    let script = format!("#!/bin/sh\ncat <<'END' >&2\n{HOSTILE}\nEND\nexit 1\n");
    std::fs::write(bad.join("health.sh"), script).unwrap();
    server.publish_tree(&bad, "1.1.0", &[]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let join = |name: &str, region: &str| {
        let mut device = Device::blank(dir, name);
        device.name = format!("{name} {HOSTILE}");
        let (ok, text) = device.try_enroll(&server.url, &token, region, installed, &[]);
        assert!(ok, "{text}");
        assert_harmless(&["enroll"], &text);
        device
    };
    let mut agent = join("agent", "NA");
    let raw = join("raw", "EU");
    check_in(&server, &raw, HOSTILE).await;
    agent.run();
    let once = json!({ "max_attempts": 1 });
    let id = server.roll_out("1.1.0", &["NA"], once).await;
    server.rollout_is(&id, "halted").await;
    agent.settles_on("1.0.0").await;
    for (path, body) in [
        (
            "/api/v1/holds",
            json!({ "product": "app", "reason": HOSTILE, "link": HOSTILE }),
        ),
        (
            "/api/v1/tokens",
            json!({ "name": HOSTILE, "role": HOSTILE }),
        ),
        (
            "/api/v1/trust/drafts",
            json!({ "role": HOSTILE, "body": HOSTILE }),
        ),
        (
            &format!("/api/v1/rollouts/{id}/cancel"),
            json!({ "reason": HOSTILE }),
        ),
    ] {
        let _ = server.call("POST", path, Some(body), &server.token).await;
    }
    let log = server.log();
    assert_harmless(&["server.log"], &log);
    for line in log.lines() {
        assert!(line.starts_with("20"), "{line:?}");
    }
    // The test can fail: their words are there, and marked as theirs.
    for speaker in ["device says: ", "operator says: "] {
        let quoted = |line: &&str| line.contains(speaker) && line.contains("FORGED");
        assert!(log.lines().any(|line| quoted(&line)), "{speaker} {log}");
    }
    // People see the same mark.
    let shown = server.cli(&["rollout", "deployments", &id]);
    assert!(shown.contains("device says: "), "{shown}");
    let shown = server.cli(&["device", "show", &raw.id()]);
    assert_harmless(&["device", "show"], &shown);
    assert_eq!(shown.matches("device says: ").count(), 2, "{shown}");
}

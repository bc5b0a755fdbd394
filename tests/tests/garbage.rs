//! Deltas that nobody can use any more.

use serde_json::Value;
use tidegate_tests::{Server, eventually};

/// From which release and to which there are deltas.
async fn deltas(server: &Server, versions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for version in versions {
        let path = format!("/api/v1/products/app/releases/{version}/deltas");
        let list = server.get(&path).await;
        for payload in list.as_array().into_iter().flatten() {
            if let (Some(from), "ready") = (
                payload["from"].as_str(),
                payload["state"].as_str().unwrap_or(""),
            ) {
                found.push((from.to_owned(), (*version).to_owned()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

#[tokio::test]
async fn deltas_that_nobody_can_use_are_deleted_and_others_stay() {
    let mut server = Server::start().await;
    server.publish(&[("1.0.0", true), ("1.1.0", true), ("1.2.0", true)]);
    let all = ["1.0.0", "1.1.0", "1.2.0"];
    for version in all {
        server.built(version).await;
    }
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let before = deltas(&server, &all).await;
    assert!(before.contains(&pair("1.0.0", "1.2.0")), "{before:?}");
    server.cli(&[
        "release", "promote", "app", "1.0.0", "--to", "eol", "--reason", "test",
    ]);
    // A round of collecting follows when a server begins to lead, then every hour.
    server.restart();
    let left = eventually("deltas of 1.0.0 are gone", async || {
        let left = deltas(&server, &all).await;
        let gone = !left
            .iter()
            .any(|(from, to)| from == "1.0.0" || to == "1.0.0");
        gone.then_some(left)
    })
    .await;
    assert_eq!(left, [pair("1.1.0", "1.2.0"), pair("1.2.0", "1.1.0")]);
    // Full payloads stay.
    let path = "/api/v1/products/app/releases/1.0.0/deltas";
    let full = |p: &Value| p["from"].is_null() && p["state"] == "ready";
    let list = server.get(path).await;
    assert!(list.as_array().into_iter().flatten().any(full), "{list}");
}

//! Payloads that the server builds in advance, and removal of those that nobody can use any more.

use serde_json::{Value, json};
use tidegate_tests::{Database, Device, Server, eventually, packed};

/// Returns the source and target release of every delta.
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
    // Collection runs when a server becomes leader, then every hour.
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

/// Reads the stored manifests: encoding and chunk lengths.
fn manifests(server: &Server) -> Vec<(String, Vec<u64>)> {
    let some = server.blob("0000");
    let folders = some.parent().and_then(|p| p.parent()).unwrap();
    let mut found = Vec::new();
    for folder in std::fs::read_dir(folders).unwrap().flatten() {
        for file in std::fs::read_dir(folder.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let bytes = std::fs::read(file.path()).unwrap();
            let Ok(manifest) = serde_json::from_slice::<Value>(&bytes) else {
                continue;
            };
            let lengths = manifest["chunks"].as_array().into_iter().flatten();
            found.push((
                manifest["encoding"].as_str().unwrap_or("").to_owned(),
                lengths.map(|c| c["length"].as_u64().unwrap()).collect(),
            ));
        }
    }
    found
}

#[tokio::test]
async fn a_product_has_the_chunks_that_it_asks_for() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    server.built("1.0.0").await;
    let whole = |m: &(String, Vec<u64>)| m.0 == "full" && m.1.len() == 1;
    assert!(manifests(&server).iter().any(whole));
    let (code, _, err) = server.cli_raw(&["product", "set", "app", "--delta-chunk", "2048"]);
    assert_ne!(code, 0);
    assert!(err.contains("delta_chunk_kib: 64 to 1024"), "{err}");
    let set = [
        "product",
        "set",
        "app",
        "--delta-chunk",
        "64",
        "--full-chunk",
        "64",
    ];
    let shown = server.cli(&set);
    assert!(shown.contains("64 KiB"), "{shown}");
    server.publish(&[("1.1.0", true)]);
    server.built("1.1.0").await;
    let made = manifests(&server);
    let cut = |m: &(String, Vec<u64>)| {
        m.0 == "full" && m.1.len() >= 4 && m.1.iter().all(|&length| length <= 64 << 10)
    };
    assert!(made.iter().any(cut), "{made:?}");
    let delta =
        |m: &(String, Vec<u64>)| m.0 == "quick" && m.1.iter().all(|&length| length <= 64 << 10);
    assert!(made.iter().any(delta), "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_archive_has_packed_travels_as_its_difference() {
    let metrics = ["--metrics-listen", "127.0.0.1:0"];
    let server = Server::start_with(Database::Sqlite, &metrics).await;
    for (version, which) in [("1.0.0", "old"), ("1.1.0", "new")] {
        let lib = server.dir.path().join(format!("app-{version}/lib"));
        std::fs::create_dir_all(&lib).unwrap();
        let image = packed(which);
        std::fs::copy(image, lib.join("recipes.zip")).unwrap();
    }
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    for version in ["1.0.0", "1.1.0"] {
        server.built(version).await;
    }
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let (dir, url) = (server.dir.path(), &server.url);
    let mut device = Device::enroll(dir, "plc", url, &token, "NA", installed);
    device.run();
    let rollout = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&rollout, "completed").await;
    device.settles_on("1.1.0").await;
    let got = device.state.join("current/tree/lib/recipes.zip");
    assert!(std::fs::read(got).unwrap() == std::fs::read(packed("new")).unwrap());
    // Without unpacking, a hundred kilobytes would differ.
    let deployment = &server.deployments(&rollout).await[0];
    let bytes = deployment["bytes_downloaded"].as_u64().unwrap();
    assert!((1..20_000).contains(&bytes), "{deployment}");
    let counted = reqwest::get(&server.metrics).await.unwrap();
    let counted = counted.text().await.unwrap();
    let number = |name: &str| -> u64 {
        let line = counted.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(number("tidegate_fetched_bytes_total"), bytes);
    assert!(number("tidegate_saved_bytes_total") > 300_000, "{counted}");
    // The scratch file that unpacking needed is gone.
    let left = ["a", "b"].map(|s| device.state.join(format!("slots/{s}/unpacked")).exists());
    assert_eq!(left, [false, false]);
}

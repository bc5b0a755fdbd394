//! A responder's day: one command, the sheet, the way back.
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_tests::{Cluster, Database, Device, Server, eventually};

fn fleet(server: &Server, per_region: usize) -> (Vec<Device>, Vec<PathBuf>) {
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let mut devices = Vec::new();
    for region in ["NA", "EU"] {
        for number in 0..per_region {
            let name = format!("{region}-{number}");
            let dir = server.dir.path();
            let mut device = Device::enroll(dir, &name, &server.url, &token, region, installed);
            device.run();
            devices.push(device);
        }
    }
    (devices, trees)
}

/// Waits until every device runs a release, its rollback window open or not.
async fn on(server: &Server, release: &str) {
    eventually(&format!("all are on {release}"), async || {
        let there = |d: &Value| d["release"] == release;
        server.devices().await.iter().all(there).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_command_takes_a_release_back_and_the_answer_is_the_sheet() {
    let server = Server::start().await;
    let (_devices, _) = fleet(&server, 2);
    server
        .roll_out("1.1.0", &["NA", "EU"], json!({ "rollback_window_s": 600 }))
        .await;
    on(&server, "1.1.0").await;
    let path = "/api/v1/products/app/releases/1.1.0/rollback";
    let dry = server
        .post(path, json!({ "reason": "wrong prices", "dry_run": true }))
        .await;
    assert_eq!(dry["sheet"]["inside_window"], 4);
    assert_eq!(server.get("/api/v1/incidents").await["items"], json!([]));
    let text = server.cli(&[
        "rollback",
        "app@1.1.0",
        "--reason",
        "wrong prices",
        "--watch",
    ]);
    assert!(
        text.contains("inside the window: return without a download"),
        "{text}"
    );
    server.all_run("1.0.0").await;
    let list = server.get("/api/v1/incidents").await;
    let id = list["items"][0]["id"].as_str().unwrap().to_owned();
    let incident = eventually("the incident is closed", async || {
        let incident = server.get(&format!("/api/v1/incidents/{id}")).await;
        (!incident["closed_at"].is_null()).then_some(incident)
    })
    .await;
    assert_eq!(incident["sheet"]["returned"], 4);
    assert_eq!(incident["sheet"]["still_on_it"], 0);
    // Ordering it again opens no second incident and is not refused.
    server.post(path, json!({ "reason": "to be sure" })).await;
    assert_eq!(incident["rollouts"][0]["state"], "rolled_back");
}

#[tokio::test]
async fn outside_the_window_devices_return_by_a_download_and_a_signed_bar_keeps_them() {
    let server = Server::start().await;
    let (devices, trees) = fleet(&server, 1);
    let id = server
        .roll_out("1.1.0", &["NA", "EU"], json!({ "rollback_window_s": 0 }))
        .await;
    server.rollout_is(&id, "completed").await;
    let path = "/api/v1/products/app/releases/1.1.0/rollback";
    let dry = server
        .post(path, json!({ "reason": "r", "dry_run": true }))
        .await;
    assert_eq!(dry["sheet"]["outside_window"], 2);
    server.post(path, json!({ "reason": "r" })).await;
    server.all_run("1.0.0").await;
    for device in &devices {
        assert_eq!(device.installed().as_deref(), Some("1.0.0"));
    }
    // A release signed without rollback: the sheet says so, and who is stuck.
    let tree = trees[0].display().to_string();
    server.cli(&[
        "release",
        "publish",
        &tree,
        "--product",
        "app",
        "--release",
        "1.2.0",
        "--no-rollback",
    ]);
    server.cli(&[
        "release", "promote", "app", "1.2.0", "--to", "ga", "--reason", "t",
    ]);
    let id = server
        .roll_out_accepting(2, "1.2.0", &["NA", "EU"], json!({ "rollback_window_s": 0 }))
        .await;
    server.rollout_is(&id, "completed").await;
    let path = format!("/api/v1/rollouts/{id}/rollback");
    let sheet = server.post(&path, json!({ "reason": "r" })).await;
    assert_eq!(
        sheet["sheet"]["cannot_return"]["rollback_not_allowed"], 2,
        "{sheet}"
    );
    // The rollback ends all the same, and reports how it ended.
    let rollout = server.rollout_is(&id, "rolled_back_partly").await;
    assert_eq!(rollout["tally"]["stuck"], 2);
    let (code, _, said) = server.cli_raw(&["rollout", "get", &id, "--exit-status"]);
    assert_eq!(code, 8, "{said}");
    assert!(said.contains("2 devices stay on 1.2.0"), "{said}");
    let (code, _, said) = server.cli_raw(&["rollback", &id, "--reason", "r", "--watch"]);
    assert_eq!(code, 8, "{said}");
    assert!(said.contains("2 devices cannot go back"), "{said}");
}

#[tokio::test]
async fn a_rollback_of_one_region_leaves_the_other_where_it_is() {
    let server = Server::start().await;
    let (devices, _) = fleet(&server, 2);
    let id = server
        .roll_out("1.1.0", &["NA", "EU"], json!({ "rollback_window_s": 600 }))
        .await;
    on(&server, "1.1.0").await;
    let text = server.cli(&[
        "rollback",
        &id,
        "--selector",
        "region=EU",
        "--reason",
        "EU only",
    ]);
    assert!(text.contains("for region=EU"), "{text}");
    eventually("EU is back", async || {
        let back =
            |d: &&Device| d.name.starts_with("EU") && d.installed().as_deref() == Some("1.0.0");
        (devices.iter().filter(back).count() == 2).then_some(())
    })
    .await;
    let rollout = server.get(&format!("/api/v1/rollouts/{id}")).await;
    assert_eq!(rollout["state"], "halted");
    for device in devices.iter().filter(|d| d.name.starts_with("NA")) {
        assert_eq!(device.installed().as_deref(), Some("1.1.0"));
    }
}

#[tokio::test]
async fn a_window_is_extended_for_the_whole_fleet() {
    let server = Server::start().await;
    let (devices, _) = fleet(&server, 1);
    let id = server
        .roll_out("1.1.0", &["NA", "EU"], json!({ "rollback_window_s": 30 }))
        .await;
    on(&server, "1.1.0").await;
    server.cli(&[
        "incident",
        "extend-window",
        &id,
        "--by",
        "1h",
        "--reason",
        "we look into it",
    ]);
    let left = async |above: u64| {
        eventually("windows are longer", async || {
            let longer = |d: &Value| {
                d["rollback_window_left_s"]
                    .as_u64()
                    .is_some_and(|s| s > above)
            };
            server.devices().await.iter().all(longer).then_some(())
        })
        .await;
    };
    left(3_000).await;
    let frozen = server.cli(&[
        "incident",
        "freeze-pruning",
        &id,
        "--reason",
        "nobody commits",
    ]);
    assert!(frozen.contains("frozen"), "{frozen}");
    left(80_000).await;
    // Devices in the window go back without a download, however long it was extended.
    server.cli(&["rollback", &id, "--reason", "it was bad"]);
    server.all_run("1.0.0").await;
    assert!(
        devices
            .iter()
            .all(|d| !d.log().contains("downloading 1.0.0"))
    );
}

#[tokio::test]
async fn a_held_check_in_hears_a_rollback_at_once() {
    let server = Server::start().await;
    let (_devices, _) = fleet(&server, 3);
    let id = server
        .roll_out("1.1.0", &["NA", "EU"], json!({ "rollback_window_s": 600 }))
        .await;
    on(&server, "1.1.0").await;
    let began = Instant::now();
    server
        .post(
            &format!("/api/v1/rollouts/{id}/rollback"),
            json!({ "reason": "r" }),
        )
        .await;
    server.all_run("1.0.0").await;
    // A check-in is held for 55 s, and in its window a device asks at least every 30 s, so it was
    // woken. The bound is not a measurement; the demo prints one.
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "{:?}",
        began.elapsed()
    );
}

/// Two servers, one database: an acknowledged halt holds on both.
#[tokio::test]
async fn no_replica_offers_after_a_halt_was_acknowledged() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let first = Server::start_on(Database::Postgres(cluster.url())).await;
    let second = first.replica();
    let trees = first.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = first.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let mut devices = Vec::new();
    for number in 0..24 {
        let url = [&first.url, &second.url][number % 2];
        let name = format!("NA-{number}");
        devices.push(Device::enroll(
            first.dir.path(),
            &name,
            url,
            &token,
            "NA",
            installed,
        ));
    }
    let id = first
        .roll_out(
            "1.1.0",
            &["NA"],
            json!({ "pace_start": 4, "rollback_window_s": 600 }),
        )
        .await;
    devices.iter_mut().for_each(Device::run);
    eventually("some are exposed", async || {
        (first.deployments(&id).await.len() >= 4).then_some(())
    })
    .await;
    // The halt goes to one replica; the other one serves half of the devices.
    let halted = second
        .post(
            &format!("/api/v1/rollouts/{id}/halt"),
            json!({ "reason": "r" }),
        )
        .await;
    assert_eq!(halted["state"], "halted");
    let exposed = first.deployments(&id).await.len();
    // Every device asks again, at both replicas.
    for device in &mut devices {
        device.kill();
        device.run();
    }
    eventually("everybody has asked", async || {
        let events = first
            .get(&format!("/api/v1/rollouts/{id}/events?limit=200"))
            .await;
        let list = events["items"].as_array().unwrap().clone();
        let halt = list
            .iter()
            .position(|e| e["kind"] == "rollout_moved" && e["body"]["order"] == "halt")
            .unwrap();
        let late = list[halt..]
            .iter()
            .filter(|e| e["kind"] == "deployment_offered");
        assert_eq!(late.count(), 0, "an offer after the halt");
        let online = first
            .devices()
            .await
            .iter()
            .filter(|d| d["online"] == true)
            .count();
        (online == 24).then_some(())
    })
    .await;
    assert_eq!(first.deployments(&id).await.len(), exposed);
}

/// Two rollouts on the same devices: rolling back the older one does not touch devices that have
/// moved on, and cuts nobody off.
#[tokio::test]
async fn taking_an_older_rollout_back_leaves_those_alone_who_have_moved_on() {
    let server = Server::start().await;
    let (devices, _) = fleet(&server, 1);
    let first = server
        .roll_out("1.1.0", &["NA", "EU"], json!({ "rollback_window_s": 0 }))
        .await;
    server.rollout_is(&first, "completed").await;
    server.publish(&[("1.2.0", true)]);
    server
        .roll_out("1.2.0", &["NA", "EU"], json!({ "rollback_window_s": 600 }))
        .await;
    on(&server, "1.2.0").await;
    let path = format!("/api/v1/rollouts/{first}/rollback");
    let sheet = server.post(&path, json!({ "reason": "old" })).await;
    assert_eq!(sheet["sheet"]["still_on_it"], 0, "{sheet}");
    server.rollout_is(&first, "rolled_back").await;
    for device in &devices {
        assert_eq!(device.installed().as_deref(), Some("1.2.0"));
    }
    // No request failed on a constraint of the database.
    assert!(!server.log().contains("UNIQUE"), "{}", server.log());
}

#[tokio::test]
async fn a_watched_rollback_ends_in_time_and_goes_on_unwatched() {
    let server = Server::start().await;
    let (mut devices, _) = fleet(&server, 1);
    let order = json!({ "rollback_window_s": 600 });
    let id = server.roll_out("1.1.0", &["NA", "EU"], order).await;
    on(&server, "1.1.0").await;
    for device in &mut devices {
        device.kill();
    }
    let back = ["rollback", &id, "--reason", "r", "--timeout", "1s"];
    let (code, _, said) = server.cli_raw(&back);
    assert_eq!(code, 2, "nothing to time without --watch: {said}");
    let (code, _, said) = server.cli_raw(&[&back[..], &["--watch"]].concat());
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("the rollback continues unwatched"), "{said}");
    let incidents = server.get("/api/v1/incidents").await;
    let incident = incidents["items"][0]["id"].as_str().unwrap();
    let show = ["incident", "show", incident, "--watch", "--timeout", "1s"];
    let (code, _, said) = server.cli_raw(&show);
    assert_eq!(code, 6, "{said}");
    for device in &mut devices {
        device.run();
    }
    let show = ["incident", "show", incident, "--watch", "--timeout", "3m"];
    let (code, _, said) = server.cli_raw(&show);
    assert_eq!(code, 0, "{said}");
}

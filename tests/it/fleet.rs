//! Fleets: waves over regions, halts, killed servers and agents.

use serde_json::json;
use tidegate_tests::{Database, Device, Exit, Server, eventually};

fn fleet(server: &Server, url: &str, tree: &std::path::Path, per_region: usize) -> Vec<Device> {
    let token = server.join_token();
    let mut devices = Vec::new();
    for region in ["NA", "EU", "APAC"] {
        for number in 0..per_region {
            let name = format!("{region}-{number}");
            let installed = Some((tree, "1.0.0"));
            let mut device =
                Device::enroll(server.dir.path(), &name, url, &token, region, installed);
            device.run();
            devices.push(device);
        }
    }
    devices
}

#[tokio::test]
async fn a_rollout_goes_region_by_region_in_order() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let devices = fleet(&server, &server.url, &trees[0], 3);
    let id = server
        .roll_out(
            "1.1.0",
            &["NA", "EU", "APAC"],
            json!({ "pace_start": 2, "rollback_window_s": 1 }),
        )
        .await;
    let rollout = server.rollout_is(&id, "completed").await;
    for wave in rollout["waves"].as_array().unwrap() {
        assert_eq!(wave["state"], "passed");
        assert_eq!(wave["tally"]["healthy"], 3);
    }
    server.all_run("1.1.0").await;
    for device in &devices {
        assert_eq!(device.installed().as_deref(), Some("1.1.0"));
    }
    // No device of a region was offered anything before the previous region was done.
    let events = server
        .get(&format!("/api/v1/rollouts/{id}/events?limit=200"))
        .await;
    let events = events["items"].as_array().unwrap();
    let at = |kind: &str, wave: u32| {
        let same = |e: &serde_json::Value| e["kind"] == kind && e["body"]["wave"] == wave;
        events.iter().position(same).unwrap()
    };
    for wave in [0, 1] {
        let passed = at("wave_passed", wave);
        assert!(passed < at("deployment_offered", wave + 1), "{events:#?}");
    }
    // The actors: the leader passes waves, the answer to a check-in makes offers.
    assert_eq!(events[at("wave_passed", 0)]["actor_kind"], "planner");
    assert_eq!(
        events[at("deployment_offered", 0)]["actor_kind"],
        "check_in"
    );
    let reported = events
        .iter()
        .find(|e| e["kind"] == "deployment_reported")
        .unwrap();
    assert_eq!(reported["actor_kind"], "device");
    assert_eq!(reported["actor_id"], reported["device"]);
}

#[tokio::test]
async fn a_bad_release_is_halted_in_the_first_wave_and_everyone_returns() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", false)]);
    let devices = fleet(&server, &server.url, &trees[0], 3);
    let id = server
        .roll_out(
            "1.1.0",
            &["NA", "EU", "APAC"],
            json!({ "pace_start": 2, "rollback_window_s": 60, "on_breach": "halt_and_roll_back" }),
        )
        .await;
    let rollout = server.rollout_is(&id, "rolled_back").await;
    assert_eq!(rollout["reason"]["code"], "gate_breached");
    server.all_run("1.0.0").await;
    let deployments = server.deployments(&id).await;
    assert!(deployments.len() <= 3, "{} exposed", deployments.len());
    for device in devices.iter().filter(|d| !d.name.starts_with("NA")) {
        assert!(!device.log().contains("1.1.0"), "{} saw it", device.name);
    }
}

#[tokio::test]
async fn nothing_is_lost_when_the_server_is_killed_in_the_middle() {
    let mut server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let _devices = fleet(&server, &server.url, &trees[0], 3);
    let id = server
        .roll_out(
            "1.1.0",
            &["NA", "EU", "APAC"],
            json!({ "pace_start": 1, "rollback_window_s": 1 }),
        )
        .await;
    for kill_at in 1..=3 {
        eventually("progress", async || {
            (server.deployments(&id).await.len() >= kill_at * 2).then_some(())
        })
        .await;
        server.restart();
    }
    server.rollout_is(&id, "completed").await;
    server.all_run("1.1.0").await;
    let deployments = server.deployments(&id).await;
    assert_eq!(deployments.len(), 9);
    assert!(
        deployments
            .iter()
            .all(|d| d["state"] == "succeeded" && d["attempts"] == 1)
    );
}

/// Kills each of several agents once, each at a different step; all must end the same way.
async fn killed_at_every_step(healthy: bool, end: &str) {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", healthy)]);
    server.built("1.1.0").await;
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let mut devices: Vec<Device> = (0..140)
        .map(|n| Device::enroll(dir, &format!("d{n}"), &server.url, &token, "NA", installed))
        .collect();
    // A gate that lets everything through: the devices are under test.
    let open = json!({
        "rollback_window_s": 2, "max_failure_bp": 10_000, "min_success_bp": 0, "min_failures": 1_000,
    });
    let id = server.roll_out("1.1.0", &["NA"], open).await;
    for (point, device) in devices.iter_mut().enumerate() {
        device.run_with(&[("TIDEGATE_CRASH_AT", &(point + 1).to_string())]);
    }
    let mut killed = vec![false; devices.len()];
    eventually(
        "every agent is killed, or has passed its point",
        async || {
            for (device, killed) in devices.iter_mut().zip(&mut killed) {
                if let Some(exit) = device.ended() {
                    assert_eq!(exit, Exit::Signal, "{} ended by itself", device.name);
                    // Whatever was interrupted, one whole version is in use.
                    let version = device.installed().expect("something is in use");
                    let tree = dir.join(format!("app-{version}"));
                    let table = device.state.join("current/tree/table");
                    assert!(
                        std::fs::read(table).unwrap() == std::fs::read(tree.join("table")).unwrap()
                    );
                    *killed = true;
                    device.run();
                }
            }
            let settled =
                |d: &Device| d.status()["state"].is_null() && d.installed().as_deref() == Some(end);
            // A device that has not begun looks like one that has rolled back.
            let over = [
                "succeeded",
                "failed",
                "rolled_back",
                "timed_out",
                "cancelled",
            ];
            let deployments = server.deployments(&id).await;
            let ended = deployments.len() == devices.len()
                && deployments
                    .iter()
                    .all(|d| d["state"].as_str().is_some_and(|s| over.contains(&s)));
            (ended && devices.iter().all(settled)).then_some(())
        },
    )
    .await;
    // The first kill points are part of every update, so they must really have been reached.
    assert!(killed.iter().filter(|k| **k).count() >= 90, "{killed:?}");
    eventually("the server knows", async || {
        let there = |d: &serde_json::Value| d["release"] == end && d["state"].is_null();
        server.devices().await.iter().all(there).then_some(())
    })
    .await;
}

#[tokio::test]
async fn agents_killed_at_every_step_of_a_good_update_end_on_the_new_release() {
    killed_at_every_step(true, "1.1.0").await;
}

#[tokio::test]
async fn agents_killed_at_every_step_of_a_bad_update_end_on_the_old_release() {
    killed_at_every_step(false, "1.0.0").await;
}

#[tokio::test]
async fn two_replicas_on_postgresql_share_a_rollout_and_either_may_be_killed() {
    let Some(cluster) = tidegate_tests::Cluster::start().await else {
        return;
    };
    let mut first = Server::start_on(Database::Postgres(cluster.url())).await;
    let mut second = first.replica();
    let trees = first.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = first.join_token();
    let urls = [first.url.clone(), second.url.clone()];
    let mut devices = Vec::new();
    for (number, region) in ["NA", "EU", "APAC"].into_iter().cycle().take(9).enumerate() {
        // The first wave's devices use the second server, the others the first.
        let url = &urls[usize::from(region == "NA")];
        let name = format!("{region}-{number}");
        let installed = Some((trees[0].as_path(), "1.0.0"));
        let mut device = Device::enroll(first.dir.path(), &name, url, &token, region, installed);
        device.run();
        devices.push(device);
    }
    let id = first
        .roll_out(
            "1.1.0",
            &["NA", "EU", "APAC"],
            json!({ "pace_start": 1, "rollback_window_s": 1 }),
        )
        .await;
    eventually("progress", async || {
        (second.deployments(&id).await.len() >= 2).then_some(())
    })
    .await;
    first.kill();
    eventually("progress without the first", async || {
        let rollout = second.get(&format!("/api/v1/rollouts/{id}")).await;
        (rollout["tally"]["healthy"].as_u64()? >= 2).then_some(())
    })
    .await;
    first.restart();
    second.kill();
    second.restart();
    first.rollout_is(&id, "completed").await;
    first.all_run("1.1.0").await;
    let deployments = second.deployments(&id).await;
    assert_eq!(deployments.len(), 9);
    assert!(
        deployments
            .iter()
            .all(|d| d["state"] == "succeeded" && d["attempts"] == 1)
    );
    // Both replicas show the same events.
    let path = format!("/api/v1/rollouts/{id}/events?limit=200");
    assert_eq!(first.get(&path).await, second.get(&path).await);
}

#[tokio::test]
async fn no_replica_offers_anything_after_a_halt_was_acknowledged() {
    let Some(cluster) = tidegate_tests::Cluster::start().await else {
        return;
    };
    let first = Server::start_on(Database::Postgres(cluster.url())).await;
    let second = first.replica();
    let trees = first.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = first.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = first.dir.path();
    let mut devices: Vec<Device> = (0..12)
        .map(|n| Device::enroll(dir, &format!("d{n}"), &second.url, &token, "NA", installed))
        .collect();
    let id = first
        .roll_out(
            "1.1.0",
            &["NA"],
            json!({ "pace_start": 2, "rollback_window_s": 600 }),
        )
        .await;
    devices.iter_mut().for_each(Device::run);
    eventually("the first offers", async || {
        (!first.deployments(&id).await.is_empty()).then_some(())
    })
    .await;
    first
        .post(
            &format!("/api/v1/rollouts/{id}/halt"),
            json!({ "reason": "stop" }),
        )
        .await;
    let exposed = first.deployments(&id).await.len();
    // The devices keep asking the other replica; a newer `last_seen` shows that each asked again.
    let asked = |list: &[serde_json::Value]| -> Vec<String> {
        list.iter()
            .map(|d| d["last_seen"].as_str().unwrap().to_owned())
            .collect()
    };
    let before = asked(&second.devices().await);
    for device in &mut devices {
        device.kill();
        device.run();
    }
    eventually("every device asked again", async || {
        let now = asked(&second.devices().await);
        now.iter()
            .zip(&before)
            .all(|(now, before)| now > before)
            .then_some(())
    })
    .await;
    assert_eq!(second.deployments(&id).await.len(), exposed);
}

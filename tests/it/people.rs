//! Tasks of release managers and administrators: holds, windows, waves by hand, approvals, edits,
//! previews, reasons.

use serde_json::{Value, json};
use tidegate_tests::{Device, Server, eventually};

/// Sets up a server with two releases and `count` running devices, every second one of model x2.
async fn fleet(count: usize) -> (Server, Vec<Device>) {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let mut devices = Vec::new();
    for model in ["x1", "x2"] {
        let label = format!("model={model}");
        let token = server.cli(&[
            "device",
            "join-token",
            "--product",
            "app",
            "--uses",
            "1000",
            "--label",
            &label,
        ]);
        for number in 0..count / 2 {
            let name = format!("{model}-{number}");
            let url = &server.url;
            let dir = server.dir.path();
            let mut device = Device::enroll(dir, &name, url, token.trim(), "NA", installed);
            device.run();
            devices.push(device);
        }
    }
    (server, devices)
}

async fn token(server: &Server, name: &str, role: &str) -> String {
    let made = server
        .post("/api/v1/tokens", json!({ "name": name, "role": role }))
        .await;
    made["secret"].as_str().unwrap().to_owned()
}

async fn why(server: &Server, device: &Device) -> String {
    let why = server
        .get(&format!("/api/v1/devices/{}/why", device.id()))
        .await;
    why["reason"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_hold_keeps_one_model_back_while_the_rest_goes_on() {
    let (server, devices) = fleet(6).await;
    let hold = json!({
        "product": "app", "release": "1.1.0", "selector": "model=x2", "reason": "driver 1.2",
        "link": "https://example.com/7",
    });
    let mut dry = hold.clone();
    dry["dry_run"] = json!(true);
    assert_eq!(server.post("/api/v1/holds", dry).await["devices"], 3);
    assert_eq!(server.get("/api/v1/holds").await["items"], json!([]));
    let hold = server.post("/api/v1/holds", hold).await;
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    eventually("the others are on 1.1.0", async || {
        let done =
            |d: &&Device| d.name.starts_with("x1") && d.installed().as_deref() == Some("1.1.0");
        (devices.iter().filter(done).count() == 3).then_some(())
    })
    .await;
    assert_eq!(why(&server, &devices[3]).await, "held");
    let explained = server.get(&format!("/api/v1/rollouts/{id}/why")).await;
    assert_eq!(explained["rollout"]["preview"]["blocked"]["held"], 3);
    // Lifting it is widening: a responder may not.
    let lift = format!("/api/v1/holds/{}/lift", hold["id"].as_str().unwrap());
    let responder = token(&server, "rita", "responder").await;
    let reason = json!({ "reason": "driver 1.3 is out" });
    let (status, _) = server
        .call("POST", &lift, Some(reason.clone()), &responder)
        .await;
    assert_eq!(status, 403);
    server.post(&lift, reason).await;
    server.all_run("1.1.0").await;
}

#[tokio::test]
async fn outside_its_maintenance_window_nobody_is_updated_and_an_edit_opens_it() {
    let (server, devices) = fleet(2).await;
    // A window of one minute a week, closed now.
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let other_day = (now + jiff::ToSpan::days(3)).strftime("%a").to_string();
    let window = format!("{other_day} 03:00-03:01 UTC");
    let id = server
        .roll_out("1.1.0", &["NA"], json!({ "window": window }))
        .await;
    eventually("the wave waits for its window", async || {
        let rollout = server.get(&format!("/api/v1/rollouts/{id}")).await;
        (rollout["reason"]["code"] == "window_closed").then_some(())
    })
    .await;
    assert_eq!(why(&server, &devices[0]).await, "window_closed");
    assert!(server.deployments(&id).await.is_empty());
    let edited = server.cli(&["rollout", "edit", &id, "--window", "", "--reason", "urgent"]);
    assert!(edited.contains("running"), "{edited}");
    server.all_run("1.1.0").await;
}

#[tokio::test]
async fn waves_by_hand_wait_for_a_word_and_the_starting_size_is_kept() {
    let (server, _devices) = fleet(6).await;
    let waves = json!([
        { "name": "one", "selector": "region=NA", "size": "1" },
        { "name": "rest", "selector": "region=NA" },
    ]);
    let rules = json!({ "waves": waves, "by_hand": true, "pace_start": 2 });
    let id = server.roll_out("1.1.0", &["NA"], rules).await;
    let rollout = eventually("the second wave waits", async || {
        let rollout = server.get(&format!("/api/v1/rollouts/{id}")).await;
        (rollout["reason"]["code"] == "waits_for_word").then_some(rollout)
    })
    .await;
    assert_eq!(rollout["tally"]["exposed"], 1, "an exact number");
    server.cli(&["rollout", "advance", &id]);
    server.rollout_is(&id, "completed").await;
    server.all_run("1.1.0").await;
    // There is nothing more to release.
    let path = format!("/api/v1/rollouts/{id}/advance");
    let (status, _) = server
        .call("POST", &path, Some(json!({})), &server.token)
        .await;
    assert_eq!(status, 409);
}

#[tokio::test]
async fn widening_needs_other_people_and_an_edit_voids_what_they_said() {
    let (server, devices) = fleet(2).await;
    server.cli(&["product", "set", "app", "--approvals", "1"]);
    let ann = server.person("ann", "release_manager").await;
    let bob = server.person("bob", "admin").await;
    let body = json!({
        "product": "app", "release": "1.1.0", "soak_s": 0, "rollback_window_s": 0,
        "waves": [{ "name": "all", "selector": "" }],
    });
    let (_, draft) = server
        .call("POST", "/api/v1/rollouts", Some(body), &ann)
        .await;
    let id = draft["id"].as_str().unwrap();
    let act = async |what: &str, body: Value, token: &str| {
        let path = format!("/api/v1/rollouts/{id}/{what}");
        server.call("POST", &path, Some(body), token).await
    };
    let (status, asked) = act("start", json!({}), &ann).await;
    assert_eq!(
        (status, &asked["state"]),
        (200, &json!("awaiting_approval"))
    );
    assert_eq!(asked["asked"]["missing"], 1);
    let plan = asked["asked"]["plan"].as_str().unwrap().to_owned();
    // Nobody approves their own request, or a plan other than the current one.
    assert_eq!(act("approve", json!({ "plan": plan }), &ann).await.0, 403);
    assert_eq!(
        act("approve", json!({ "plan": "other" }), &bob).await.0,
        412
    );
    // An edit by a possible approver makes them an author, and voids the request.
    let path = format!("/api/v1/rollouts/{id}");
    let edit = Some(json!({ "max_in_flight": 1 }));
    let (status, edited) = server.call("PATCH", &path, edit, &bob).await;
    assert_eq!(
        (status, &edited["state"]),
        (200, &json!("draft")),
        "{edited}"
    );
    assert_eq!(act("approve", json!({ "plan": plan }), &bob).await.0, 409);
    let (_, asked) = act("start", json!({}), &ann).await;
    let plan = asked["asked"]["plan"].as_str().unwrap().to_owned();
    assert_eq!(
        act("approve", json!({ "plan": plan }), &bob).await.0,
        403,
        "bob wrote it too"
    );
    assert_eq!(devices[0].installed().as_deref(), Some("1.0.0"));
    let cid = server.person("cid", "release_manager").await;
    let (status, started) = act("approve", json!({ "plan": plan }), &cid).await;
    assert_eq!(
        (status, &started["state"]),
        (200, &json!("running")),
        "{started}"
    );
    server.rollout_is(id, "completed").await;
    // Narrowing never waits: a lower limit applies at once, a higher one needs approval.
    let lower = Some(json!({ "max_failure_bp": 100 }));
    let (_, narrowed) = server.call("PATCH", &path, lower, &ann).await;
    assert_eq!(
        narrowed["code"], "illegal_transition",
        "it is completed: {narrowed}"
    );
    // Rolling back needs one person and no approval.
    let (status, sheet) = act("rollback", json!({ "reason": "bad after all" }), &ann).await;
    assert_eq!(status, 200, "{sheet}");
}

#[tokio::test]
async fn raising_a_limit_of_a_running_rollout_waits_and_lowering_it_does_not() {
    let (server, _devices) = fleet(2).await;
    let rules = json!({ "window": "Mon 03:00-03:01 UTC", "max_in_flight": 5 });
    let id = server.roll_out("1.1.0", &["NA"], rules).await;
    server.cli(&["product", "set", "app", "--approvals", "2"]);
    let path = format!("/api/v1/rollouts/{id}");
    let edit = async |body: Value| {
        server
            .call("PATCH", &path, Some(body), &server.token)
            .await
            .1
    };
    assert_eq!(
        edit(json!({ "max_in_flight": 3 })).await["policy"]["max_in_flight"],
        3
    );
    let asked = edit(json!({ "max_in_flight": 30 })).await;
    assert_eq!(asked["policy"]["max_in_flight"], 3);
    assert_eq!(
        (&asked["asked"]["kind"], &asked["asked"]["needed"]),
        (&json!("edit"), &json!(2))
    );
    // A narrowing edit takes effect, and voids the earlier request.
    let narrowed = edit(json!({ "max_in_flight": 2 })).await;
    assert_eq!(narrowed["policy"]["max_in_flight"], 2);
    assert!(narrowed["asked"].is_null());
    server
        .post(&format!("{path}/halt"), json!({ "reason": "stop" }))
        .await;
}

#[tokio::test]
async fn a_preview_shows_devices_bytes_and_paths_and_changes_nothing() {
    let (server, _devices) = fleet(4).await;
    server.built("1.1.0").await;
    let body = json!({
        "product": "app", "release": "1.1.0", "dry_run": true, "preset": "regional-batches",
        "regions": ["NA", "EU"], "batch": "3", "deadline": "2000-01-01T00:00:00Z",
    });
    let would = server.post("/api/v1/rollouts", body).await;
    let names: Vec<&str> = would["waves"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| w["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["NA 1/2", "NA 2/2", "EU 1/1"]);
    assert_eq!(
        would["preview"]["waves"],
        json!([{ "NA": 3 }, { "NA": 1 }, {}])
    );
    assert_eq!(would["preview"]["by_region"], json!({ "NA": 4 }));
    let path = &would["preview"]["paths"][0];
    assert_eq!(
        (&path["from"], &path["devices"]),
        (&json!("1.0.0"), &json!(4))
    );
    assert_eq!(path["legs"], json!(["1.1.0"]));
    assert!(path["bytes"].as_u64().unwrap() > 0);
    assert_eq!(
        would["forecast"]["on_time"], false,
        "the deadline has passed"
    );
    assert_eq!(server.get("/api/v1/rollouts").await["items"], json!([]));
    // Unknown fields are refused, so that nobody believes they set something.
    let typo =
        json!({ "product": "app", "release": "1.1.0", "preset": "all-at-once", "max_inflight": 1 });
    let (status, answer) = server
        .call("POST", "/api/v1/rollouts", Some(typo), &server.token)
        .await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test]
async fn a_rollout_starts_by_itself_at_its_time() {
    let (server, _devices) = fleet(2).await;
    let at = jiff::Timestamp::now() + jiff::ToSpan::seconds(2);
    let text = server.cli(&[
        "rollout",
        "start",
        "--product",
        "app",
        "--release",
        "1.1.0",
        "--soak",
        "0s",
        "--rollback-window",
        "1s",
        "--at",
        &at.to_string(),
    ]);
    assert!(text.contains("is scheduled"), "{text}");
    server.all_run("1.1.0").await;
    let early = server.call(
        "POST",
        "/api/v1/rollouts/rol_00000000000000000000000000000000/start",
        Some(json!({ "at": "2001-01-01T00:00:00Z" })),
        &server.token,
    );
    assert_eq!(early.await.0, 400);
}

#[tokio::test]
async fn a_suggested_hold_and_a_resume_let_the_rest_go_on() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true)]);
    // A release that fails its health check on devices whose name starts with x2.
    let tree = tidegate_tests::application(server.dir.path(), "1.1.0", true);
    let check = "#!/bin/sh\ncase \"$TIDEGATE_DEVICE_NAME\" in x2*) exit 1;; esac\n";
    std::fs::write(tree.join("health.sh"), check).unwrap();
    server.publish_tree(&tree, "1.1.0", &[]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let mut devices = Vec::new();
    for (model, count) in [("x1", 6), ("x2", 4)] {
        let label = format!("model={model}");
        let token = server.cli(&[
            "device",
            "join-token",
            "--product",
            "app",
            "--uses",
            "99",
            "--label",
            &label,
        ]);
        for number in 0..count {
            let name = format!("{model}-{number}");
            let mut device = Device::enroll(
                server.dir.path(),
                &name,
                &server.url,
                token.trim(),
                "NA",
                installed,
            );
            device.run();
            devices.push(device);
        }
    }
    let id = server
        .roll_out(
            "1.1.0",
            &["NA"],
            json!({ "pace_start": 10, "min_failures": 4 }),
        )
        .await;
    server.rollout_is(&id, "halted").await;
    let why = eventually("the failures have a model in common", async || {
        let why = server.get(&format!("/api/v1/rollouts/{id}/why")).await;
        (why["suggested_hold"]["selector"] == "model=x2").then_some(why)
    })
    .await;
    assert_eq!(why["suggested_hold"]["failed"], 4);
    server.cli(&[
        "hold",
        "create",
        "app",
        "--release",
        "1.1.0",
        "--selector",
        "model=x2",
        "--reason",
        "r",
    ]);
    server.cli(&["rollout", "resume", &id, "--reason", "x2 is held"]);
    eventually("the others are on 1.1.0", async || {
        let on = |d: &&Device| d.installed().as_deref() == Some("1.1.0");
        (devices.iter().filter(on).count() == 6).then_some(())
    })
    .await;
    server.rollout_is(&id, "completed_partly").await;
}

/// Pipelines decide by the exit code: a region that nobody is in, and a device that is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_leaves_devices_out_or_touches_none_says_so_in_its_state_and_exit_code() {
    let (server, _devices) = fleet(2).await;
    let start = |region: &str| {
        let what = [
            "--product",
            "app",
            "--release",
            "1.1.0",
            "--regions",
            region,
        ];
        let rules = [
            "--soak",
            "0s",
            "--rollback-window",
            "0s",
            "--min-sample",
            "1",
        ];
        server.cli_raw(&[&["rollout", "start"][..], &what, &rules, &["--watch"]].concat())
    };
    let (code, _, said) = start("Na");
    assert_eq!(code, 9, "{said}");
    assert!(said.contains("the rollout is nothing_to_do"), "{said}");
    let tree = server.dir.path().join("app-1.0.0");
    let installed = Some((tree.as_path(), "1.0.0"));
    let (dir, token) = (server.dir.path(), server.join_token());
    let mut away = Device::enroll(dir, "away", &server.url, &token, "NA", installed);
    let (code, _, said) = start("NA");
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("the rollout is completed_partly"), "{said}");
    assert!(said.contains("2 of 3 devices run the release"), "{said}");
    let list = server.get("/api/v1/rollouts").await;
    let id = list["items"][0]["id"].as_str().unwrap();
    let get = ["rollout", "get", id, "--exit-status"];
    assert_eq!(server.cli_raw(&get).0, 7);
    // It comes late and is served.
    away.run();
    server.rollout_is(id, "completed").await;
    assert_eq!(server.cli_raw(&get).0, 0);
}

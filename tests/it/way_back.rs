//! The way back when the kept version is damaged: it is never run under its old name.

use std::path::Path;

use serde_json::json;
use tidegate_tests::{Database, Device, Mode, Proxy, Server, application, eventually};

/// Sets up a device in the rollback window of 1.1.0, which keeps 1.0.0 in slot a.
async fn in_window(server: &Server, url: &str) -> (Device, String) {
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "one", url, &server.join_token(), "NA", installed);
    device.run();
    let id = server
        .roll_out("1.1.0", &["NA"], json!({ "rollback_window_s": 600 }))
        .await;
    eventually("probation", async || {
        (server.deployments(&id).await.first()?["state"] == "probation").then_some(())
    })
    .await;
    (device, id)
}

/// Existing fleets come with versions that the server never saw, or that were not promoted to the
/// channel of the device: within its window a device goes back to them all the same, and what cannot go
/// back after it is told apart from what can.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_ordered_back_to_what_it_came_with_whether_it_was_ever_published_or_not() {
    let server = Server::start().await;
    server.publish(&[("1.1.0", true)]);
    let dir = server.dir.path();
    let token = server.join_token();
    let mut devices = Vec::new();
    for (name, release) in [("unseen", "0.8.0"), ("draft", "0.9.0"), ("alpha", "1.0.0")] {
        let tree = application(dir, release, true);
        if name != "unseen" {
            let path = tree.display().to_string();
            let names = ["--product", "app", "--release", release];
            server.cli(&[&["release", "publish", &path][..], &names].concat());
        }
        if name == "alpha" {
            let to = ["app", release, "--to", "alpha", "--reason", "test"];
            server.cli(&[&["release", "promote"][..], &to].concat());
        }
        let installed = Some((tree.as_path(), release));
        let mut device = Device::enroll(dir, name, &server.url, &token, "NA", installed);
        device.run();
        devices.push((device, release));
    }
    let window = json!({ "rollback_window_s": 600 });
    let id = server.roll_out("1.1.0", &["NA"], window).await;
    eventually("all are in their window", async || {
        let list = server.deployments(&id).await;
        let there = |d: &&serde_json::Value| d["state"] == "probation";
        (list.iter().filter(there).count() == 3).then_some(())
    })
    .await;
    let path = format!("/api/v1/rollouts/{id}/rollback");
    // What a device keeps is told by the check-in after the report.
    eventually("all three can return", async || {
        let order = json!({ "reason": "bad", "dry_run": true });
        let dry = server.post(&path, order).await;
        (dry["sheet"]["inside_window"] == 3).then_some(())
    })
    .await;
    server.cli(&["rollback", &id, "--reason", "bad"]);
    for (device, release) in &devices {
        device.settles_on(release).await;
        assert!(!device.log().contains("was refused"), "{}", device.log());
        assert!(!device.log().contains(&format!("downloading {release}")));
    }
    let rollout = server.rollout_is(&id, "rolled_back").await;
    assert_eq!(rollout["tally"]["returned"], 3, "{rollout}");
}

/// The order is given inside of the window and heard after it: by then the device would have dropped a
/// version that nobody can give it again.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_given_inside_of_the_window_and_heard_after_it_returns_from_the_kept_slot() {
    let server = Server::start_with(Database::Sqlite, &["--poll", "60s"]).await;
    let dir = server.dir.path();
    server.publish(&[("1.1.0", true)]);
    let proxy = Proxy::start(&server.url, Mode::Pass).await;
    let own = application(dir, "0.9.0", true);
    let installed = Some((own.as_path(), "0.9.0"));
    let token = server.join_token();
    let mut device = Device::enroll(dir, "own", &proxy.url, &token, "NA", installed);
    device.run();
    let window = json!({ "rollback_window_s": 5 });
    let id = server.roll_out("1.1.0", &["NA"], window).await;
    eventually("probation", async || {
        (server.deployments(&id).await.first()?["state"] == "probation").then_some(())
    })
    .await;
    // Cut off before the order and for as long as the window lasts.
    proxy.set(Mode::CutAfter(0));
    let path = format!("/api/v1/rollouts/{id}/rollback");
    let incident = server.post(&path, json!({ "reason": "bad" })).await;
    let ends = incident["sheet"]["first_window_ends"].as_str().unwrap();
    let ends = tidegate_api::instant("first_window_ends", ends).unwrap();
    let begun = incident["opened_at"].as_str().unwrap();
    assert!(
        tidegate_api::instant("opened_at", begun).unwrap() < ends,
        "{incident}"
    );
    eventually("the window is over", async || {
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = i64::try_from(now.as_micros()).unwrap();
        (now > ends.as_micros()).then_some(())
    })
    .await;
    proxy.set(Mode::Pass);
    device.settles_on("0.9.0").await;
    server.rollout_is(&id, "rolled_back").await;
}

/// A device was left behind because nobody had published what it came with. Once somebody has, the order
/// is given again, and reaches it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_behind_is_reached_by_a_later_order_once_it_can_go_back() {
    let server = Server::start().await;
    let dir = server.dir.path();
    server.publish(&[("1.1.0", true)]);
    let token = server.join_token();
    let own = application(dir, "0.9.0", true);
    let installed = Some((own.as_path(), "0.9.0"));
    let mut device = Device::enroll(dir, "own", &server.url, &token, "NA", installed);
    device.run();
    let none = json!({ "rollback_window_s": 0 });
    let id = server.roll_out("1.1.0", &["NA"], none).await;
    server.rollout_is(&id, "completed").await;
    let back = ["rollback", &id, "--reason", "bad", "--watch"];
    let (code, _, said) = server.cli_raw(&back);
    assert_eq!(code, 8, "{said}");
    let left = server.rollout_is(&id, "rolled_back_partly").await;
    assert_eq!(left["tally"]["stuck"], 1, "{left}");
    // There is still no way: the answer says so, and nothing moves.
    let path = format!("/api/v1/rollouts/{id}/rollback");
    let order = json!({ "reason": "bad" });
    let sheet = server.post(&path, order.clone()).await;
    assert_eq!(
        sheet["rollouts"][0]["state"], "rolled_back_partly",
        "{sheet}"
    );
    server.publish_tree(&own, "0.9.0", &[]);
    let mut dry = order;
    dry["dry_run"] = json!(true);
    let dry = server.post(&path, dry).await;
    assert_eq!(dry["sheet"]["outside_window"], 1, "{dry}");
    let (code, _, said) = server.cli_raw(&back);
    assert_eq!(code, 0, "{said}");
    device.settles_on("0.9.0").await;
    let rollout = server.rollout_is(&id, "rolled_back").await;
    assert_eq!(rollout["tally"]["returned"], 1, "{rollout}");
}

/// Limits of the way back are told while there is still a choice: by the preview, to whoever starts, and
/// for a fleet that comes with versions of its own when it joins.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_back_is_shown_before_the_start_which_has_to_accept_it_by_number() {
    let server = Server::start().await;
    let dir = server.dir.path();
    server.publish(&[("1.0.0", true)]);
    let tree = application(dir, "1.1.0", true);
    server.publish_tree(&tree, "1.1.0", &["--no-rollback"]);
    let token = server.join_token();
    let mut own = Device::blank(dir, "own");
    let installed = Some((tree.as_path(), "0.9.0"));
    let (ok, text) = own.try_enroll(&server.url, &token, "NA", installed, &[]);
    assert!(ok, "{text}");
    // When it joins, and whenever somebody looks.
    let barred = "0.9.0 was never published";
    assert!(text.contains("cannot be ordered back"), "{text}");
    assert!(text.contains(barred), "{text}");
    let shown = server.cli(&["device", "show", "own"]);
    assert!(shown.contains(barred), "{shown}");
    own.run();
    let body = json!({ "product": "app", "release": "1.1.0", "soak_s": 0, "pace_start": 0,
        "waves": [{ "name": "all", "selector": "" }] });
    let draft = server.post("/api/v1/rollouts", body).await;
    let id = draft["id"].as_str().unwrap();
    let path = format!("/api/v1/rollouts/{id}/start");
    let dry = server.post(&path, json!({ "dry_run": true })).await;
    assert_eq!(dry["preview"]["no_way_back"], 1, "{dry}");
    let limited = &dry["preview"]["limited"][0];
    assert_eq!(limited["limit"], "never", "{limited}");
    assert_eq!(
        limited["reason"]["code"], "rollback_not_allowed",
        "{limited}"
    );
    assert_eq!(limited["examples"], json!(["own"]), "{limited}");
    let shown = server.cli(&["rollout", "start", id, "--dry-run"]);
    assert!(shown.contains("CANNOT GO BACK: 1"), "{shown}");
    // Not now, and not later either.
    let later = json!({ "at": "2099-01-01T00:00:00Z" });
    for (order, accepted) in [(json!({}), None), (later, None), (json!({}), Some(0))] {
        let mut order = order;
        if let Some(accepted) = accepted {
            order["accept_no_way_back"] = json!(accepted);
        }
        let (status, problem) = server.call("POST", &path, Some(order), &server.token).await;
        assert_eq!(status, 409, "{problem}");
        let why = problem["detail"].as_str().unwrap();
        assert!(
            why.contains("1 devices could not be ordered back from 1.1.0"),
            "{why}"
        );
        assert!(why.contains("for example own"), "{why}");
    }
    let (code, _, said) = server.cli_raw(&["rollout", "start", id]);
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("--accept-no-way-back 1"), "{said}");
    server.cli(&["rollout", "start", id, "--accept-no-way-back", "1"]);
    let rollout = server.get(&format!("/api/v1/rollouts/{id}")).await;
    assert_eq!(rollout["accepted_no_way_back"], 1, "{rollout}");
    let events = server.cli(&["rollout", "events", id]);
    assert!(
        events.contains("accepted that 1 devices cannot be ordered back"),
        "{events}"
    );
    own.settles_on("1.1.0").await;
}

/// A start that waits for approvals is given with what was accepted then.
#[tokio::test(flavor = "multi_thread")]
async fn an_approval_does_not_start_more_devices_without_a_way_back_than_were_accepted() {
    let server = Server::start().await;
    let dir = server.dir.path();
    server.publish(&[("1.0.0", true)]);
    let tree = application(dir, "1.1.0", true);
    server.publish_tree(&tree, "1.1.0", &["--no-rollback"]);
    // Somebody else's, whom the first administrator did not make.
    let second = server.person("second", "admin").await;
    server.cli(&["product", "set", "app", "--approvals", "1"]);
    let token = server.join_token();
    let join = |name: &str| {
        let installed = Some((tree.as_path(), "1.0.0"));
        Device::enroll(dir, name, &server.url, &token, "NA", installed)
    };
    join("one");
    let body = json!({ "product": "app", "release": "1.1.0", "soak_s": 0,
        "waves": [{ "name": "all", "selector": "" }] });
    let draft = server.post("/api/v1/rollouts", body).await;
    let path = format!("/api/v1/rollouts/{}", draft["id"].as_str().unwrap());
    let accepted = json!({ "accept_no_way_back": 1 });
    let asked = server.post(&format!("{path}/start"), accepted).await;
    assert_eq!(asked["state"], "awaiting_approval", "{asked}");
    assert_eq!(asked["accepted_no_way_back"], 1, "{asked}");
    // Asking again for more of them is another plan: nobody agrees to it by what they saw before.
    let more = json!({ "accept_no_way_back": 9 });
    let again = server.post(&format!("{path}/start"), more).await;
    assert_ne!(again["asked"]["plan"], asked["asked"]["plan"], "{again}");
    let accepted = json!({ "accept_no_way_back": 1 });
    let asked = server.post(&format!("{path}/start"), accepted).await;
    let plan = asked["asked"]["plan"].clone();
    let approve = async || {
        let body = json!({ "plan": plan });
        let path = format!("{path}/approve");
        server.call("POST", &path, Some(body), &second).await.0
    };
    join("two");
    assert_eq!(approve().await, 409);
    server.cli(&["device", "revoke", "two", "--reason", "not yet"]);
    assert_eq!(approve().await, 200);
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_kept_version_is_fetched_again_before_it_is_put_to_use() {
    let server = Server::start().await;
    let (device, id) = in_window(&server, &server.url).await;
    let artifact = device.state.join("slots/a/artifact");
    let whole = std::fs::read(&artifact).unwrap();
    damage(&artifact);
    damage(&device.state.join("slots/a/tree/VERSION"));
    server.cli(&["rollback", &id, "--reason", "orders are lost"]);
    eventually("the server hears why it takes so long", async || {
        let why = server
            .get(&format!("/api/v1/devices/{}/why", device.id()))
            .await;
        let told = why.to_string().contains("damaged");
        let back = device.installed().as_deref() == Some("1.0.0");
        (told || back).then_some(())
    })
    .await;
    device.settles_on("1.0.0").await;
    assert!(std::fs::read(&artifact).unwrap() == whole);
    server.rollout_is(&id, "rolled_back").await;
    assert!(
        device.log().contains("fetching the previous version again"),
        "{}",
        device.log()
    );
    // Nothing is left of the download.
    assert!(!device.state.join("download").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_folder_is_unpacked_again_without_the_network_and_nothing_is_lost() {
    let server = Server::start().await;
    let proxy = Proxy::start(&server.url, Mode::Pass).await;
    let (device, id) = in_window(&server, &proxy.url).await;
    let tree = device.state.join("slots/a/tree");
    std::fs::write(tree.join("VERSION"), "edited").unwrap();
    let before = proxy.passed();
    server.cli(&["rollback", &id, "--reason", "orders are lost"]);
    device.settles_on("1.0.0").await;
    server.rollout_is(&id, "rolled_back").await;
    assert!(proxy.passed() - before < 100_000, "it took a download");
    let was = std::fs::read_to_string(device.state.join("slots/a/tree.was/VERSION")).unwrap();
    assert_eq!(was, "edited");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_of_what_runs_is_made_again_and_a_folder_in_its_place_is_put_aside() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true)]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let mut device = Device::enroll(
        dir,
        "one",
        &server.url,
        &server.join_token(),
        "NA",
        installed,
    );
    std::fs::remove_dir_all(device.state.join("slots/a/tree")).unwrap();
    let current = device.state.join("current");
    std::fs::remove_file(&current).unwrap();
    std::fs::create_dir(&current).unwrap();
    std::fs::write(current.join("own"), "of a person").unwrap();
    device.run();
    eventually("it runs again", async || {
        (device.installed().as_deref() == Some("1.0.0")).then_some(())
    })
    .await;
    let own = std::fs::read_to_string(device.state.join("current.was/own")).unwrap();
    assert_eq!(own, "of a person");
}

/// A release may break everything that only the server needs: it can be left all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_needs_no_settings_no_key_and_no_server() {
    let server = Server::start().await;
    let (mut device, _) = in_window(&server, &server.url).await;
    device.kill();
    for (name, text) in [
        ("agent.conf", "server = nonsense\nno-such-setting = 1\n"),
        ("identity.pem", ""),
    ] {
        std::fs::write(device.state.join(name), text).unwrap();
    }
    std::fs::remove_dir_all(device.state.join("trust")).unwrap();
    // The new version turns bad.
    let sick = device.state.join("slots/b/tree/health.sh");
    std::fs::write(sick, "#!/bin/sh\nexit 1\n").unwrap();
    device.run();
    eventually("it is back", async || {
        (device.installed().as_deref() == Some("1.0.0")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_key_is_gone_says_so_and_speaks_with_nobody() {
    let server = Server::start().await;
    let (mut device, _) = in_window(&server, &server.url).await;
    device.kill();
    std::fs::remove_file(device.state.join("identity.pem")).unwrap();
    device.run();
    eventually("it has tried several times", async || {
        let tries = device.log().matches("asking the server failed").count();
        (tries >= 3).then_some(())
    })
    .await;
    let log = device.log();
    assert!(log.contains("identity.pem is gone"), "{log}");
    // With a made-up key the server would say that it knows no such device.
    assert!(!log.contains("401"), "{log}");
    assert!(!device.state.join("identity.pem").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_previous_version_nobody_has_any_more_stays_and_says_so() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", false)]);
    // Bytes other than the published ones: nobody else has them.
    std::fs::write(trees[0].join("own"), "made here").unwrap();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let token = server.join_token();
    let mut device = Device::enroll(dir, "one", &server.url, &token, "NA", installed);
    std::fs::remove_file(device.state.join("slots/a/artifact")).unwrap();
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    let reason = eventually("it says that it cannot go back", async || {
        let deployment = server.deployments(&id).await.pop()?;
        (deployment["state"] == "failed").then(|| deployment["reason"].clone())
    })
    .await;
    assert_eq!(reason["code"], "no_previous_slot");
    assert!(reason.to_string().contains("1.1.0 stays"), "{reason}");
    device.settles_on("1.1.0").await;
    assert_eq!(device.status()["kept"], json!(null));
}

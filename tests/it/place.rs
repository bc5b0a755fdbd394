//! Faults of the place: what this machine does not start says nothing about a release.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tidegate_tests::{Device, Server, binary, eventually};

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A program of the machine's own that always succeeds.
fn own_program(dir: &Path) -> PathBuf {
    let path = dir.join("own-check");
    std::fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
    mode(&path, 0o755);
    path
}

/// Waits until a device has failed with a reason of the place, and looks at what came of it.
async fn is_no_verdict(server: &Server, device: &Device, id: &str) -> Value {
    let failed = eventually("the device has failed for now", async || {
        let deployment = server.deployments(id).await.first()?.clone();
        (deployment["state"] == "failed").then_some(deployment)
    })
    .await;
    let why = format!("{failed}\n{}", device.log());
    assert_eq!(failed["reason"]["code"], "command_not_started", "{why}");
    device.settles_on("1.0.0").await;
    let rollout = server.get(&format!("/api/v1/rollouts/{id}")).await;
    assert_eq!(rollout["state"], "running", "{rollout}");
    assert_eq!(rollout["tally"]["failed"], 0, "{rollout}");
    // Nothing holds the release against the device: the next attempt is its own.
    let journal = std::fs::read_to_string(device.state.join("journal.a")).unwrap_or_default()
        + &std::fs::read_to_string(device.state.join("journal.b")).unwrap_or_default();
    assert!(!journal.contains("\"bad\":[\""), "{journal}");
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn a146_a_command_of_the_machine_that_is_gone_stops_an_update_before_it_stops_anything() {
    let server = Server::start().await;
    let dir = server.dir.path();
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.join_token();
    let program = own_program(dir);
    let own = program.display().to_string();
    for (name, option) in [("check", "--health-cmd"), ("restart", "--restart-cmd")] {
        mode(&program, 0o755);
        let mut device = Device::blank(dir, name);
        let installed = Some((trees[0].as_path(), "1.0.0"));
        let region = if name == "check" { "EU" } else { "NA" };
        let (ok, said) = device.try_enroll(&server.url, &token, region, installed, &[option, &own]);
        assert!(ok, "{said}");
        device.run();
        mode(&program, 0o644);
        let id = server.roll_out("1.1.0", &[region], json!({})).await;
        let failed = is_no_verdict(&server, &device, &id).await;
        assert!(
            failed["reason"]["text"].as_str().unwrap().contains(&own),
            "{failed}"
        );
        assert!(
            !device.log().contains("rolling back"),
            "nothing was stopped: {}",
            device.log()
        );
        server.cli(&["rollout", "cancel", &id, "--reason", "test"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a146_a_folder_above_the_agents_that_others_can_change_is_no_verdict_on_a_release() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let open = server.dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let mut device = Device::enroll(
        &open,
        "one",
        &server.url,
        &server.join_token(),
        "NA",
        installed,
    );
    mode(&open, 0o777);
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    let failed = is_no_verdict(&server, &device, &id).await;
    let detail = failed["reason"]["text"].as_str().unwrap();
    assert!(detail.contains(&open.display().to_string()), "{failed}");
    let doctor = Command::new(binary("tidegate-agent"))
        .args(["doctor", "--state"])
        .arg(&device.state)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("others than the agent's user"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_rollback_window_a_check_that_cannot_be_started_is_tried_until_its_end_and_blames_nobody()
 {
    let server = Server::start().await;
    let dir = server.dir.path();
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let program = own_program(dir);
    let own = program.display().to_string();
    let mut device = Device::blank(dir, "one");
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let token = server.join_token();
    let options = ["--health-cmd", &own];
    let (ok, said) = device.try_enroll(&server.url, &token, "NA", installed, &options);
    assert!(ok, "{said}");
    device.run();
    let id = server
        .roll_out("1.1.0", &["NA"], json!({ "rollback_window_s": 10 }))
        .await;
    eventually("probation", async || {
        (server.deployments(&id).await.first()?["state"] == "probation").then_some(())
    })
    .await;
    mode(&program, 0o644);
    eventually(
        "it is tried again, and not yet a reason to go back",
        async || {
            device
                .log()
                .contains("in the rollback window: ")
                .then_some(())
        },
    )
    .await;
    is_no_verdict(&server, &device, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enroll_refuses_by_name_what_it_could_never_use() {
    let server = Server::start().await;
    let dir = server.dir.path();
    let trees = server.publish(&[("1.0.0", true)]);
    let token = server.join_token();
    let open = own_program(dir);
    mode(&open, 0o777);
    let open = open.display().to_string();
    let refused = |options: &[&str], adopt: Option<&Path>, wanted: &[&str]| {
        let device = Device::blank(dir, "never");
        let installed = adopt.map(|folder| (folder, "1.0.0"));
        let (ok, said) = device.try_enroll(&server.url, &token, "NA", installed, options);
        assert!(!ok, "{options:?}: {said}");
        for word in wanted {
            assert!(said.contains(word), "{options:?}: {said}");
        }
    };
    let none = "nonexistentprog";
    let hook = ["--backend", "hook", "--hook-cmd", "true"];
    for option in ["--health-cmd", "--restart-cmd", "--reboot-cmd"] {
        refused(&[option, none], None, &[option, none]);
        refused(
            &[option, &open],
            None,
            &[option, "others than the agent's user"],
        );
    }
    refused(
        &["--backend", "hook", "--hook-cmd", none],
        None,
        &["--hook-cmd", none],
    );
    refused(
        &[&hook[..], &["--hook-timeout", "0"]].concat(),
        None,
        &["timeout"],
    );
    refused(&["--ups", "zork"], None, &["--ups zork", "NAME@HOST"]);
    refused(
        &["--ca-file", "/nonexistent/ca"],
        None,
        &["--ca-file", "/nonexistent/ca"],
    );
    let state = dir.join("never");
    let own = "the agent's own folder";
    refused(&[], Some(&state), &[own]);
    std::fs::create_dir_all(state.join("slots/x")).unwrap();
    refused(&[], Some(&state.join("slots/x")), &[own]);
    refused(&[], Some(dir), &[own]);
    // The same machine enrolls once these are right.
    let device = Device::blank(dir, "never");
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let (ok, said) = device.try_enroll(&server.url, &token, "NA", installed, &[]);
    assert!(ok, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_now_ends_the_hold_and_has_an_answer_at_once() {
    let server = Server::start_with(tidegate_tests::Database::Sqlite, &["--poll", "60s"]).await;
    let dir = server.dir.path();
    server.publish(&[("1.0.0", true)]);
    let mut device = Device::enroll(dir, "one", &server.url, &server.join_token(), "NA", None);
    device.run();
    let heard = || device.status()["agent"]["heard_s"].as_u64();
    let before = eventually("its check-in is held", async || heard().filter(|s| *s >= 4)).await;
    let asked = Command::new(binary("tidegate-agent"))
        .args(["check-now", "--state"])
        .arg(&device.state)
        .output()
        .unwrap();
    assert!(asked.status.success());
    eventually("an answer", async || {
        let now = heard()?;
        // The server holds it for most of a minute.
        assert!(now < 40, "the hold went on: {}", device.log());
        (now < before).then_some(())
    })
    .await;
}

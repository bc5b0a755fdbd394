//! The agent diagnoses why it does not work, and reports it when it can.

use std::process::Command;

use serde_json::{Value, json};
use tidegate_tests::{Device, Mode, Proxy, Server, binary, eventually};

fn doctor(device: &Device) -> (bool, Vec<Value>) {
    let output = Command::new(binary("tidegate-agent"))
        .args(["doctor", "--json", "--state"])
        .arg(&device.state)
        .output()
        .unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.success(), findings)
}

fn found<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings
        .iter()
        .find(|finding| finding["check"] == check)
        .unwrap_or_else(|| panic!("nothing of {check} in {findings:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_machine_has_nothing_bad_and_each_finding_says_where_its_fix_is() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true)]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let token = server.join_token();
    let mut device = Device::enroll(dir, "one", &server.url, &token, "NA", installed);
    // Before it runs: leftovers are cleaned up, and it is reported as not running.
    std::fs::create_dir(device.state.join("download")).unwrap();
    std::fs::write(device.state.join("slots/b/made"), "rubbish").unwrap();
    let (well, findings) = doctor(&device);
    assert!(!well);
    assert_eq!(found(&findings, "service")["verdict"], "bad");
    assert_eq!(found(&findings, "leftovers")["repaired"], "removed");
    assert!(!device.state.join("download").exists());
    assert!(!device.state.join("slots/b/made").exists());
    device.run();
    eventually("the agent has spoken with its server", async || {
        (device.status()["agent"]["heard_s"].is_u64()).then_some(())
    })
    .await;
    let (well, findings) = doctor(&device);
    assert!(well, "{findings:#?}");
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/reference/doctor.md"
    ))
    .unwrap();
    for finding in &findings {
        let key = finding["key"].as_str().unwrap();
        let anchor = key.strip_prefix("doctor#").unwrap();
        assert!(text.contains(&format!("\n### {anchor}\n")), "{key}");
    }
    assert_eq!(found(&findings, "clock_skew")["verdict"], "good");
    // The floor of its clock, and what set it.
    let clock = found(&findings, "clock")["value"].as_str().unwrap();
    for part in ["newest signed time is 20", ", root of 20"] {
        assert!(clock.contains(part), "{clock}");
    }
    assert!(
        found(&findings, "slots")["value"]
            .as_str()
            .unwrap()
            .contains("slot a is in use")
    );
    #[cfg(target_os = "linux")]
    assert!(
        found(&findings, "loss")["value"]
            .as_str()
            .unwrap()
            .contains("0.0 %")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_cut_off_looks_into_it_and_tells_when_it_is_back() {
    let mut server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let dir = server.dir.path();
    let token = server.join_token();
    let mut device = Device::enroll(dir, "one", &server.url, &token, "NA", None);
    device.run();
    eventually("it has checked in", async || {
        device.status()["agent"]["heard_s"].is_u64().then_some(())
    })
    .await;
    let id = device.id();
    server.kill();
    eventually("it has looked into it", async || {
        device
            .log()
            .contains("a look into it: connect")
            .then_some(())
    })
    .await;
    let kept = std::fs::read(device.state.join("diagnosis.json")).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(
        found(kept["findings"].as_array().unwrap(), "connect")["verdict"],
        "bad"
    );
    server.restart();
    eventually("the server hears what was wrong", async || {
        let view = server.get(&format!("/api/v1/devices/{id}")).await;
        let text = view["diagnosis"].as_str()?;
        text.contains("was cut off for").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_refuses_is_left_for_the_next_one() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let other = Proxy::start(&server.url, Mode::Pass).await;
    let mut device = Device::blank(server.dir.path(), "one");
    let (ok, said) = device.try_enroll(
        &other.url,
        &server.join_token(),
        "NA",
        Some((&trees[0], "1.0.0")),
        &["--also", &server.url],
    );
    assert!(ok, "{said}");
    other.set(Mode::CutAfter(0));
    device.run();
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
    assert!(device.log().contains("switching to"), "{}", device.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_the_machine_pauses_asks_at_once_and_goes_back() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let token = server.join_token();
    let mut device = Device::enroll(dir, "one", &server.url, &token, "NA", installed);
    device.run();
    let ask = |words: &[&str]| {
        let output = Command::new(binary("tidegate-agent"))
            .args(words)
            .arg("--state")
            .arg(&device.state)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    eventually("the agent listens", async || {
        ask(&["check-now"]).0.then_some(())
    })
    .await;
    let (ok, said) = ask(&["rollback"]);
    assert!(!ok && said.contains("no rollback window"), "{said}");
    assert!(ask(&["pause", "--for", "8h"]).0);
    let id = server
        .roll_out("1.1.0", &["NA"], json!({ "rollback_window_s": 600 }))
        .await;
    eventually("the server hears that a person paused it", async || {
        let deployment = server.deployments(&id).await.pop()?;
        (deployment["reason"]["code"] == "paused_on_device").then_some(())
    })
    .await;
    assert_eq!(device.installed().as_deref(), Some("1.0.0"));
    let (_, said) = ask(&["status"]);
    assert!(said.contains("waits") && said.contains("paused"), "{said}");
    assert!(ask(&["resume"]).0);
    eventually("probation", async || {
        (server.deployments(&id).await.first()?["state"] == "probation").then_some(())
    })
    .await;
    assert!(ask(&["rollback"]).0);
    device.settles_on("1.0.0").await;
    eventually("the server knows that it went back", async || {
        let deployment = server.deployments(&id).await.pop()?;
        let back = deployment["state"] == "rolled_back";
        (back && deployment["reason"]["code"] == "rollback_ordered").then_some(())
    })
    .await;
}

/// People who may ask the agent need not be able to read its journal; others are told nothing.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_the_group_is_told_how_the_device_stands() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("skipped: only root can be somebody else");
        return;
    }
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true)]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    // Others may traverse the folder, as with /var/lib.
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.join("agent");
    std::fs::copy(binary("tidegate-agent"), &program).unwrap();
    let token = server.join_token();
    let mut device = Device::enroll(dir, "one", &server.url, &token, "NA", installed);
    std::fs::write(device.state.join("agent.conf"), "group = 54321\n").unwrap();
    device.run();
    let status = |group: &str| {
        let output = Command::new("setpriv")
            .args(["--reuid", "54321", "--clear-groups", "--regid", group])
            .arg(&program)
            .args(["status", "--state"])
            .arg(&device.state)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let said = eventually("a member is told", async || {
        let (ok, said) = status("54321");
        ok.then_some(said)
    })
    .await;
    assert!(said.contains("runs     1.0.0 from slot a"), "{said}");
    assert!(said.contains("runs as process"), "{said}");
    let (ok, said) = status("54322");
    assert!(!ok && said.contains("Permission denied"), "{said}");
}

/// Linux makes a file system read-only when it finds errors on it: the agent ends, and the diagnosis must say
/// why and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_became_read_only_is_named_with_the_way_out() {
    let server = Server::start().await;
    let Some(disk) = crate::machine::Small::mount(server.dir.path().join("disk"), 8_000) else {
        return;
    };
    let trees = server.publish(&[("1.0.0", true)]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let token = server.join_token();
    let device = Device::enroll(&disk.0, "one", &server.url, &token, "NA", installed);
    let (_, findings) = doctor(&device);
    assert_eq!(found(&findings, "journal")["verdict"], "good");
    disk.remount("ro");
    let (well, findings) = doctor(&device);
    assert!(!well);
    for check in ["journal", "state"] {
        assert_eq!(found(&findings, check)["verdict"], "bad", "{findings:#?}");
    }
    let state = found(&findings, "state")["value"].as_str().unwrap();
    assert!(state.contains("can only be read"), "{state}");
    assert!(state.contains("remount,rw"), "{state}");
    let space = found(&findings, "space");
    assert_eq!(space["verdict"], "notice", "{space}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_could_read_is_closed_and_the_log_says_so_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let dir = server.dir.path();
    let token = server.join_token();
    let mut device = Device::enroll(dir, "one", &server.url, &token, "NA", None);
    let key = device.state.join("identity.pem");
    let mode = || std::fs::metadata(&key).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    for start in 1..=2 {
        device.run();
        eventually("it has checked in", async || {
            device.status()["agent"]["heard_s"].is_u64().then_some(())
        })
        .await;
        device.kill();
        assert_eq!(mode(), 0o600);
        let log = device.log();
        let said = log.matches("others could read this key").count();
        assert_eq!(said, 1, "after start {start}: {log}");
    }
    assert!(device.log().contains("(mode 644); closed now"));
    assert!(device.log().contains("tidegate-agent new-key"));
}

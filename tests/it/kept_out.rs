//! Strangers are kept out: attacks A90 to A99 and A126 of `docs/explain/security-model.md`.

use std::process::Command;

use serde_json::{Value, json};
use tidegate_tests::{Device, Server, eventually};

#[cfg(unix)]
#[test]
fn a90_nobody_else_reads_a_servers_secrets_whatever_the_umask_and_the_folder() {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Stdio;

    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let open = |mode| std::fs::Permissions::from_mode(mode);
    let mode = |name: &str| {
        let meta = std::fs::metadata(data.join(name)).unwrap();
        meta.permissions().mode() & 0o777
    };
    let start = || {
        let mut child = Command::new("sh")
            .args(["-c", "umask 000; exec \"$0\" \"$@\""])
            .arg(tidegate_tests::binary("tidegate"))
            .args(["serve", "--exit-with-stdin", "--listen", "127.0.0.1:0"])
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert!(line.contains("listens"), "{line}");
        child
    };
    let private = || {
        for entry in std::fs::read_dir(&data).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert_eq!(mode(&name) & 0o077, 0, "{name}: {:o}", mode(&name));
        }
    };
    // An existing folder that everybody may enter, and a file where the first token goes.
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, open(0o755)).unwrap();
    std::fs::write(data.join("admin.token"), "").unwrap();
    std::fs::set_permissions(data.join("admin.token"), open(0o644)).unwrap();
    let mut child = start();
    assert!(data.join("tidegate.db-wal").exists());
    private();
    // Killed: what SQLite keeps beside the file stays. A copy of all that with open modes is mended.
    child.kill().unwrap();
    child.wait().unwrap();
    for name in ["tidegate.db", "tidegate.db-wal", "tidegate.db-shm"] {
        std::fs::set_permissions(data.join(name), open(0o644)).unwrap();
    }
    let mut child = start();
    private();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a126_nobody_else_writes_to_what_an_agent_and_a_server_keep_whatever_the_umask() {
    use std::io::BufRead as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn open_to_others(dir: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let meta = std::fs::symlink_metadata(entry.path()).unwrap();
            if !meta.is_symlink() && meta.permissions().mode() & 0o022 != 0 {
                found.push(format!(
                    "{} {:o}",
                    entry.path().display(),
                    meta.permissions().mode()
                ));
            }
            if meta.is_dir() {
                open_to_others(&entry.path(), found);
            }
        }
    }
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let dir = server.dir.path();
    let under = |umask: &str, program: &str| {
        let script = dir.join(format!("{program}-{umask}"));
        let program = tidegate_tests::binary(program);
        let text = format!(
            "#!/bin/sh\numask {umask}\nexec {} \"$@\"\n",
            program.display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        script
    };
    // Where each user has a group of their own, 002 is common.
    for umask in ["000", "002"] {
        let mut device = Device::blank(dir, &format!("plc-{umask}"));
        device.agent = under(umask, "tidegate-agent");
        device.log_file = dir.join(format!("{umask}.log"));
        let installed = Some((trees[0].as_path(), "1.0.0"));
        let (ok, said) = device.try_enroll(&server.url, &server.join_token(), "NA", installed, &[]);
        assert!(ok, "{said}");
        device.run();
        if umask == "000" {
            server.roll_out("1.1.0", &["NA"], json!({})).await;
        }
        device.settles_on("1.1.0").await;
        let mut found = Vec::new();
        open_to_others(&device.state, &mut found);
        // The harness writes this one.
        found.retain(|name| !name.contains("/measured "));
        assert_eq!(found, [] as [String; 0]);
        device.kill();
    }
    // Of a server, what SQLite and the first token are kept in is tried above: here the blobs.
    let mut child = Command::new(under("000", "tidegate"))
        .args([
            "serve",
            "--exit-with-stdin",
            "--listen",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(dir.join("other"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(out).read_line(&mut line).unwrap();
    let url = line.trim().rsplit(' ').next().unwrap().to_owned();
    let token = std::fs::read_to_string(dir.join("other/admin.token")).unwrap();
    let tree = trees[0].display().to_string();
    let publish = [
        "release",
        "publish",
        &tree,
        "--product",
        "app",
        "--release",
        "1.0.0",
        "--health-cmd",
        "health.sh",
    ];
    for arguments in [&["keys", "init", "--no-passphrase"][..], &publish] {
        let ran = Command::new(tidegate_tests::binary("tidegate"))
            .args(arguments)
            .env("TIDEGATE_SERVER", &url)
            .env("TIDEGATE_TOKEN", token.trim())
            .env("TIDEGATE_KEYS", dir.join("other-keys"))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }
    assert!(dir.join("other/blobs").is_dir());
    let mut found = Vec::new();
    open_to_others(&dir.join("other"), &mut found);
    assert_eq!(found, [] as [String; 0]);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Ids of the join tokens that are listed.
async fn listed(server: &Server) -> Vec<String> {
    let page = server.get("/api/v1/join-tokens").await;
    let items = page["items"].as_array().unwrap();
    assert!(!page.to_string().contains("secret"), "{page}");
    let id = |item: &Value| item["id"].as_str().unwrap().to_owned();
    items.iter().map(id).collect()
}

#[tokio::test]
async fn a91_a_join_token_that_leaked_is_found_and_revoked_and_lets_nobody_in_any_more() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let dir = server.dir.path();
    let join = |name: &str, token: &str| {
        Device::blank(dir, name).try_enroll(&server.url, token, "NA", None, &[])
    };
    let (leaked, other) = (server.join_token(), server.join_token());
    assert!(join("first", &leaked).0);
    let ids = listed(&server).await;
    assert_eq!(ids.len(), 2);
    let list = server.cli(&["device", "join-tokens", "--product", "app"]);
    assert!(list.contains("999 of 1000"), "{list}");
    let id = ids.iter().find(|id| {
        let row = list.lines().find(|line| line.contains(id.as_str()));
        row.is_some_and(|row| row.contains("999 of"))
    });
    let id = id.unwrap().as_str();
    let revoke = ["device", "revoke-join-token", id, "--reason", "it leaked"];
    server.cli(&revoke);
    let (ok, text) = join("second", &leaked);
    assert!(!ok && text.contains("the token was revoked"), "{text}");
    assert!(join("third", &other).0);
    // A second time there is nothing to revoke, and the device that has joined keeps its id.
    assert_ne!(server.cli_raw(&revoke).0, 0);
    let all = [
        "device",
        "revoke-join-token",
        "--all",
        "--reason",
        "who knows",
    ];
    // In an emergency a wrong name must not look like the end of it.
    let (code, _, said) = server.cli_raw(&[&all[..], &["--product", "ap"]].concat());
    assert!(code == 1 && said.contains("product ap"), "{code}: {said}");
    let done = server.cli(&all);
    assert!(done.starts_with("1 join tokens revoked"), "{done}");
    assert!(listed(&server).await.is_empty());
    assert!(!join("fourth", &other).0);
    assert_eq!(server.devices().await.len(), 2);
    // A token for one key is worth nothing to whoever has another.
    let plc = Device::blank(dir, "plc");
    let shown = Command::new(&plc.agent)
        .args(["fingerprint", "--state"])
        .arg(&plc.state)
        .output()
        .unwrap();
    let key = String::from_utf8(shown.stdout).unwrap().trim().to_owned();
    let bound = server.cli(&["device", "join-token", "--product", "app", "--key", &key]);
    let (ok, text) = join("thief", bound.trim());
    assert!(!ok && text.contains("for other keys"), "{text}");
    assert!(plc.try_enroll(&server.url, bound.trim(), "NA", None, &[]).0);
    let wanted = server
        .devices()
        .await
        .into_iter()
        .find(|d| d["name"] == "plc");
    assert_eq!(wanted.unwrap()["key_sha256"], key);
}

#[tokio::test]
async fn a92_whoever_joins_with_a_token_that_asks_for_approval_waits_until_a_person_accepts() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.cli(&[
        "device",
        "join-token",
        "--product",
        "app",
        "--uses",
        "9",
        "--approve",
    ]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path();
    let (url, token) = (server.url.as_str(), token.trim());
    let mut honest = Device::enroll(dir, "honest", url, token, "NA", installed);
    let mut thief = Device::enroll(dir, "thief", url, token, "NA", installed);
    honest.run();
    thief.run();
    for device in [&honest, &thief] {
        eventually("it says why nothing happens", async || {
            let said = device.log().contains("waits for a person to accept it");
            let told = device.status()["agent"]["said"].to_string();
            (said && told.contains("waits for a person to accept it")).then_some(())
        })
        .await;
    }
    // Nobody is there for a rollout: it counts neither of them, and the thief gets no byte.
    let rollout = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&rollout, "nothing_to_do").await;
    assert!(server.deployments(&rollout).await.is_empty());
    let why = server
        .get(&format!("/api/v1/devices/{}/why", thief.id()))
        .await;
    assert_eq!(why["reason"]["code"], "device_not_accepted");
    let readmit = ["device", "readmit", "thief", "--reason", "a way around"];
    assert_ne!(server.cli_raw(&readmit).0, 0);
    // The fingerprint is what tells them apart.
    let waiting = server.get("/api/v1/devices/waiting").await;
    let of = |name: &str| {
        let list = waiting["items"].as_array().unwrap();
        let device = list.iter().find(|d| d["name"] == name).unwrap();
        device["key_sha256"].as_str().unwrap().to_owned()
    };
    let accept = |key: &str| {
        let arguments = [
            "device",
            "accept",
            "honest",
            "--key",
            key,
            "--reason",
            "in the list",
        ];
        server.cli_raw(&arguments)
    };
    assert_ne!(accept(&of("thief")).0, 0);
    assert_eq!(accept(&of("honest")).0, 0);
    server.cli(&["device", "reject", "thief", "--reason", "not ours"]);
    honest.settles_on("1.1.0").await;
    eventually("the thief is shut out", async || {
        thief.log().contains("device_revoked").then_some(())
    })
    .await;
    assert_eq!(thief.installed().as_deref(), Some("1.0.0"));
    let waiting = server.get("/api/v1/devices/waiting").await;
    assert!(waiting["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a93_an_enrollment_without_a_good_token_takes_no_write_lock() {
    let mut server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let used = server.cli(&["device", "join-token", "--product", "app"]);
    let dir = server.dir.path().to_owned();
    Device::enroll(&dir, "first", &server.url, used.trim(), "NA", None);
    // Good for 100,000 s at most, and the clock of the next server is years ahead.
    let expired = server.join_token();
    server.kill();
    let settings = crate::checkin::settings(&dir.join("data"), 1_000);
    let running = tidegate_server::start(settings).await.unwrap();
    let app = running.app().clone();
    crate::checkin::at_rest(&app).await;
    let url = format!("http://{}", running.address);
    let mut invented = expired.clone().into_bytes();
    let place = invented.iter().position(|b| *b == b'_').unwrap() + 40;
    invented[place] = if invented[place] == b'a' { b'b' } else { b'a' };
    let invented = String::from_utf8(invented).unwrap();
    // The server's own tasks may write once in a while: a stranger would each time.
    let mut writes = Vec::new();
    for _ in 0..3 {
        let before = app.writes_begun();
        for (name, token) in [("a", used.trim()), ("b", &expired), ("c", &invented)] {
            let (url, dir, token) = (url.clone(), dir.clone(), token.to_owned());
            let blank = move || Device::blank(&dir, name).try_enroll(&url, &token, "NA", None, &[]);
            let (ok, text) = tokio::task::spawn_blocking(blank).await.unwrap();
            assert!(!ok && text.contains("token"), "{text}");
        }
        writes.push(app.writes_begun() - before);
    }
    assert!(
        writes.contains(&0),
        "a stranger took the write lock: {writes:?}"
    );
    // And what a stranger may send is small.
    let http = reqwest::Client::new();
    for path in ["enroll", "session", "key"] {
        let request = http.post(format!("{url}/device/v1/{path}"));
        let answer = request
            .body(vec![b' '; (16 << 10) + 1])
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 413, "{path}");
    }
    drop(app);
    running.stop().await;
}

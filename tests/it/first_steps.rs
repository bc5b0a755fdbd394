//! Problems that stopped newcomers: a machine without certificate authorities, a first publish that
//! failed, two commands at once, limits of the process, device texts on a terminal.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use tidegate_tests::{Database, Device, Server, application, binary, eventually};

/// Runs `tidegate` as on a machine without any certificate authority, such as a bare container.
fn without_authorities(arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
    let output = Command::new(binary("tidegate"))
        .args(arguments)
        .envs(environment.iter().copied())
        .env("SSL_CERT_FILE", "/nonexistent/roots.pem")
        .env("SSL_CERT_DIR", "/nonexistent")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

/// Creates a key and a certificate for `localhost` that is its own authority.
fn certificate(dir: &Path) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert.display().to_string(), key.display().to_string())
}

#[tokio::test]
async fn plain_http_and_the_health_check_need_no_certificate_authority() {
    let server = Server::start().await;
    let (ok, said) = without_authorities(
        &["whoami"],
        &[
            ("TIDEGATE_SERVER", &server.url),
            ("TIDEGATE_TOKEN", &server.token),
        ],
    );
    assert!(ok, "{said}");
    let listen = server.url.strip_prefix("http://").unwrap();
    let (ok, said) = without_authorities(&["healthcheck"], &[("TIDEGATE_LISTEN", listen)]);
    assert!(ok, "{said}");
    let (ok, said) = without_authorities(&["healthcheck", "--url", &server.url], &[]);
    assert!(ok, "{said}");
    let (ok, _) = without_authorities(&["healthcheck"], &[("TIDEGATE_LISTEN", "127.0.0.1:1")]);
    assert!(!ok);
}

#[tokio::test]
async fn the_health_check_reads_the_listeners_settings() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let options = ["--tls-cert", &cert, "--tls-key", &key];
    let server = Server::start_with(Database::Sqlite, &options).await;
    let listen = server.url.strip_prefix("https://").unwrap();
    let (ok, said) = without_authorities(
        &["healthcheck"],
        &[("TIDEGATE_LISTEN", listen), ("TIDEGATE_TLS_CERT", &cert)],
    );
    assert!(ok, "{said}");
    // Everybody else needs only its authority.
    let url = server.url.replace("127.0.0.1", "localhost");
    let (ok, said) = without_authorities(
        &["--ca-file", &cert, "whoami"],
        &[("TIDEGATE_SERVER", &url), ("TIDEGATE_TOKEN", &server.token)],
    );
    assert!(ok, "{said}");
}

#[tokio::test]
async fn a_first_publish_that_failed_is_mended_by_repeating_it() {
    let server = Server::start().await;
    server.cli(&["keys", "init", "--no-passphrase"]);
    let tree = application(server.dir.path(), "1.0.0", true);
    let blobs = server.dir.path().join("data/blobs");
    let away = server.dir.path().join("data/blobs.away");
    // A file in place of the folder: nothing can be stored, whoever the server runs as.
    std::fs::rename(&blobs, &away).unwrap();
    std::fs::write(&blobs, "").unwrap();
    let path = tree.display().to_string();
    let publish = [
        "release",
        "publish",
        &path,
        "--product",
        "app",
        "--release",
        "1.0.0",
    ];
    let (code, _, _) = server.cli_raw(&publish);
    assert_ne!(code, 0);
    std::fs::remove_file(&blobs).unwrap();
    std::fs::rename(&away, &blobs).unwrap();
    server.cli(&publish);
    server.cli(&[
        "release", "promote", "app", "1.0.0", "--to", "ga", "--reason", "first",
    ]);
    // Its channels are delegated, and a device can join and be served.
    let (token, installed) = (server.join_token(), Some((tree.as_path(), "1.0.0")));
    Device::enroll(
        server.dir.path(),
        "one",
        &server.url,
        &token,
        "NA",
        installed,
    );
}

#[tokio::test]
async fn several_publish_at_once_from_one_folder_of_keys() {
    let server = Server::start().await;
    server.cli(&["keys", "init", "--no-passphrase"]);
    let tree = application(server.dir.path(), "1.0.0", true);
    let path = tree.display().to_string();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let platforms = [
            "linux-x86_64",
            "linux-aarch64",
            "windows-x86_64",
            "macos-aarch64",
        ];
        let running = platforms.map(|platform| {
            let (server, path) = (&server, &path);
            scope.spawn(move || {
                server.cli_raw(&[
                    "release",
                    "publish",
                    path,
                    "--product",
                    "app",
                    "--release",
                    "1.0.0",
                    "--platform",
                    platform,
                ])
            })
        });
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (code, _, said) in &ended {
        assert_eq!(*code, 0, "{said}");
    }
    let release = server.get("/api/v1/products/app/releases/1.0.0").await;
    assert_eq!(release["artifacts"].as_array().unwrap().len(), 4);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let script = "ulimit -Sn 100 && ulimit -Hn 900 && exec \"$@\"";
    let mut child = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(binary("tidegate"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--exit-with-stdin",
            "--data",
        ])
        .arg(dir.path().join("data"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut first).unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let open = limits
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .unwrap();
    let soft = open.split_whitespace().nth(3);
    assert_eq!(soft, Some("900"), "{first} {open}");
    let said = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(
        said.contains("900") && said.contains("LimitNOFILE"),
        "{said}"
    );
}

#[tokio::test]
async fn what_a_check_says_reaches_people_whole_and_moves_no_cursor() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true)]);
    let tree = application(server.dir.path(), "1.1.0", false);
    let script = "#!/bin/sh\ni=0; while [ $i -lt 400 ]; do echo frame $i; i=$((i+1)); done\n\
                  printf '\\033]0;PWNED\\007\\033[2J\\342\\200\\256'\n\
                  echo 'schema 41 needed, found 39'\nexit 1\n";
    std::fs::write(tree.join("health.sh"), script).unwrap();
    server.publish_tree(&tree, "1.1.0", &[]);
    let (token, installed) = (server.join_token(), Some((trees[0].as_path(), "1.0.0")));
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "one", &server.url, &token, "NA", installed);
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "halted").await;
    device.settles_on("1.0.0").await;
    eventually("the device's word is there", async || {
        let rows = server.deployments(&id).await;
        rows[0]["state"]
            .as_str()
            .filter(|s| *s == "rolled_back")
            .map(drop)
    })
    .await;
    for command in [
        &["rollout", "deployments", &id][..],
        &["rollout", "events", &id],
        &["rollout", "events", &id, "-o", "json"],
        &["device", "why", "one"],
    ] {
        let said = server.cli(command);
        let forbidden = |c: char| c == '\u{202e}' || (c.is_control() && c != '\n');
        assert!(!said.contains(forbidden), "{command:?}: {said:?}");
    }
    let told = server.cli(&["rollout", "deployments", &id]);
    assert!(told.contains("schema 41 needed, found 39"), "{told}");
    assert!(!device.log().contains('\u{1b}'), "{}", device.log());
}

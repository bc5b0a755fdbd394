//! The way back on file systems that a bad release has filled, and what a killed agent leaves there.
//!
//! Each file system is one in a file. Needs root, loop devices, `mkfs.ext4`, `mkfs.xfs` and
//! `mkfs.btrfs`; without them a test says that it was skipped, unless `TIDEGATE_REQUIRE_POWER_CUT` is
//! set.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tidegate_tests::{Database, Device, Server, eventually};

use crate::machine::Small;
use crate::orphans::runs;

/// A file system in a file. Dropping it unmounts it.
struct Disk {
    mount: PathBuf,
    layered: bool,
}

fn call(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let failed = || format!("{program} {arguments:?}: {said}");
    output.status.success().then_some(()).ok_or_else(failed)
}

impl Disk {
    /// Makes and mounts one; says that the test is skipped if that cannot be done here.
    fn make(dir: &Path, kind: &str) -> Option<Self> {
        match Self::try_make(dir, kind) {
            Ok(disk) => Some(disk),
            Err(why) => {
                assert!(
                    std::env::var_os("TIDEGATE_REQUIRE_POWER_CUT").is_none(),
                    "a file system must be made here and cannot be: {why}"
                );
                println!("skipped: {why}");
                None
            }
        }
    }

    fn try_make(dir: &Path, kind: &str) -> Result<Self, String> {
        let (image, mount) = (dir.join("disk.img"), dir.join("disk"));
        let make: &[&str] = match kind {
            "xfs" => &["mkfs.xfs", "-q"],
            "btrfs" => &["mkfs.btrfs", "-q"],
            // Few inodes, so that they are soon used up.
            _ => &["mkfs.ext4", "-qF", "-N", "400"],
        };
        // The smallest that each of them takes.
        let bytes = match kind {
            "xfs" => 320 << 20,
            "btrfs" => 128 << 20,
            _ => 16 << 20,
        };
        fs::create_dir(&mount).map_err(|error| error.to_string())?;
        let sized = fs::File::create(&image).and_then(|file| file.set_len(bytes));
        sized.map_err(|error| error.to_string())?;
        let (image, at) = (image.display().to_string(), mount.display().to_string());
        call(make[0], &[&make[1..], &[&image]].concat())?;
        call("mount", &["-o", "loop", &image, &at])?;
        Ok(Self {
            mount,
            layered: false,
        })
    }

    /// Folder for the agent.
    fn room(&self) -> PathBuf {
        self.mount.join("room")
    }

    /// Lays an empty writable layer over what is in the room by now, which can only be read from then
    /// on, as the image of a factory is.
    fn lay_over(&mut self) {
        let at = |name: &str| self.mount.join(name);
        for name in ["upper", "work"] {
            fs::create_dir(at(name)).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.room().display(),
            at("upper").display(),
            at("work").display()
        );
        let room = self.room().display().to_string();
        call(
            "mount",
            &["-t", "overlay", "overlay", "-o", &options, &room],
        )
        .unwrap();
        self.layered = true;
    }

    /// Uses up what is left: each byte, or each file that can be made.
    fn exhaust(&self, what: Exhausted) {
        let folder = self.room().join("bad release");
        fs::create_dir_all(&folder).unwrap();
        match what {
            Exhausted::Bytes => {
                let mut file = fs::File::create(folder.join("log")).unwrap();
                for length in [1 << 20, 4096, 1] {
                    let piece = vec![7; length];
                    while file.write_all(&piece).is_ok() && file.sync_data().is_ok() {}
                }
            }
            Exhausted::Files => {
                let made = (0..100_000)
                    .take_while(|number| fs::File::create(folder.join(number.to_string())).is_ok());
                assert!(made.count() < 100_000, "files can still be made");
            }
        }
        let one_more = fs::write(self.room().join("one more"), vec![7; 65536]);
        assert!(one_more.is_err(), "there is room left");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.layered {
            let _ = call("umount", &["-l", &self.room().display().to_string()]);
        }
        let _ = call("umount", &["-l", &self.mount.display().to_string()]);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exhausted {
    Bytes,
    Files,
}

/// A device goes back to what it ran before although the version that fails has used up a resource of
/// its file system; once more after its agent was killed then. Its kept version is what it was.
async fn comes_back(kind: &str, what: Exhausted) {
    let server = Server::start().await;
    let dir = server.dir.path();
    let Some(mut disk) = Disk::make(dir, kind) else {
        return;
    };
    fs::create_dir(disk.room()).unwrap();
    let trees = server.publish(&[("1.0.0", true)]);
    // Its check hangs while there is a file `slow`, and fails while there is one `sick`.
    let [sick, slow, checks] = ["sick", "slow", "checks"].map(|name| dir.join(name));
    let tree = tidegate_tests::application(dir, "1.1.0", true);
    let check = format!(
        "#!/bin/sh\ncd {}\n[ ! -e sick ] || exit 1\n[ ! -e slow ] || {{ echo $$ >>checks; sleep 600; }}\n",
        dir.display()
    );
    fs::write(tree.join("health.sh"), check).unwrap();
    server.publish_tree(&tree, "1.1.0", &[]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let token = server.join_token();
    let mut device = Device::enroll(&disk.room(), "plc", &server.url, &token, "NA", installed);
    device.log_file = dir.join("plc.log");
    if kind == "overlay" {
        disk.lay_over();
    }
    device.run();
    let order = json!({ "rollback_window_s": 100 });
    let id = server.roll_out("1.1.0", &["NA"], order).await;
    eventually("probation", async || {
        (server.deployments(&id).await.first()?["state"] == "probation").then_some(())
    })
    .await;
    fs::write(&slow, "").unwrap();
    let orphan = eventually("a check hangs", async || {
        let begun = fs::read_to_string(&checks).ok()?;
        Some(begun.lines().next()?.to_owned())
    })
    .await;
    disk.exhaust(what);
    // A start is part of it: what it reads and writes has to do without room as well, and the check
    // outlives its agent.
    device.kill();
    assert!(runs(&orphan), "it outlives its agent");
    fs::write(&sick, "").unwrap();
    device.run();
    eventually("it is back", async || {
        (device.installed().as_deref() == Some("1.0.0")).then_some(())
    })
    .await;
    let tree = device.state.join("current/tree");
    for file in ["VERSION", "bin/app", "health.sh", "table"] {
        let (kept, built) = (tree.join(file), trees[0].join(file));
        assert!(
            fs::read(&kept).unwrap() == fs::read(&built).unwrap(),
            "{file}"
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o111;
        assert_eq!(mode(&kept), mode(&built), "{file}");
    }
    // The server hears of it in spite of all that.
    eventually("it is told", async || {
        (server.deployments(&id).await.first()?["state"] == "rolled_back").then_some(())
    })
    .await;
    assert!(!runs(&orphan), "the check of the agent before still runs");
    assert!(!device.log().contains("panicked"), "{}", device.log());
}

macro_rules! file_system {
    ($kind:ident $(, $exhausted:ident: $test:ident)+) => {
        mod $kind {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                comes_back(stringify!($kind), Exhausted::$exhausted).await;
            })+
        }
    };
}

// btrfs and xfs make files for as long as they have bytes.
file_system!(ext4, Bytes: a_device_comes_back_without_a_byte_left, Files: a_device_comes_back_without_a_file_left);
file_system!(xfs, Bytes: a_device_comes_back_without_a_byte_left);
file_system!(btrfs, Bytes: a_device_comes_back_without_a_byte_left);
file_system!(overlay, Bytes: a_device_comes_back_without_a_byte_left, Files: a_device_comes_back_without_a_file_left);

#[tokio::test]
async fn a127_a_publisher_cannot_fill_the_disk_on_which_a_halt_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(dir.path().join("disk"), 64 << 10) else {
        return;
    };
    let settings = tidegate_tests::settings(&disk.0);
    let running = tidegate_server::start(settings).await.unwrap();
    let token = running.first_token.clone().unwrap();
    let url = format!("http://{}/api/v1", running.address);
    let http = reqwest::Client::new();
    let upload = async |length: usize| {
        let blob = vec![7; length];
        let address = format!("{url}/blobs/{}", tidegate_delta::sha256(&blob));
        let sent = http
            .put(address)
            .bearer_auth(&token)
            .body(blob)
            .send()
            .await;
        let answer = sent.unwrap();
        let status = answer.status().as_u16();
        (status, answer.text().await.unwrap())
    };
    assert_eq!(upload(1 << 20).await.0, 200);
    let (status, said) = upload(60 << 20).await;
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("kept for orders such as a halt"), "{said}");
    // Orders are written, and what was begun has been given back.
    let body = json!({ "name": "responder", "role": "responder", "valid_s": 60 });
    let made = http.post(format!("{url}/tokens")).bearer_auth(&token);
    let made = made.json(&body).send().await.unwrap();
    assert!(made.status().is_success(), "{made:?}");
    assert_eq!(upload(2 << 20).await.0, 200);
    running.stop().await;
}

/// Writes until a disk has no byte left, as a log of somebody else does.
fn fill(path: &Path) {
    let mut file = fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    for length in [1 << 20, 4096, 1] {
        while file.write_all(&vec![7; length]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a142_others_who_fill_the_servers_disk_do_not_keep_a_halt_from_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(dir.path().join("disk"), 96 << 10) else {
        return;
    };
    let database = format!("sqlite:{}", disk.0.join("tidegate.db").display());
    let options = ["--metrics-listen", "127.0.0.1:0", "--database", &database];
    let server = Server::start_with(Database::Sqlite, &options).await;
    server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let id = server.roll_out("1.1.0", &["NOWHERE"], json!({})).await;
    let ready = async || {
        let (status, ready) = server.call("GET", "/readyz", None, "").await;
        (
            status,
            ready["writes"].clone(),
            ready["problems"].to_string(),
        )
    };
    assert_eq!(ready().await, (200, json!(true), "[]".into()));
    let missing = async || {
        let metrics = reqwest::get(&server.metrics).await;
        let metrics = metrics.unwrap().text().await.unwrap();
        let name = "tidegate_database_ballast_missing_bytes ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(missing().await, 0);
    let doctor = || {
        let data = disk.0.display().to_string();
        let (code, said, _) = server.cli_raw(&["doctor", "--data", &data, "-o", "json"]);
        let found: serde_json::Value = serde_json::from_str(&said).unwrap();
        let found = found.as_array().unwrap().iter();
        let disk = found.clone().find(|f| f["check"] == "disk of the data");
        (code, disk.unwrap().clone())
    };
    let (code, said) = doctor();
    assert_eq!((code, &said["level"]), (0, &json!("ok")), "{said}");
    let found = said["found"].as_str().unwrap();
    assert!(found.contains("ballast 6 of 6 MiB"), "{found}");

    let log = disk.0.join("log of somebody else");
    fill(&log);
    let halt = Some(json!({ "reason": "orders are lost" }));
    let path = format!("/api/v1/rollouts/{id}/halt");
    let (status, halted) = server.call("POST", &path, halt, &server.token).await;
    assert_eq!(
        (status, &halted["state"]),
        (200, &json!("halted")),
        "{halted}"
    );
    assert!(
        server.log().contains("ballast was given back"),
        "{}",
        server.log()
    );
    let (status, writes, problems) = ready().await;
    assert_eq!((status, writes), (200, json!(true)), "{problems}");
    assert!(
        problems.contains("of its ballast: make room on it"),
        "{problems}"
    );
    assert!(missing().await > 0);
    let (code, said) = doctor();
    assert_eq!((code, &said["level"]), (1, &json!("critical")), "{said}");
    assert!(
        said["next"].as_str().unwrap().contains("make room on it"),
        "{said}"
    );

    // Whoever goes on filling it ends all writes. That is said, by who looks and by who is asked.
    let mut tries = 0;
    loop {
        fill(&log);
        let hold = Some(json!({ "product": "app", "reason": "try" }));
        let (status, answer) = server
            .call("POST", "/api/v1/holds", hold, &server.token)
            .await;
        if status == 503 {
            break;
        }
        tries += 1;
        assert!(tries < 5_000, "{answer}");
    }
    eventually("the full disk is told", async || {
        let (status, writes, problems) = ready().await;
        let told = problems.contains("cannot be written: the disk of the database is full");
        (status == 503 && writes == json!(false) && told).then_some(())
    })
    .await;

    fs::remove_file(&log).unwrap();
    eventually("writes and the ballast are back", async || {
        let whole = ready().await == (200, json!(true), "[]".into());
        (whole && missing().await == 0).then_some(())
    })
    .await;
}

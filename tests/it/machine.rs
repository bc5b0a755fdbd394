//! Effects of a machine and its surroundings on an update: empty batteries, dead mirrors, proxies,
//! storage that is full or read-only.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::json;
use tidegate_tests::{Database, Device, Mode, Proxy, Server, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_battery_that_runs_low_in_the_middle_stops_the_update_until_it_is_charged() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let dir = server.dir.path();
    let battery = dir.join("battery");
    std::fs::write(&battery, "60 battery").unwrap();
    let proxy = Proxy::start(&server.url, Mode::CutAfter(20_000)).await;
    let mut device = Device::blank(dir, "plc");
    let file = battery.display().to_string();
    let (ok, said) = device.try_enroll(
        &proxy.url,
        &server.join_token(),
        "NA",
        None,
        &["--battery-file", &file],
    );
    assert!(ok, "{said}");
    device.run();
    let id = server.roll_out("1.0.0", &["NA"], json!({})).await;
    eventually("it has begun", async || {
        device.log().contains("downloading 1.0.0").then_some(())
    })
    .await;
    std::fs::write(&battery, "14 battery").unwrap();
    eventually("the server hears that it waits, and why", async || {
        let deployment = server.deployments(&id).await.pop()?;
        let waits = deployment["state"] == "deferred";
        (waits && deployment["reason"]["code"] == "battery_low").then_some(())
    })
    .await;
    assert_eq!(device.installed(), None);
    std::fs::write(&battery, "35 mains").unwrap();
    server.rollout_is(&id, "completed").await;
    device.settles_on("1.0.0").await;
}

/// A separate file system of known size. Needs root.
pub(crate) struct Small(pub(crate) PathBuf);

impl Small {
    pub(crate) fn mount(path: PathBuf, kib: u32) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={kib}k");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&path)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        assert!(
            std::env::var_os("TIDEGATE_REQUIRE_POWER_CUT").is_none(),
            "nothing can be mounted here, and it must be"
        );
        println!("skipped: nothing can be mounted here");
        None
    }

    pub(crate) fn remount(&self, options: &str) {
        let output = std::process::Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_and_one_that_can_only_be_read_are_told_and_leave_the_machine_as_it_is() {
    let server = Server::start().await;
    let dir = server.dir.path();
    // Permits for one version as artifact and tree, 660 KB, and not for a second one.
    let Some(disk) = Small::mount(dir.join("disk"), 1_000) else {
        return;
    };
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let token = server.join_token();
    let mut device = Device::enroll(&disk.0, "plc", &server.url, &token, "NA", installed);
    device.log_file = dir.join("plc.log");
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    eventually("the full disk is told", async || {
        let deployment = server.deployments(&id).await.pop()?;
        (deployment["reason"]["code"] == "disk_full").then_some(())
    })
    .await;
    assert_eq!(device.installed().as_deref(), Some("1.0.0"));
    disk.remount("ro");
    // A new job makes the agent write; it cannot, reports that, and exits for its service manager.
    server.cli(&["rollout", "cancel", &id, "--reason", "test"]);
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    let name = device.id();
    eventually("the read-only disk is told", async || {
        let why = server.get(&format!("/api/v1/devices/{name}/why")).await;
        why.to_string().contains("read-only").then_some(())
    })
    .await;
    assert_eq!(device.installed().as_deref(), Some("1.0.0"));
    disk.remount("rw,size=16m");
    device.kill();
    device.run();
    device.settles_on("1.1.0").await;
}

/// A process that may not write large files gets an error, not a signal that ends it: file systems
/// have such limits too.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_become_so_large_is_told_and_stops_nobody() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start().await;
    let dir = server.dir.path();
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let token = server.join_token();
    let mut device = Device::enroll(dir, "plc", &server.url, &token, "NA", installed);
    // 400 blocks of 512 bytes are 200 KiB; a version is an archive of 320.
    let script = dir.join("limited");
    let agent = device.agent.display().to_string();
    let text = format!("#!/bin/sh\nulimit -f 400\nexec {agent} \"$@\"\n");
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let unlimited = std::mem::replace(&mut device.agent, script);
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    eventually("it is told", async || {
        let deployment = server.deployments(&id).await.pop()?;
        (deployment["reason"]["code"] == "disk_full").then_some(())
    })
    .await;
    assert_eq!(device.ended(), None);
    assert_eq!(device.installed().as_deref(), Some("1.0.0"));
    device.kill();
    device.agent = unlimited;
    device.run();
    // A full disk is retried after a while; a new rollout begins at once.
    server.cli(&["rollout", "cancel", &id, "--reason", "test"]);
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
}

/// The cable was out: the version was not at fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_failed_here_is_taken_again_when_a_person_lifts_that() {
    let server = Server::start().await;
    let dir = server.dir.path();
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let cable = dir.join("cable");
    let check = format!("test -e {}", cable.display());
    let mut device = Device::blank(dir, "plc");
    let (ok, said) = device.try_enroll(
        &server.url,
        &server.join_token(),
        "NA",
        Some((&trees[0], "1.0.0")),
        &["--health-cmd", &check],
    );
    assert!(ok, "{said}");
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "halted").await;
    device.settles_on("1.0.0").await;
    std::fs::write(&cable, "in").unwrap();
    server.cli(&["rollout", "cancel", &id, "--reason", "cable"]);
    server.cli(&[
        "device",
        "lift-quarantine",
        "plc",
        "1.1.0",
        "--reason",
        "the cable was out",
    ]);
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    device.settles_on("1.1.0").await;
}

/// A version that is bad and fills the disk as well: there must be a way to leave it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_that_fills_the_disk_is_left_all_the_same() {
    let server = Server::start().await;
    let dir = server.dir.path();
    let Some(disk) = Small::mount(dir.join("disk"), 24_000) else {
        return;
    };
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    // While it runs it fills the disk, and then it turns unhealthy.
    let check = dir.join("check");
    let text = format!(
        "#!/bin/sh\n[ \"$TIDEGATE_RELEASE\" = 1.1.0 ] || exit 0\n\
         head -c 1G /dev/zero >{0}/filled 2>/dev/null\nexit 1\n",
        disk.0.display()
    );
    std::fs::write(&check, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&check, mode).unwrap();
    let mut device = Device::blank(&disk.0, "plc");
    device.log_file = dir.join("plc.log");
    let (ok, said) = device.try_enroll(
        &server.url,
        &server.join_token(),
        "NA",
        Some((&trees[0], "1.0.0")),
        &["--health-cmd", &check.display().to_string()],
    );
    assert!(ok, "{said}");
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "halted").await;
    eventually("it is back on a full disk", async || {
        (device.installed().as_deref() == Some("1.0.0")).then_some(())
    })
    .await;
    assert_eq!(device.ended(), None);
    let reason = &server.deployments(&id).await[0]["reason"];
    assert_eq!(reason["code"], "health_failed", "{reason}");
}

/// Flash wears out where it is written: the base of all deltas may be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_has_lost_the_base_of_its_deltas_takes_the_whole_image() {
    let server = Server::start().await;
    let dir = server.dir.path();
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    server.built("1.1.0").await;
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let token = server.join_token();
    let mut device = Device::enroll(dir, "plc", &server.url, &token, "NA", installed);
    std::fs::remove_file(device.state.join("slots/a/artifact")).unwrap();
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    device.settles_on("1.1.0").await;
    // First with each delta, then without.
    let times = device.log().matches("downloading 1.1.0").count();
    assert!(times >= 2, "{}", device.log());
}

/// A mirror: blobs from a folder, with ranges, one request per connection.
struct Mirror {
    port: u16,
    folder: Arc<OnceLock<PathBuf>>,
    served: Arc<AtomicU64>,
}

impl Mirror {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mirror = Self {
            port: listener.local_addr().unwrap().port(),
            folder: Arc::default(),
            served: Arc::default(),
        };
        let (folder, served) = (mirror.folder.clone(), mirror.served.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(folder) = folder.get() {
                    serve(stream, folder, &served);
                }
            }
        });
        mirror
    }
}

fn serve(mut stream: TcpStream, folder: &std::path::Path, served: &AtomicU64) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else {
        return;
    };
    let mut range = None;
    for line in lines.map_while(Result::ok).take_while(|l| !l.is_empty()) {
        if let Some(text) = line.strip_prefix("range: bytes=") {
            let (from, to) = text.split_once('-').unwrap();
            range = Some((from.parse::<u64>().unwrap(), to.parse::<u64>().unwrap()));
        }
    }
    let path = first.split(' ').nth(1).unwrap();
    let Some(name) = path.strip_prefix("/mirror/blobs/") else {
        let _ = stream.write_all(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n");
        return;
    };
    let bytes = std::fs::read(folder.join(&name[..2]).join(name)).unwrap();
    let (status, body, place) = match range {
        Some((from, to)) => {
            let (from, to) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
            let place = format!("content-range: bytes {from}-{to}/{}\r\n", bytes.len());
            ("206 Partial Content", &bytes[from..=to], place)
        }
        None => ("200 OK", &bytes[..], String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\n{place}content-length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes());
    if stream.write_all(body).is_ok() {
        served.fetch_add(body.len() as u64, Ordering::SeqCst);
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_come_from_the_first_mirror_that_answers() {
    let mirror = Mirror::start();
    // Nobody listens on the first mirror.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mirrors = format!("http://{nobody},http://127.0.0.1:{}/mirror/", mirror.port);
    let server = Server::start_with(Database::Sqlite, &["--mirror", &mirrors]).await;
    server.publish(&[("1.0.0", true)]);
    let blob = server.blob(&"ab".repeat(32));
    let folder = blob.parent().unwrap().parent().unwrap().to_owned();
    mirror.folder.set(folder).unwrap();
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "plc", &server.url, &server.join_token(), "NA", None);
    device.run();
    let id = server.roll_out("1.0.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    device.settles_on("1.0.0").await;
    let carried = mirror.served.load(Ordering::SeqCst);
    let fetched = server.deployments(&id).await[0]["bytes_downloaded"]
        .as_u64()
        .unwrap();
    assert_eq!(carried, fetched, "all of it came from the mirror, once");
    assert!(carried > 300_000, "{carried}");
}

/// Answers each request with the page of a filter; returns its address.
fn block_page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            lines
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .for_each(drop);
            let page = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nBlocked";
            let _ = stream.write_all(page.as_bytes());
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_with_a_block_page_costs_no_attempt_and_no_byte_twice() {
    let mirror = block_page();
    let server = Server::start_with(Database::Sqlite, &["--mirror", &mirror]).await;
    server.publish(&[("1.0.0", true)]);
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "plc", &server.url, &server.join_token(), "NA", None);
    device.run();
    let id = server.roll_out("1.0.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    device.settles_on("1.0.0").await;
    let deployments = server.deployments(&id).await;
    assert_eq!(deployments.len(), 1, "in one attempt");
    assert_eq!(device.log().matches("downloading 1.0.0").count(), 1);
    let fetched = deployments[0]["bytes_downloaded"].as_u64().unwrap();
    let length = std::fs::metadata(device.state.join("slots/a/artifact")).map_or(0, |m| m.len());
    assert!(
        fetched < length + length / 10 + 20_000,
        "{fetched} of {length}"
    );
    let named = format!("mirror {mirror} is put aside");
    assert!(device.log().contains(&named), "{}", device.log());
    let output = std::process::Command::new(tidegate_tests::binary("tidegate-agent"))
        .args(["doctor", "--state"])
        .arg(&device.state)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find(|line| line.contains("mirrors"));
    assert!(line.is_some_and(|line| line.contains(&mirror)), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_carries_everything() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let proxy = Proxy::start(&server.url, Mode::Pass).await;
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "plc", &server.url, &server.join_token(), "NA", None);
    // It passes requests on unchanged; the server accepts them with an absolute address too.
    device.run_with(&[("http_proxy", &proxy.url), ("no_proxy", "")]);
    let id = server.roll_out("1.0.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    device.settles_on("1.0.0").await;
    assert!(proxy.passed() > 300_000, "{} bytes", proxy.passed());
}

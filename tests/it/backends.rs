//! The same update on each kind of installation, with real files, real commands and a link that
//! drops connections.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tidegate_tests::{Device, Mode, Proxy, Server, eventually};

fn script(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Writes a one-file program that prints its version; `check` is its health check. Trailing noise
/// makes it worth a delta.
fn program(dir: &Path, version: &str, healthy: bool) -> PathBuf {
    let path = dir.join(format!("program-{version}"));
    let verdict = i32::from(!healthy);
    let mut text =
        format!("#!/bin/sh\n[ \"$1\" = check ] && exit {verdict}\necho {version}\nexit 0\n");
    let mut state = 7u64;
    for _ in 0..20_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text += &format!("# {state:x}\n");
    }
    script(&path, &text);
    path
}

fn says(program: &Path) -> String {
    let output = Command::new(program).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn comes_to(what: &str, program: &Path, version: &str, device: &Device) {
    eventually(&format!("{what} runs {version}"), async || {
        let idle = device.status()["state"].is_null();
        (idle && says(program) == version).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executable_moves_by_delta_over_a_dropping_link_and_comes_back_from_a_bad_one() {
    let server = Server::start().await;
    let dir = server.dir.path();
    server.cli(&["keys", "init", "--no-passphrase"]);
    for (version, healthy) in [("1.0.0", true), ("1.1.0", true), ("1.2.0", false)] {
        server.publish_raw(&program(dir, version, healthy), version, "app check");
    }
    server.built("1.2.0").await;
    let opt = dir.join("opt");
    std::fs::create_dir(&opt).unwrap();
    let live = opt.join("app");
    std::fs::copy(dir.join("program-1.0.0"), &live).unwrap();
    let proxy = Proxy::start(&server.url, Mode::CutAfter(30_000)).await;
    let mut device = Device::blank(dir, "press");
    let path = live.display().to_string();
    let (ok, said) = device.try_enroll(
        &proxy.url,
        &server.join_token(),
        "NA",
        Some((&live, "1.0.0")),
        &["--backend", "executable", "--path", &path],
    );
    assert!(ok, "{said}");
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    comes_to("the executable", &live, "1.1.0", &device).await;
    assert_eq!(says(&opt.join("app.tidegate-prev")), "1.0.0");
    let fetched = server.deployments(&id).await[0]["bytes_downloaded"]
        .as_u64()
        .unwrap();
    assert!(fetched < 20_000, "{fetched} bytes: not by delta");
    let id = server.roll_out("1.2.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "halted").await;
    comes_to("the executable", &live, "1.1.0", &device).await;
    assert_eq!(
        server.deployments(&id).await[0]["reason"]["code"],
        "health_failed"
    );
}

/// A machine made of two image files and a boot loader of a few lines of shell. Its reboot ends the
/// agent, which the test restarts as the machine would.
struct Machine {
    dir: PathBuf,
}

impl Machine {
    fn new(dir: &Path, old: &Path) -> Self {
        let machine = Self {
            dir: dir.join("machine"),
        };
        std::fs::create_dir(&machine.dir).unwrap();
        std::fs::copy(old, machine.dir.join("slot-a")).unwrap();
        std::fs::write(machine.dir.join("slot-b"), vec![0; 4_096]).unwrap();
        for (name, value) in [("booted", "a"), ("good", "a"), ("trial", "")] {
            std::fs::write(machine.dir.join(name), value).unwrap();
        }
        script(
            &machine.dir.join("boot"),
            "#!/bin/sh\ncd \"$(dirname \"$0\")\"\ncase $1 in\n\
             booted) cat booted ;;\n\
             next) if [ -s trial ]; then cat trial; else cat good; fi ;;\n\
             set) if [ \"$(cat good)\" = $TIDEGATE_SLOT ]; then printf '' >trial; \
             else printf $TIDEGATE_SLOT >trial; fi ;;\n\
             confirm) printf $TIDEGATE_SLOT >good; printf '' >trial ;;\n\
             esac\n",
        );
        // Anything that does not look like an image does not boot.
        script(
            &machine.dir.join("reboot"),
            "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho start >>starts\n\
             next=$(./boot next)\nprintf '' >trial\n\
             if head -c 64 slot-$next | grep -q DEAD; then next=$(cat good); fi\n\
             printf $next >booted\nkill -9 $PPID\n",
        );
        machine
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn starts(&self) -> usize {
        let text = std::fs::read_to_string(self.dir.join("starts")).unwrap_or_default();
        text.lines().count()
    }

    /// Returns the version in the booted slot.
    fn runs(&self) -> String {
        let slot = std::fs::read_to_string(self.dir.join("booted")).unwrap();
        let bytes = std::fs::read(self.dir.join(format!("slot-{slot}"))).unwrap();
        let line = bytes.split(|b| *b == b'\n').next().unwrap();
        String::from_utf8_lossy(line).into_owned()
    }
}

fn disk(dir: &Path, version: &str, seed: u8) -> PathBuf {
    let path = dir.join(format!("disk-{version}"));
    let mut bytes = format!("{version}\n").into_bytes();
    let mut state = 11u64;
    while bytes.len() < 400_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.extend(state.to_be_bytes());
    }
    bytes[200_000] = seed;
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_started_by_the_boot_loader_and_one_that_does_not_start_is_left_once() {
    let server = Server::start().await;
    let dir = server.dir.path();
    server.cli(&["keys", "init", "--no-passphrase"]);
    let old = disk(dir, "1.0.0", 0);
    for (file, version) in [
        (old.clone(), "1.0.0"),
        (disk(dir, "1.1.0", 1), "1.1.0"),
        (disk(dir, "DEAD", 2), "1.2.0"),
        (disk(dir, "1.3.0", 3), "1.3.0"),
    ] {
        server.publish_raw(&file, version, "true");
    }
    server.built("1.3.0").await;
    let machine = Machine::new(dir, &old);
    let proxy = Proxy::start(&server.url, Mode::CutAfter(50_000)).await;
    let mut device = Device::blank(dir, "plc");
    let (a, b) = (machine.path("slot-a"), machine.path("slot-b"));
    let (boot, reboot) = (machine.path("boot"), machine.path("reboot"));
    let (ok, said) = device.try_enroll(
        &proxy.url,
        &server.join_token(),
        "NA",
        Some((&old, "1.0.0")),
        &[
            "--backend",
            "image",
            "--slot-a",
            &a,
            "--slot-b",
            &b,
            "--boot-cmd",
            &boot,
            "--reboot-cmd",
            &reboot,
        ],
    );
    assert!(ok, "{said}");
    device.run();
    let settle = async |device: &mut Device, version: &str, id: &str, state: &str| {
        eventually(&format!("{version} after {id}"), async || {
            if device.ended().is_some() {
                device.run();
            }
            let rollout = server.get(&format!("/api/v1/rollouts/{id}")).await;
            let idle = device.status()["state"].is_null();
            (idle && machine.runs() == version && rollout["state"] == state).then_some(())
        })
        .await;
    };
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    settle(&mut device, "1.1.0", &id, "completed").await;
    assert_eq!(machine.starts(), 1);
    // The downtime includes the machine's reboot.
    let deployment = &server.deployments(&id).await[0];
    assert!(
        deployment["downtime_ms"].as_u64().unwrap() > 0,
        "{deployment}"
    );
    let id = server.roll_out("1.2.0", &["NA"], json!({})).await;
    settle(&mut device, "1.1.0", &id, "halted").await;
    let deployment = &server.deployments(&id).await[0];
    assert_eq!(deployment["reason"]["code"], "crashed_in_trial");
    // One boot on trial, then the boot loader fell back: nothing is started again.
    assert_eq!(machine.starts(), 2);
    let again = server.roll_out("1.2.0", &["NA"], json!({})).await;
    let name = device.id();
    let why = server.get(&format!("/api/v1/devices/{name}/why")).await;
    assert_eq!(why["reason"]["code"], "quarantined", "{why}");
    // It may have ended by itself: it has nothing to do.
    let (code, _, said) = server.cli_raw(&["rollout", "cancel", &again, "--reason", "test"]);
    assert!(code == 0 || said.contains("nothing_to_do"), "{said}");
    // A version rolled back after it was confirmed: the boot loader stays with the version before
    // it, in later boots as well.
    let id = server
        .roll_out("1.3.0", &["NA"], json!({ "rollback_window_s": 600 }))
        .await;
    eventually("1.3.0 in its window", async || {
        if device.ended().is_some() {
            device.run();
        }
        (server.deployments(&id).await.first()?["state"] == "probation").then_some(())
    })
    .await;
    assert_eq!(machine.runs(), "1.3.0");
    server.cli(&["rollback", &id, "--reason", "orders are lost"]);
    settle(&mut device, "1.1.0", &id, "rolled_back").await;
    let says = |name: &str| std::fs::read_to_string(machine.path(name)).unwrap();
    assert_eq!(says("good"), says("booted"));
    assert_eq!(says("trial"), "");
}

/// Builds a package in Debian's format.
fn package(dir: &Path, version: &str, healthy: bool) -> PathBuf {
    let tree = dir.join(format!("deb-{version}"));
    std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    std::fs::create_dir_all(tree.join("usr/bin")).unwrap();
    std::fs::write(
        tree.join("DEBIAN/control"),
        format!("Package: press\nVersion: {version}\nArchitecture: all\nMaintainer: plant\nDescription: press\n"),
    )
    .unwrap();
    std::fs::copy(program(dir, version, healthy), tree.join("usr/bin/press")).unwrap();
    let file = dir.join(format!("press_{version}.deb"));
    let built = Command::new("dpkg-deb")
        .args(["--build", "-Znone"])
        .arg(&tree)
        .arg(&file)
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn debian_packages_are_installed_and_brought_back_by_the_documented_hook() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        println!("skipped: there is no dpkg here");
        return;
    }
    let server = Server::start().await;
    let dir = server.dir.path();
    server.cli(&["keys", "init", "--no-passphrase"]);
    let root = dir.join("root");
    for folder in ["var/lib/dpkg/updates", "var/lib/dpkg/info"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in ["var/lib/dpkg/status", "var/lib/dpkg/available"] {
        std::fs::write(root.join(file), "").unwrap();
    }
    let live = root.join("usr/bin/press");
    let check = format!("{} check", live.display());
    let old = package(dir, "1.0.0", true);
    for (file, version) in [
        (old.clone(), "1.0.0"),
        (package(dir, "1.1.0", true), "1.1.0"),
        (package(dir, "1.2.0", false), "1.2.0"),
    ] {
        server.publish_raw(&file, version, &check);
    }
    server.built("1.2.0").await;
    let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/hooks/dpkg");
    // The command line is split at spaces: a file of its own holds the options.
    let wrapper = dir.join("hook");
    script(
        &wrapper,
        &format!(
            "#!/bin/sh\nTIDEGATE_ROOT={} exec {hook} press \"$@\"\n",
            root.display()
        ),
    );
    let proxy = Proxy::start(&server.url, Mode::CutAfter(50_000)).await;
    let mut device = Device::blank(dir, "press");
    let command = wrapper.display().to_string();
    let (ok, said) = device.try_enroll(
        &proxy.url,
        &server.join_token(),
        "NA",
        Some((&old, "1.0.0")),
        &["--backend", "hook", "--hook-cmd", &command],
    );
    assert!(ok, "{said}");
    assert_eq!(says(&live), "1.0.0");
    device.run();
    let id = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "completed").await;
    comes_to("the package", &live, "1.1.0", &device).await;
    let fetched = server.deployments(&id).await[0]["bytes_downloaded"]
        .as_u64()
        .unwrap();
    assert!(fetched < 20_000, "{fetched} bytes: not by delta");
    let id = server.roll_out("1.2.0", &["NA"], json!({})).await;
    server.rollout_is(&id, "halted").await;
    comes_to("the package", &live, "1.1.0", &device).await;
}

#[tokio::test]
async fn what_a_machine_cannot_install_is_refused_before_it_is_fetched_and_the_server_hears_why() {
    let server = Server::start().await;
    let dir = server.dir.path();
    let trees = server.publish(&[("1.0.0", true)]);
    server.publish_raw(&program(dir, "1.1.0", true), "1.1.0", "true");
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let mut device = Device::enroll(dir, "one", &server.url, &token, "NA", installed);
    device.run();
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    let id = device.id();
    eventually("the refusal is shown", async || {
        let why = server.get(&format!("/api/v1/devices/{id}/why")).await;
        why.to_string()
            .contains("cannot be installed here")
            .then_some(())
    })
    .await;
    assert_eq!(device.installed().as_deref(), Some("1.0.0"));
}

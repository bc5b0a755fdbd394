//! Commands that outlive their agent: they are ended before another one does anything.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use tidegate_tests::{Device, Server, eventually};

/// A hook whose installation is slow for as long as the file `slow` is there.
fn hook(dir: &Path) -> String {
    let path = dir.join("hook");
    let text = format!(
        "#!/bin/sh\ncd {}\ncase $1 in\n\
         current) cat current 2>/dev/null || echo none ;;\n\
         install) echo $$ >>installs; [ ! -e slow ] || sleep 600; cp \"$TIDEGATE_ARTIFACT\" $TIDEGATE_SLOT ;;\n\
         activate) echo $TIDEGATE_SLOT >next; mv next current ;;\n\
         esac\n",
        dir.display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// Processes that installed, first one first.
fn installs(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("installs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Whether a process runs: what waits for its parent to look does not.
pub(crate) fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    state.is_some_and(|state| state != "Z")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_installation_never_runs_beside_another_one() {
    let server = Server::start().await;
    let dir = server.dir.path();
    server.cli(&["keys", "init", "--no-passphrase"]);
    let files = ["1.0.0", "1.1.0"].map(|version| {
        let file = dir.join(version);
        std::fs::write(&file, version).unwrap();
        server.publish_raw(&file, version, "true");
        file
    });
    let machine = dir.join("machine");
    std::fs::create_dir(&machine).unwrap();
    let mut device = Device::blank(dir, "press");
    let (ok, said) = device.try_enroll(
        &server.url,
        &server.join_token(),
        "NA",
        Some((&files[0], "1.0.0")),
        &["--backend", "hook", "--hook-cmd", &hook(&machine)],
    );
    assert!(ok, "{said}");
    let before = installs(&machine).len();
    std::fs::write(machine.join("slow"), "").unwrap();
    device.run();
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    let begun = async || installs(&machine).get(before).cloned();
    let first = eventually("an installation", begun).await;
    device.kill();
    assert!(runs(&first), "it outlives its agent");
    std::fs::remove_file(machine.join("slow")).unwrap();
    device.run();
    eventually("the machine runs 1.1.0", async || {
        let slot = std::fs::read_to_string(machine.join("current")).ok()?;
        let version = std::fs::read_to_string(machine.join(slot.trim())).ok()?;
        (version == "1.1.0").then_some(())
    })
    .await;
    assert!(!runs(&first), "it still installs");
    assert_eq!(installs(&machine).len(), before + 2);
    let told = device
        .log()
        .contains("ended a command that was left of the agent before");
    assert!(told, "{}", device.log());
}

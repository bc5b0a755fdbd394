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

/// A hook whose installation hangs for as long as there is a file `slow`, with a child of it in a session
/// of its own. Each other one writes down which processes run beside it.
fn scattering_hook(dir: &Path) -> String {
    let path = dir.join("hook");
    let text = format!(
        "#!/bin/sh\ncd {}\n\
         look() {{ for name in away service; do [ ! -e $name ] || \
           ! grep -q '^State:.[^Z]' /proc/$(cat $name)/status || echo $1 $name; done; }}\n\
         case $1 in\n\
         current) cat current 2>/dev/null || echo none ;;\n\
         install) if [ -e slow ]; then\n\
           setsid sh -c 'echo $$ >new; mv new away; exec sleep 600' >/dev/null 2>&1 &\n\
           sleep 600; fi\n\
           look beside >>seen; cp \"$TIDEGATE_ARTIFACT\" $TIDEGATE_SLOT ;;\n\
         activate) echo $TIDEGATE_SLOT >next; mv next current ;;\n\
         restart) [ ! -e service ] || kill $(cat service); rm -f service\n\
           setsid sh -c 'echo $$ >begun; mv begun service; exec sleep 600' >/dev/null 2>&1 &\n\
           until [ -e service ]; do sleep 0.05; done ;;\n\
         esac\n",
        dir.display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// Process whose number a file of a machine holds.
async fn process(machine: &Path, name: &str) -> String {
    eventually(name, async || {
        let text = std::fs::read_to_string(machine.join(name)).ok()?;
        let pid = text.trim().to_owned();
        (!pid.is_empty()).then_some(pid)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_the_group_of_a_killed_agents_command_is_ended_and_a_service_or_a_neighbours_child_is_not()
 {
    let server = Server::start().await;
    let dir = server.dir.path();
    server.cli(&["keys", "init", "--no-passphrase"]);
    let files = ["1.0.0", "1.1.0", "1.2.0"].map(|version| {
        let file = dir.join(version);
        std::fs::write(&file, version).unwrap();
        server.publish_raw(&file, version, "true");
        file
    });
    let mut devices = Vec::new();
    for name in ["press", "neighbour"] {
        let machine = dir.join(format!("{name}-machine"));
        std::fs::create_dir(&machine).unwrap();
        let mut device = Device::blank(dir, name);
        let hook = scattering_hook(&machine);
        let restart = format!("{hook} restart");
        let (ok, said) = device.try_enroll(
            &server.url,
            &server.join_token(),
            "NA",
            Some((&files[0], "1.0.0")),
            &[
                "--backend",
                "hook",
                "--hook-cmd",
                &hook,
                "--restart-cmd",
                &restart,
            ],
        );
        assert!(ok, "{said}");
        device.run();
        devices.push((device, machine));
    }
    let first = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&first, "completed").await;
    for (_, machine) in &devices {
        std::fs::write(machine.join("slow"), "").unwrap();
    }
    server.roll_out("1.2.0", &["NA"], json!({})).await;
    let mut away = Vec::new();
    for (_, machine) in &devices {
        away.push(process(machine, "away").await);
    }
    let [(press, machine), (neighbour, other)] = &mut devices[..] else {
        unreachable!()
    };
    let service = process(machine, "service").await;
    press.kill();
    assert!(runs(&away[0]), "it outlives its agent");
    std::fs::remove_file(machine.join("slow")).unwrap();
    std::fs::write(machine.join("seen"), "").unwrap();
    press.run();
    eventually("the machine runs 1.2.0", async || {
        let slot = std::fs::read_to_string(machine.join("current")).ok()?;
        let version = std::fs::read_to_string(machine.join(slot.trim())).ok()?;
        (version == "1.2.0").then_some(())
    })
    .await;
    let seen = std::fs::read_to_string(machine.join("seen")).unwrap();
    assert_eq!(seen, "beside service\n");
    assert!(!runs(&away[0]), "it still works");
    let told = format!(
        "ended a command that was left of the agent before (process {})",
        away[0]
    );
    assert!(press.log().contains(&told), "{}", press.log());
    assert!(!press.log().contains(&format!("(process {service})")));
    // The other agent of this machine has lost nothing by it; its own next start ends what it left.
    assert!(runs(&away[1]), "it was not this agent's");
    neighbour.kill();
    std::fs::remove_file(other.join("slow")).unwrap();
    neighbour.run();
    eventually("the neighbour's is ended", async || {
        (!runs(&away[1])).then_some(())
    })
    .await;
    server.all_run("1.2.0").await;
    for (device, machine) in &mut devices {
        device.kill();
        let service = process(machine, "service").await;
        let _ = std::process::Command::new("kill").arg(service).status();
    }
}

//! The way back of a machine from which a bad release has taken everything.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tidegate_tests::{Device, Server, binary, eventually};

/// Sets up a device in the rollback window of 1.1.0, with a check every ten seconds.
async fn in_window(server: &Server) -> Device {
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
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
    device.run();
    let id = server
        .roll_out("1.1.0", &["NA"], json!({ "rollback_window_s": 100 }))
        .await;
    eventually("probation", async || {
        (server.deployments(&id).await.first()?["state"] == "probation").then_some(())
    })
    .await;
    device
}

async fn is_back(device: &Device) {
    eventually("it is back", async || {
        (device.installed().as_deref() == Some("1.0.0")).then_some(())
    })
    .await;
}

fn done(program: &str, arguments: &[&str], path: &Path) {
    let ran = Command::new(program).args(arguments).arg(path).status();
    assert!(ran.unwrap().success(), "{program} {arguments:?}");
}

/// A release that forks without end leaves no process and no thread: the check cannot be started, and that
/// counts as its failure. Only a user other than root can be kept from making processes.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_thread_or_a_process_to_be_had_a_device_still_goes_back() {
    let server = Server::start().await;
    let mut device = in_window(&server).await;
    device.kill();
    let dir = server.dir.path();
    let program = dir.join("agent");
    std::fs::copy(binary("tidegate-agent"), &program).unwrap();
    let mut limited = "exec prlimit --nproc=1:1 ".to_owned();
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        // Others may traverse the folder, as with /var/lib.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        done("chown", &["-R", "54321:54321"], &device.state);
        limited += "setpriv --reuid 54321 --regid 54321 --clear-groups ";
    }
    let wrapper = dir.join("limited-agent");
    let script = format!("#!/bin/sh\n{limited} {} \"$@\"\n", program.display());
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    device.agent = wrapper;
    device.run();
    is_back(&device).await;
    let log = device.log();
    assert!(log.contains("cannot be started"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    // It lives on, and tells the server.
    server.all_run("1.0.0").await;
}

/// The limit is lowered to what is open: nothing more can be opened but what the agent gives up itself.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_to_be_opened_a_failing_check_is_heard_and_obeyed() {
    let server = Server::start().await;
    let device = in_window(&server).await;
    let open = || -> Vec<u32> {
        let list = std::fs::read_dir(format!("/proc/{}/fd", device.pid())).unwrap();
        let names = list.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.map(|name| name.parse().unwrap()).collect()
    };
    let fds = open();
    let free = (0..1024).find(|fd| !fds.contains(fd)).unwrap();
    let sick = device.state.join("slots/b/tree/health.sh");
    std::fs::write(sick, "#!/bin/sh\necho out of orders\nexit 1\n").unwrap();
    let limited = Command::new("prlimit")
        .args(["--pid", &device.pid().to_string()])
        .arg(format!("--nofile={free}:{free}"))
        .status();
    assert!(limited.unwrap().success());
    is_back(&device).await;
    let log = device.log();
    // The check was run and failed: it did not fail for want of a file.
    assert!(log.contains("out of orders"), "{log}");
}

//! Places that fill while an update is under way: what was fetched is not fetched again.

use std::path::Path;

use serde_json::json;
use tidegate_tests::{Device, Mode, Proxy, Server, eventually};

use crate::machine::Small;

/// Length of a version, in bytes. It cannot be compressed.
const LENGTH: usize = 1 << 20;

fn version(dir: &Path, name: &str, seed: u32) -> std::path::PathBuf {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    let file = dir.join(name);
    std::fs::write(&file, (0..LENGTH).map(|_| next()).collect::<Vec<u8>>()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_fills_after_staging_costs_no_second_download_and_no_restart_while_it_is_full()
{
    let server = Server::start().await;
    let dir = server.dir.path();
    // The program lies on a small file system of its own, with room for a copy.
    let Some(place) = Small::mount(dir.join("place"), 3_000) else {
        return;
    };
    server.cli(&["keys", "init", "--no-passphrase"]);
    let old = version(dir, "1.0.0", 7);
    server.publish_raw(&old, "1.0.0", "true");
    let new = version(dir, "1.1.0", 11);
    server.publish_raw(&new, "1.1.0", "true");
    let live = place.0.join("app");
    std::fs::copy(&old, &live).unwrap();
    let (restarts, restart) = (dir.join("restarts"), dir.join("restart"));
    let text = format!("#!/bin/sh\necho >>{}\n", restarts.display());
    std::fs::write(&restart, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&restart, mode).unwrap();
    let proxy = Proxy::start(&server.url, Mode::CutAfter(30_000)).await;
    let mut device = Device::blank(dir, "press");
    let (ok, said) = device.try_enroll(
        &proxy.url,
        &server.join_token(),
        "NA",
        Some((&live, "1.0.0")),
        &[
            "--backend",
            "executable",
            "--path",
            &live.display().to_string(),
            "--restart-cmd",
            &restart.display().to_string(),
        ],
    );
    assert!(ok, "{said}");
    device.run();
    // It fills while the update is fetched, after the room was looked for.
    let first = server.roll_out("1.1.0", &["NA"], json!({})).await;
    let progress = device.state.join("download/chunk.0");
    eventually("some of it is fetched", async || {
        progress.exists().then_some(())
    })
    .await;
    let filler = place.0.join("filler");
    std::fs::write(&filler, vec![1; 1_500 << 10]).unwrap();
    proxy.set(Mode::Pass);
    let failed = async |id: &str| {
        eventually("the full place is told", async || {
            let deployment = server.deployments(id).await.pop()?;
            let failed = deployment["state"] == "failed";
            assert!(
                !failed || deployment["reason"]["code"] == "disk_full",
                "{deployment}"
            );
            failed.then_some(deployment["bytes_downloaded"].as_u64().unwrap())
        })
        .await
    };
    assert!(failed(&first).await >= LENGTH as u64);
    let restarted = || std::fs::read(&restarts).map_or(0, |text| text.len());
    let (fetched, before) = (proxy.passed(), restarted());
    assert!(fetched >= LENGTH as u64);
    // A new rollout begins at once, where a retry waits. The place is still full: the program runs on.
    server.cli(&["rollout", "cancel", &first, "--reason", "full"]);
    let second = server.roll_out("1.1.0", &["NA"], json!({})).await;
    assert_eq!(failed(&second).await, 0);
    assert_eq!(restarted(), before);
    assert!(std::fs::read(&live).unwrap() == std::fs::read(&old).unwrap());
    std::fs::remove_file(&filler).unwrap();
    server.cli(&["rollout", "cancel", &second, "--reason", "full"]);
    let third = server.roll_out("1.1.0", &["NA"], json!({})).await;
    server.rollout_is(&third, "completed").await;
    assert!(std::fs::read(&live).unwrap() == std::fs::read(&new).unwrap());
    let deployments = server.deployments(&third).await;
    assert_eq!(deployments[0]["bytes_downloaded"], 0);
    let again = proxy.passed() - fetched;
    assert!(
        again < LENGTH as u64 / 2,
        "{again} bytes were served once more"
    );
}

#![doc = include_str!("../README.md")]
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a panic is how a test reports"
)]

mod cluster;
mod device;
mod proxy;
mod server;

pub use cluster::Cluster;
pub use device::{Device, Exit};
pub use proxy::{Mode, Proxy};
pub use server::{Database, Server, settings};

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time limit after which a test gives up waiting.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Path of a binary of this workspace. `cargo test --workspace` builds both.
pub fn binary(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo test --workspace`, or `cargo build --workspace` first",
        path.display()
    );
    path
}

/// Path of the archive `old` or `new`; a few lines differ in their packed contents.
pub fn packed(which: &str) -> PathBuf {
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/delta/tests/vectors");
    PathBuf::from(format!("{vectors}/packed-{which}.image"))
}

/// Waits until a condition returns a value; panics with `what` if it does not in time.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            ticks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    })
    .await;
    found.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Writes a small application tree: a program, a table that changes with the version, a health
/// check. `healthy` tells whether the check passes.
pub fn application(dir: &Path, version: &str, healthy: bool) -> PathBuf {
    let tree = dir.join(format!("app-{version}"));
    std::fs::create_dir_all(tree.join("bin")).unwrap();
    std::fs::write(tree.join("VERSION"), version).unwrap();
    std::fs::write(tree.join("bin/app"), format!("#!/bin/sh\necho {version}\n")).unwrap();
    let verdict = if healthy {
        "exit 0"
    } else {
        "echo broken on purpose >&2; exit 1"
    };
    std::fs::write(tree.join("health.sh"), format!("#!/bin/sh\n{verdict}\n")).unwrap();
    // Noise that does not compress, nearly the same in each version: a delta is much smaller.
    let mut table = Vec::new();
    let mut state = 1u64;
    for _ in 0..40_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        table.extend_from_slice(&state.to_be_bytes());
    }
    table[1_000..1_000 + version.len()].copy_from_slice(version.as_bytes());
    std::fs::write(tree.join("table"), table).unwrap();
    #[cfg(unix)]
    for file in ["bin/app", "health.sh"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(tree.join(file), mode).unwrap();
    }
    tree
}

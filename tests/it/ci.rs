//! The gate skips a step only while its inputs are the same as when it last passed.

use std::path::Path;
use std::process::Command;

const STEPS: [&str; 3] = ["fuzz", "agent-cost", "foreign-agents"];

/// Runs `.ci/sum` in a folder, as if with the compiler `compiler`.
fn sum(root: &Path, step: &str, compiler: &str, more: &[&str]) -> String {
    let output = Command::new("bash")
        .arg(root.join(".ci/sum"))
        .arg(step)
        .args(more)
        .env("TIDEGATE_COMPILER", compiler)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Copies the files that git tracks, or would track, into a repository of its own.
fn copy(to: &Path) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let git = |dir: &Path, arguments: &[&str]| {
        let ended = Command::new("git")
            .current_dir(dir)
            .args(arguments)
            .output();
        ended.ok().filter(|o| o.status.success())
    };
    let Some(listed) = git(root, &["ls-files", "-z", "-co", "--exclude-standard"]) else {
        eprintln!("SKIPPED: this is no checkout of git");
        return false;
    };
    for name in String::from_utf8(listed.stdout)
        .unwrap()
        .split_terminator('\0')
    {
        let path = root.join(name);
        if path.is_file() {
            std::fs::create_dir_all(to.join(name).parent().unwrap()).unwrap();
            std::fs::copy(path, to.join(name)).unwrap();
        }
    }
    git(to, &["init", "-q"]).is_some()
}

/// Flips one bit of a file, calls `look`, and restores the file.
fn with_one_bit_turned<T>(file: &Path, look: impl FnOnce() -> T) -> T {
    let bytes = std::fs::read(file).unwrap();
    let mut other = bytes.clone();
    match other.last_mut() {
        Some(last) => *last ^= 1,
        None => other.push(b'x'),
    }
    std::fs::write(file, other).unwrap();
    let seen = look();
    std::fs::write(file, bytes).unwrap();
    seen
}

#[test]
fn one_bit_of_any_input_makes_a_skipped_step_run() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    if !copy(root) {
        return;
    }
    for step in STEPS {
        let before = sum(root, step, "rustc 1", &[]);
        assert_eq!(before.trim().len(), 64, "{before}");
        assert_ne!(
            before,
            sum(root, step, "rustc 2", &[]),
            "{step}: the compiler"
        );
        let list = sum(root, step, "rustc 1", &["--list"]);
        let files: Vec<&str> = list
            .lines()
            .filter_map(|l| l.split_once("  ").map(|p| p.1))
            .collect();
        for input in [
            "Cargo.toml",
            "Cargo.lock",
            ".ci/run",
            ".ci/sum",
            "shared/delta/src/lib.rs",
        ] {
            assert!(files.contains(&input), "{step} does not depend on {input}");
        }
        // One file per folder: a folder that is listed is listed as a whole.
        let mut folders = std::collections::BTreeMap::new();
        for file in &files {
            // The first one, because the last file of `.ci` is the script that checks.
            folders
                .entry(Path::new(file).parent().unwrap())
                .or_insert(*file);
        }
        for file in folders.values() {
            let after = with_one_bit_turned(&root.join(file), || sum(root, step, "rustc 1", &[]));
            assert_ne!(before, after, "{step}: {file}");
        }
        let new = root.join("shared/trust/src/new.rs");
        std::fs::write(&new, "").unwrap();
        assert_ne!(
            before,
            sum(root, step, "rustc 1", &[]),
            "{step}: a new file"
        );
        std::fs::remove_file(new).unwrap();
        for other in ["README.md", "docs/reference/cli.md", "server/src/lib.rs"] {
            let after = with_one_bit_turned(&root.join(other), || sum(root, step, "rustc 1", &[]));
            assert_eq!(before, after, "{step}: {other} is no input of it");
        }
        // The record of a run is not an input: otherwise the sum would never be the same twice.
        std::fs::create_dir_all(root.join(".ci/passed")).unwrap();
        std::fs::write(root.join(".ci/passed").join(step), &before).unwrap();
        assert_eq!(before, sum(root, step, "rustc 1", &[]));
    }
}

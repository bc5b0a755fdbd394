//! The guard as a process, with agents of a few lines of shell.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};

const GUARD: &str = env!("CARGO_BIN_EXE_tidegate-guard");

#[test]
fn what_it_does_not_understand_is_a_usage_error() {
    for arguments in [&[][..], &["/x"], &["--deadline", "soon", "/x", "run"]] {
        let output = Command::new(GUARD).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage:"));
    }
}

/// A folder with an agent of one line of shell in each slot, slot b in use and slot a confirmed.
fn folder(name: &str, a: &str, b: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("guard-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    for (slot, does) in [("a", a), ("b", b)] {
        let tree = dir.join("slots").join(slot).join("tree");
        std::fs::create_dir_all(&tree).unwrap();
        let program = tree.join("tidegate-agent");
        std::fs::write(&program, format!("#!/bin/sh\n{does}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    symlink("slots/b", dir.join("current")).unwrap();
    std::fs::write(dir.join("confirmed"), "a").unwrap();
    dir
}

#[test]
fn with_its_standard_input_the_guard_ends_and_so_does_its_agent() {
    let dir = folder("stdin", "", "echo begun >&2; read line; echo ended >&2");
    let mut guard = Command::new(GUARD)
        .arg("--exit-with-stdin")
        .arg(&dir)
        .arg("run")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(guard.stderr.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "begun");
    drop(guard.stdin.take());
    assert_eq!(lines.next().unwrap().unwrap(), "ended");
    assert!(guard.wait().unwrap().success());
    let _ = std::fs::remove_dir_all(&dir);
}

#[test]
fn an_agent_that_ends_three_times_gives_way_to_the_confirmed_one() {
    let dir = folder("process", "echo a $* >&2; read line", "exit 7");
    let mut guard = Command::new(GUARD)
        .arg(&dir)
        .args(["run", "--state", "/s"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(guard.stderr.take().unwrap()).lines();
    let mut ends = 0;
    for line in lines.map_while(Result::ok) {
        ends += usize::from(line.contains("slot b ended: exit status: 7"));
        if line == "a run --state /s --exit-with-stdin" {
            break;
        }
    }
    let pointer = std::fs::read_link(dir.join("current")).unwrap();
    guard.kill().unwrap();
    guard.wait().unwrap();
    let _ = std::fs::remove_dir_all(&dir);
    assert_eq!(ends, 3);
    assert!(pointer.ends_with("a"));
}

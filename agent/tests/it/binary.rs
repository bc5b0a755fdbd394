//! The agent's binary, from its command line.

use std::process::{Command, Output};

fn agent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate-agent"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn help_and_version_are_there() {
    let help = String::from_utf8(agent(&["--help"]).stdout).unwrap();
    for word in ["enroll", "run", "status", "--state"] {
        assert!(help.contains(word), "{help}");
    }
    assert!(agent(&["--version"]).stdout.starts_with(b"tidegate-agent "));
}

#[test]
fn what_is_not_understood_exits_with_2_and_changes_nothing() {
    for bad in [
        &[][..],
        &["nonsense"],
        &["run", "--nonsense"],
        &["enroll", "--server", "http://x"],
        &[
            "enroll",
            "--server",
            "x",
            "--token",
            "t",
            "--product",
            "../up",
        ],
        &["enroll", "--label", "nonsense"],
    ] {
        assert_eq!(agent(bad).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn an_agent_that_is_not_enrolled_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("none").display().to_string();
    for command in ["run", "status"] {
        let output = agent(&[command, "--state", &state]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("enroll this device first"), "{text}");
    }
    assert!(
        !dir.path().join("none").exists(),
        "a question makes no folders"
    );
}

#[test]
fn a_token_that_is_none_is_refused_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().display().to_string();
    let output = agent(&[
        "enroll",
        "--server",
        "http://127.0.0.1:1",
        "--token",
        "rubbish",
        "--product",
        "app",
        "--state",
        &state,
    ]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("not a join token"), "{text}");
}

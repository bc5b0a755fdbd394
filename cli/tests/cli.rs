//! The binary as a person uses it: help, usage errors, exit codes, completions.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::process::{Command, Output};

fn tidegate(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .env("HOME", home.path())
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("TIDEGATE_SERVER")
        .env_remove("TIDEGATE_TOKEN")
        .output()
        .unwrap()
}

#[test]
fn help_names_every_command() {
    let output = tidegate(&["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for word in [
        "serve", "demo", "keys", "release", "rollout", "rollback", "device", "login",
    ] {
        assert!(text.contains(&format!("  {word}")), "{text}");
    }
}

#[test]
fn a_usage_error_exits_with_2() {
    for bad in [
        &["nonsense"][..],
        &["rollout", "halt", "x"],
        &["demo", "--devices", "0"],
        &["serve", "--max-requests", "0"],
        &["serve", "--poll", "0s"],
        &["device", "join-token", "--product", "x", "--uses", "0"],
        &["device", "join-token", "--product", "x", "--valid", "0s"],
        &["token", "create", "x", "--role", "viewer", "--valid", "0s"],
        &[
            "release",
            "publish",
            "x",
            "--product",
            "x",
            "--release",
            "1.0.0",
            "--health-cmd",
            " ",
        ],
    ] {
        assert_eq!(tidegate(bad).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn a_value_that_the_commands_read_themselves_exits_with_2_too() {
    for (bad, word) in [
        (&["--max-failure", "two"][..], "--max-failure two"),
        (&["--at", "yesterday"], "--at yesterday"),
        (&["--regions", "NA,NA"], "NA twice"),
        (&["--wave", "region"], "region"),
    ] {
        let start = ["rollout", "start", "--product", "x", "--release", "1.0.0"];
        let output = tidegate(&[&start[..], bad].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{bad:?}: {text}");
        assert!(text.contains(word), "{bad:?}: {text}");
    }
}

#[test]
fn an_unreachable_server_is_said_with_a_next_step() {
    // A port whose listener has just closed.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = tidegate(&["--server", &url, "device", "list"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("cannot reach") && text.contains("next: "),
        "{text}"
    );
}

#[test]
fn completions_are_written_for_common_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = tidegate(&["completions", shell]);
        assert!(output.status.success());
        assert!(output.stdout.len() > 1_000, "{shell}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_to_a_full_device_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [
        &["simulate"][..],
        &["completions", "bash"],
        &["--help"],
        &["rollout", "--help"],
        &["--version"],
    ] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .env("HOME", home.path())
            .stdout(full)
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains("standard output"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn keys_are_not_invented_where_a_folder_holds_none() {
    let output = tidegate(&["keys", "show", "--keys", "/nonexistent"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("tidegate keys init"), "{text}");
}

#[test]
fn a_damaged_profile_is_an_error_and_neither_leads_elsewhere_nor_is_quoted() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/tidegate");
    std::fs::create_dir_all(&folder).unwrap();
    for damaged in [
        "server = \"http://plant\"\ntoken = \"tgo_secret",
        "token = \"tgo_secret\"\n",
        "",
    ] {
        std::fs::write(folder.join("profile.toml"), damaged).unwrap();
        let run = |more: &[&str]| {
            Command::new(env!("CARGO_BIN_EXE_tidegate"))
                .args(["rollout", "list"])
                .args(more)
                .env("HOME", home.path())
                .env_remove("XDG_CONFIG_HOME")
                .env_remove("TIDEGATE_SERVER")
                .env_remove("TIDEGATE_TOKEN")
                .output()
                .unwrap()
        };
        let output = run(&[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("profile.toml cannot be read"), "{said}");
        assert!(said.contains("tidegate login"), "{said}");
        assert!(!said.contains("secret"), "{said}");
        // Nothing listens there: it is asked all the same.
        let output = run(&["--server", "http://127.0.0.1:1", "--token", "tgo_x"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("127.0.0.1:1"), "{said}");
    }
}

#[test]
fn a_size_whose_bytes_cannot_be_counted_is_a_usage_error() {
    for option in ["--max-upload", "--delta-memory"] {
        for bad in ["0", "17592186044416"] {
            let output = tidegate(&["serve", option, bad]);
            assert_eq!(output.status.code(), Some(2), "{option} {bad}");
        }
    }
}

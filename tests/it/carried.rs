//! Contents of a version: carried, or named before anybody signs it, and looked at again by the server.

use std::path::Path;

use serde_json::{Value, json};
use tidegate_tests::{Server, application};

fn publish<'a>(tree: &'a str, release: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["release", "publish", tree, "--product", "app"];
    words.extend(["--release", release, "--yes"]);
    words.extend(options);
    words
}

#[cfg(unix)]
#[tokio::test]
async fn a_publisher_is_told_what_a_version_loses_before_it_is_signed_and_in_json() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start().await;
    server.cli(&["keys", "init", "--no-passphrase"]);
    let tree = application(server.dir.path(), "1.0.0", true);
    let set = |name: &str, mode| {
        std::fs::write(tree.join(name), "text").unwrap();
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(tree.join(name), mode).unwrap();
    };
    set("shared.log", 0o664);
    let path = tree.display().to_string();
    let (code, out, said) =
        server.cli_raw(&[&["-o", "json"][..], &publish(&path, "1.0.0", &[])].concat());
    assert_eq!(code, 0, "{said}");
    let wanted = "loses write permission for its group: 1 entry, first shared.log (mode 0664)";
    let (told, signed) = (said.find(wanted), said.find("app/alpha/1.0.0"));
    assert!(told.is_some() && told < signed, "{said}");
    let shown: Value = serde_json::from_str(&out).unwrap();
    let warnings = shown["warnings"].as_array().unwrap();
    assert!(warnings.contains(&json!(wanted)), "{out}");
    assert_eq!(shown["sha256"].as_str().unwrap().len(), 64, "{out}");
    // Refused by name, before anything is signed or sent; also of a file that is published as it is.
    set("tool", 0o4755);
    set("none", 0o000);
    let (code, _, said) = server.cli_raw(&publish(&path, "1.1.0", &[]));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("tool: setuid") && said.contains("none: mode 0000"),
        "{said}"
    );
    let tool = tree.join("tool").display().to_string();
    let raw = publish(&tool, "1.1.0", &["--format", "raw"]);
    let (code, _, said) = server.cli_raw(&raw);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("tool: setuid"), "{said}");
    let (code, _, said) = server.cli_raw(&[&raw[..], &["--drop-attributes"]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("dropped, as --drop-attributes says: 1 entry, first tool (setuid)"),
        "{said}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a136_a_pipe_in_the_place_of_what_is_published_does_not_keep_the_publisher_waiting() {
    let server = Server::start().await;
    server.cli(&["keys", "init", "--no-passphrase"]);
    let pipe = server.dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    let path = |path: &Path| path.display().to_string();
    for format in ["tar", "raw"] {
        let (code, _, said) =
            server.cli_raw(&publish(&path(&pipe), "1.0.0", &["--format", format]));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("pipe"), "{said}");
    }
}

//! People see what they sign: a draft that somebody else has put in their way is shown, not signed
//! along with a change of their own.

use serde_json::{Value, json};
use tidegate_tests::{Server, application};

/// A role's file in force, in the keys folder.
fn in_force(server: &Server, role: &str) -> Value {
    let path = server.keys().join(format!("metadata/{role}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Puts a draft into the keys folder, as one that came from a server, after a change to what is in
/// force.
fn plant(server: &Server, role: &str, change: impl FnOnce(&mut Value)) {
    let mut body = in_force(server, role)["signed"].take();
    body["version"] = json!(body["version"].as_u64().unwrap() + 1);
    change(&mut body);
    let draft = json!({ "signatures": [], "signed": body });
    let drafts = server.keys().join("drafts");
    std::fs::create_dir_all(&drafts).unwrap();
    std::fs::write(drafts.join(format!("{role}.json")), draft.to_string()).unwrap();
    let purpose = "1.1.0 linux\n  + app/alpha/1.1.0/linux-x86_64 forged\u{1b}[8m";
    std::fs::write(drafts.join(format!("{role}.txt")), purpose).unwrap();
}

/// Lists an image of a thief's, with a command for devices to run.
fn wish(body: &mut Value, path: &str) {
    let image = json!({
        "length": 3,
        "hashes": { "sha256": "ab".repeat(32) },
        "custom": {
            "release": "6.6.6",
            "hw": ["linux-x86_64"],
            "format": "raw",
            "stepping_stone": false,
            "allow_rollback": false,
            "health": { "command": ["sh", "-c", "id > /PWNED"], "timeout_s": 9 },
        },
    });
    body["targets"][path] = image;
}

fn refused(server: &Server, arguments: &[&str]) -> String {
    let (code, out, err) = server.cli_raw(arguments);
    assert_ne!(code, 0, "{arguments:?}: {out}{err}");
    err
}

async fn published() -> (Server, String) {
    let server = Server::start().await;
    server.cli(&["keys", "init", "--no-passphrase"]);
    let tree = application(server.dir.path(), "1.0.0", true);
    let tree = tree.display().to_string();
    publish(&server, &tree, "1.0.0");
    (server, tree)
}

fn publish(server: &Server, tree: &str, release: &str) {
    server.cli(&[
        "release",
        "publish",
        tree,
        "--product",
        "app",
        "--release",
        release,
        "--health-cmd",
        "bin/check --deep",
    ]);
}

#[tokio::test]
async fn a75_a_draft_that_a_server_plants_is_not_signed_along_with_a_change_of_ones_own() {
    let (server, tree) = published().await;
    plant(&server, "app-alpha", |body| {
        wish(body, "app/alpha/6.6.6/linux-x86_64");
    });
    plant(&server, "targets", |body| {
        body["delegations"]["roles"][1]["paths"] = json!(["*/*/*/*"]);
    });
    let before = ["app-alpha", "targets"].map(|role| in_force(&server, role));
    let other = [
        "release",
        "publish",
        &tree,
        "--release",
        "1.1.0",
        "--product",
    ];
    for arguments in [
        vec![
            "release", "promote", "app", "1.0.0", "--to", "alpha", "--yes",
        ],
        vec![
            "release",
            "policy",
            "app",
            "--channel",
            "alpha",
            "--min-release",
            "1.0.0",
        ],
        [&other[..], &["app"]].concat(),
        // The delegations would be signed along with a new product's.
        [&other[..], &["another"]].concat(),
    ] {
        let error = refused(&server, &arguments);
        let told = error.contains("nobody has looked at here") && error.contains("keys drop");
        assert!(told, "{arguments:?}: {error}");
    }
    let after = ["app-alpha", "targets"].map(|role| in_force(&server, role));
    assert_eq!(before, after);
    // Looked at, it shows the command first, and what the server says of it as what it is.
    let file = server.keys().join("drafts/app-alpha.json");
    let text = server.cli(&["keys", "show", file.to_str().unwrap()]);
    let second = text.lines().nth(1).unwrap();
    assert!(
        second.starts_with("! devices will run this command"),
        "{text}"
    );
    assert!(
        second.contains(r#""sh" "-c" "id > /PWNED", for 9 s"#),
        "{text}"
    );
    let (_, out, err) = server.cli_raw(&["release", "sign", "app"]);
    let shown = out + &err;
    assert!(shown.contains("unsigned: 1.1.0 linux\\n  + app"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    for role in ["app-alpha", "targets"] {
        server.cli(&["keys", "drop", role]);
    }
    server.cli(&["release", "promote", "app", "1.0.0", "--to", "alpha"]);
    publish(&server, &tree, "1.1.0");
}

#[tokio::test]
async fn a_promotion_shows_what_its_signature_puts_in_force() {
    let (server, _) = published().await;
    let (code, _, shown) = server.cli_raw(&["release", "promote", "app", "1.0.0", "--to", "alpha"]);
    assert_eq!(code, 0, "{shown}");
    // It is in force in alpha since it was published.
    assert!(!shown.contains("devices will run"), "{shown}");
    let (code, _, shown) = server.cli_raw(&["release", "promote", "app", "1.0.0", "--to", "beta"]);
    assert_eq!(code, 0, "{shown}");
    assert!(
        shown.contains("devices will run this command for app/beta/1.0.0"),
        "{shown}"
    );
    assert!(shown.contains(r#""bin/check" "--deep""#), "{shown}");
}

#[tokio::test]
async fn a_signers_own_build_must_be_the_image_that_they_sign() {
    let (server, tree) = published().await;
    server.cli(&["release", "promote", "app", "1.0.0", "--to", "alpha"]);
    let facts = in_force(&server, "app-alpha")["signed"]["targets"].clone();
    let (path, image) = facts.as_object().unwrap().iter().next().unwrap();
    let path = path.replace("/alpha/", "/beta/");
    plant(&server, "app-beta", |body| {
        body["targets"][&path] = image.clone();
    });
    let own = server.dir.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("VERSION"), "another build").unwrap();
    let own = own.to_str().unwrap();
    let sign = |build: &str| {
        let words = [
            "release",
            "sign",
            "app",
            "1.0.0",
            "--yes",
            "--compare",
            build,
        ];
        server.cli_raw(&words)
    };
    let (code, _, error) = sign(own);
    assert_eq!(code, 1, "{error}");
    assert!(
        error.contains("is not what") && error.contains("sha256"),
        "{error}"
    );
    let (code, _, error) = sign(&format!("windows-x86_64={tree}"));
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("has 0 new images"), "{error}");
    let (code, out, error) = sign(&tree);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("is what"), "{out}");
    assert!(
        in_force(&server, "app-beta")["signed"]["targets"]
            .get(&path)
            .is_some()
    );
}

/// A release that was published by another script than its owner thinks runs what that says.
#[tokio::test]
async fn a_publisher_is_shown_what_devices_will_run_before_it_is_signed() {
    let server = Server::start().await;
    server.cli(&["keys", "init", "--no-passphrase"]);
    let tree = tidegate_tests::application(server.dir.path(), "1.0.0", true);
    let tree = tree.display().to_string();
    let publish = [
        "release",
        "publish",
        &tree,
        "--product",
        "app",
        "--release",
        "1.0.0",
        "--health-cmd",
        "rm -rf /srv",
        "--yes",
    ];
    let (code, _, said) = server.cli_raw(&publish);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("\"rm\" \"-rf\" \"/srv\""), "{said}");
    // Signed already: there is nothing to show.
    let (code, _, said) = server.cli_raw(&publish);
    assert_eq!((code, said.contains("\"rm\"")), (0, false), "{said}");
}

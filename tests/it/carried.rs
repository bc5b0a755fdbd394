//! Contents of a version: carried, or named before anybody signs it, and looked at again by the server.

use std::path::Path;

use serde_json::{Value, json};
use tidegate_delta::archive;
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

/// Signs an image for a platform as an archive, and uploads it, as tools of others can.
async fn sign_and_upload(server: &Server, release: &str, platform: &str, bytes: &[u8]) -> String {
    let path = server.keys().join("metadata/app-alpha.json");
    let in_force: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut body = in_force["signed"].clone();
    body["version"] = json!(body["version"].as_u64().unwrap() + 1);
    let sha256 = tidegate_delta::sha256(bytes).to_string();
    body["targets"][format!("app/alpha/{release}/{platform}")] = json!({
        "length": bytes.len(),
        "hashes": { "sha256": sha256 },
        "custom": {
            "release": release,
            "hw": [platform],
            "format": "tar",
            "stepping_stone": false,
            "allow_rollback": true,
        },
    });
    let drafts = server.keys().join("drafts");
    std::fs::create_dir_all(&drafts).unwrap();
    let draft = json!({ "signatures": [], "signed": body });
    std::fs::write(drafts.join("app-alpha.json"), draft.to_string()).unwrap();
    server.cli(&["keys", "sign", "--yes"]);
    server.cli(&["keys", "push"]);
    let uploaded = reqwest::Client::new()
        .put(format!("{}/api/v1/blobs/{sha256}", server.url))
        .bearer_auth(&server.token)
        .body(bytes.to_vec())
        .send()
        .await
        .unwrap();
    assert!(uploaded.status().is_success(), "{}", uploaded.status());
    sha256
}

/// Sets the mode of the first entry of an archive, with its checksum.
fn with_mode(mut bytes: Vec<u8>, mode: &str) -> Vec<u8> {
    bytes[100..107].copy_from_slice(mode.as_bytes());
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

#[tokio::test]
async fn a135_the_server_refuses_an_archive_that_devices_could_not_have_as_it_is_whoever_made_it() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let packed = |names: &[&str]| {
        let tree = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(tree.path().join(name), "text").unwrap();
        }
        archive::pack(tree.path(), Vec::new()).unwrap()
    };
    let release = "2.0.0";
    server
        .post(
            "/api/v1/products/app/releases",
            json!({ "version": release, "notes": "" }),
        )
        .await;
    let path = format!("/api/v1/products/app/releases/{release}/artifacts");
    let add = async |platform: &str, sha256: &str| {
        let body = json!({ "platform": platform, "sha256": sha256 });
        server.call("POST", &path, Some(body), &server.token).await
    };
    let cases = [
        (
            "windows-x86_64",
            packed(&["aux.c"]),
            "aux.c: AUX is a device on Windows",
        ),
        (
            "windows-aarch64",
            packed(&["a:b"]),
            "Windows does not allow ':' in a name",
        ),
        (
            "macos-aarch64",
            packed(&["README", "Readme"]),
            "the same name there as README",
        ),
        (
            "macos-x86_64",
            packed(&["caf\u{e9}", "cafe\u{301}"]),
            "the same name there as",
        ),
        (
            "linux-aarch64",
            with_mode(packed(&["tool"]), "0004755"),
            "tool: setuid",
        ),
        (
            "linux-armv7",
            with_mode(packed(&["shared"]), "0000666"),
            "shared: mode 0666",
        ),
        (
            "linux-riscv64",
            b"no archive at all".to_vec(),
            "not an archive",
        ),
        ("linux-mips", vec![0; 1_024], "an archive without files"),
    ];
    for (platform, bytes, wanted) in cases {
        let sha256 = sign_and_upload(&server, release, platform, &bytes).await;
        let (status, said) = add(platform, &sha256).await;
        assert_eq!(status, 400, "{platform}: {said}");
        let detail = said["detail"].as_str().unwrap();
        assert!(detail.contains(wanted), "{detail}");
        let does = detail.contains("rename them") || detail.contains("release publish");
        assert!(does, "{detail}");
    }
    // The same names where they are good.
    let bytes = packed(&["aux.c", "README", "Readme", "a:b"]);
    let sha256 = sign_and_upload(&server, release, "linux-x86_64", &bytes).await;
    let (status, said) = add("linux-x86_64", &sha256).await;
    assert_eq!(status, 200, "{said}");
    let promote = |release: &str| {
        let words = ["release", "promote", "app", release, "--to", "alpha"];
        server.cli_raw(&words)
    };
    let (code, _, said) = promote(release);
    assert_eq!(code, 0, "{said}");
    // Added before it was signed, when nobody could tell what it is.
    let release = "3.0.0";
    server
        .post(
            "/api/v1/products/app/releases",
            json!({ "version": release, "notes": "" }),
        )
        .await;
    let bytes = packed(&["con"]);
    let sha256 = tidegate_delta::sha256(&bytes).to_string();
    sign_and_upload(&server, "2.9.0", "windows-x86_64", &bytes).await;
    let path = format!("/api/v1/products/app/releases/{release}/artifacts");
    let body = json!({ "platform": "windows-x86_64", "sha256": sha256 });
    let (status, said) = server.call("POST", &path, Some(body), &server.token).await;
    assert_eq!(status, 200, "{said}");
    sign_and_upload(&server, release, "windows-x86_64", &bytes).await;
    let (code, _, said) = promote(release);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("con: CON is a device on Windows"), "{said}");
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

//! Third-party clients against our repository: python-tuf verifies, downloads and refuses what was
//! tampered with; PyPI's `http-message-signatures` agrees with our requests.
//!
//! Needs a Python with the packages of `tests/third-party/requirements.txt`, named by
//! `TIDEGATE_PYTHON`; `.ci/run` makes one.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tidegate_tests::{Server, application};
use tidegate_trust::http_signature::{
    RequestFacts, SignatureHeaders, sign_request, verify_request,
};
use tidegate_trust::{MlDsaSecret, RoleKey, RoleSigner as _, SecretKey};

fn python() -> Option<PathBuf> {
    let python = std::env::var_os("TIDEGATE_PYTHON").map(PathBuf::from);
    if python.is_none() {
        eprintln!("SKIPPED: TIDEGATE_PYTHON names no Python with python-tuf");
    }
    python
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("third-party")
}

async fn repository(profile: &str) -> Server {
    let server = Server::start().await;
    server.cli(&["keys", "init", "--no-passphrase", "--profile", profile]);
    let tree = application(server.dir.path(), "1.0.0", true);
    server.publish_tree(&tree, "1.0.0", &[]);
    server
}

fn check(server: &Server, python: &Path, more: &[&str]) {
    let root = server.dir.path().join("keys/metadata/roots/1.json");
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let output = Command::new(python)
        .arg(scripts().join("check_repository.py"))
        .args(["--metadata-url", &format!("{}/metadata/", server.url)])
        .args(["--targets-url", &format!("{}/targets/", server.url)])
        .arg("--root")
        .arg(root)
        .args(["--target-path", &format!("app/stable/1.0.0/{platform}")])
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!text.contains("FAIL"), "{text}");
    println!("{text}");
}

#[tokio::test]
async fn python_tuf_verifies_downloads_and_refuses_in_the_ed25519_profile() {
    let Some(python) = python() else { return };
    check(&repository("ed25519").await, &python, &[]);
}

#[tokio::test]
async fn python_tuf_verifies_downloads_and_refuses_in_the_hybrid_profile() {
    let Some(python) = python() else { return };
    check(&repository("hybrid").await, &python, &["--expect-hybrid"]);
}

#[tokio::test]
async fn images_are_served_under_the_names_that_other_clients_ask_for() {
    let server = repository("ed25519").await;
    let view: Value =
        serde_json::from_str(&server.cli(&["-o", "json", "release", "get", "app", "1.0.0"]))
            .unwrap();
    let hash = view["artifacts"][0]["sha256"].as_str().unwrap();
    let platform = view["artifacts"][0]["platform"].as_str().unwrap();
    for path in [
        format!("app/stable/1.0.0/{hash}.{platform}"),
        format!("{hash}.app/stable/1.0.0/{platform}"),
    ] {
        let answer = reqwest::get(format!("{}/targets/{path}", server.url))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let bytes = answer.bytes().await.unwrap();
        assert_eq!(tidegate_delta::sha256(&bytes).to_string(), hash);
    }
    let none = reqwest::get(format!(
        "{}/targets/app/stable/1.0.0/{platform}",
        server.url
    ))
    .await
    .unwrap();
    assert_eq!(none.status(), 404);
}

/// Runs `http_signatures.py`; returns whether it succeeded, and its output.
fn signatures(python: &Path, verb: &str, input: &Value) -> (bool, String) {
    let mut child = Command::new(python)
        .arg(scripts().join("http_signatures.py"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn requests_are_signed_as_another_implementation_of_rfc_9421_reads_them() {
    let Some(python) = python() else { return };
    let key = SecretKey::from_seed([9; 32]);
    for (path, query, body) in [
        ("/device/v1/session", "", &b"{}"[..]),
        ("/device/v1/enroll", "a=1&b=%20", b"{\"x\":\"\xc3\xa9\"}"),
        ("/device/v1/key", "", b""),
    ] {
        let facts = RequestFacts {
            method: "POST",
            authority: "tide.example:8420",
            path,
            query,
            body,
        };
        let ours = sign_request(&key, &facts, 1_700_000_000, "nonce-1");
        let mark = if query.is_empty() { "" } else { "?" };
        let url = format!("http://tide.example:8420{path}{mark}{query}");
        let request = json!({
            "method": "POST", "url": url, "body_hex": hex::encode(body),
            "public_key_hex": key.public().to_string(),
            "headers": {
                "Content-Digest": ours.content_digest,
                "Signature-Input": ours.signature_input,
                "Signature": ours.signature,
            },
        });
        assert!(signatures(&python, "verify", &request).0, "{path}");
        let mut changed = request.clone();
        changed["url"] = json!(url.replace("v1", "v2"));
        assert!(!signatures(&python, "verify", &changed).0, "{path}");
        let theirs = json!({
            "method": "POST", "url": url, "body_hex": hex::encode(body), "created": 1_700_000_000,
            "nonce": "nonce-1", "seed_hex": "09".repeat(32),
        });
        let (ok, text) = signatures(&python, "sign", &theirs);
        assert!(ok, "{text}");
        let headers: Value = serde_json::from_str(&text).unwrap();
        let get = |name: &str| {
            let found = headers.as_object().unwrap().iter();
            let mut found = found.filter(|(key, _)| key.eq_ignore_ascii_case(name));
            found.next().unwrap().1.as_str().unwrap().to_owned()
        };
        let headers = SignatureHeaders {
            content_digest: get("content-digest"),
            signature_input: get("signature-input"),
            signature: get("signature"),
        };
        verify_request(&headers, &facts).unwrap();
        assert_eq!(headers, ours);
    }
}

fn vector(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(scripts().join(name)).unwrap()).unwrap()
}

#[test]
fn rfc_9421_appendix_b26_is_reproduced() {
    let vector = vector("rfc9421_b26.json");
    let text = |name: &str| vector[name].as_str().unwrap().to_owned();
    let seed: [u8; 32] = hex::decode(text("seed_hex")).unwrap().try_into().unwrap();
    let signature = SecretKey::from_seed(seed).sign(text("signature_base").as_bytes());
    assert_eq!(hex::encode(signature), text("signature_hex"));
}

#[test]
fn an_ml_dsa_signature_of_openssl_verifies_here() {
    let vector = vector("ml_dsa_vector.json");
    let text = |name: &str| vector[name].as_str().unwrap().to_owned();
    let key = RoleKey::from_tuf(&vector["key"]).unwrap();
    assert_eq!(key.key_id(), text("keyid"));
    let canonical = hex::decode(text("canonical_hex")).unwrap();
    key.verify(&canonical, &hex::decode(text("signature_hex")).unwrap())
        .unwrap();
    let seed: [u8; 32] = hex::decode(text("seed_hex")).unwrap().try_into().unwrap();
    let secret = MlDsaSecret::from_seed(seed);
    assert_eq!(secret.role_key(), key);
}

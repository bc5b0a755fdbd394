//! People and their keys: a ceremony of three, releases signed by two, holders who come and go.

use std::path::{Path, PathBuf};

use tidegate_tests::{Device, Server, application};

/// A person's machine: their own keys folder, and a passphrase.
struct Person<'a> {
    server: &'a Server,
    keys: PathBuf,
    passphrase: PathBuf,
}

impl<'a> Person<'a> {
    fn new(server: &'a Server, name: &str) -> Self {
        let dir = server.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let passphrase = dir.join("passphrase");
        std::fs::write(&passphrase, format!("the passphrase of {name}\n")).unwrap();
        Self {
            server,
            keys: dir.join("keys"),
            passphrase,
        }
    }

    fn raw(&self, arguments: &[&str]) -> (i32, String, String) {
        let (keys, passphrase) = (
            self.keys.display().to_string(),
            self.passphrase.display().to_string(),
        );
        let mut all = arguments.to_vec();
        all.extend(["--keys", &keys, "--passphrase-file", &passphrase]);
        self.server.cli_raw(&all)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.raw(arguments);
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.raw(arguments);
        assert_ne!(code, 0, "{arguments:?}: {out}");
        err
    }
}

fn carry(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}

/// Runs the ceremony in which Alice, Bob and Carol make the root of `app` on their own machines.
fn ceremony<'a>(server: &'a Server, profile: &str) -> (Person<'a>, Vec<Person<'a>>) {
    let table = Person::new(server, "table");
    let names = ["alice", "bob", "carol"];
    let people: Vec<Person> = names.iter().map(|n| Person::new(server, n)).collect();
    let go_on = |table: &Person| {
        table.run(&[
            "keys",
            "ceremony",
            "--holder",
            "alice",
            "--holder",
            "bob",
            "--holder",
            "carol",
            "--product",
            "app",
            "--profile",
            profile,
        ])
    };
    assert!(go_on(&table).contains("waiting for public keys"));
    for (name, person) in names.iter().zip(&people) {
        person.run(&["keys", "new", name, "--profile", profile]);
        let file = format!("holders/{name}.json");
        carry(&person.keys.join(&file), &table.keys.join(&file));
    }
    for role in ["root", "targets"] {
        assert!(go_on(&table).contains("0 of 2 people"));
        for person in &people[1..] {
            let file = format!("drafts/{role}.json");
            let copy = person.keys.join("copy.json");
            carry(&table.keys.join(&file), &copy);
            let copy = copy.display().to_string();
            person.run(&["keys", "sign", &copy, "--yes"]);
            table.run(&["keys", "merge", &copy]);
        }
    }
    let over = go_on(&table);
    assert!(over.contains("the ceremony is complete"), "{over}");
    let root = over
        .split(|c: char| !c.is_ascii_hexdigit())
        .find(|word| word.len() == 64)
        .unwrap()
        .to_owned();
    table.run(&["keys", "push"]);
    for person in &people {
        person.run(&["keys", "fetch", "--root", &root]);
    }
    let transcript = std::fs::read_to_string(table.keys.join("ceremony.md")).unwrap();
    for word in ["2 of 3", "merged", &root] {
        assert!(transcript.contains(word), "{word}: {transcript}");
    }
    (table, people)
}

fn publish(person: &Person, version: &str) {
    let tree = application(person.server.dir.path(), version, true);
    let tree = tree.display().to_string();
    person.run(&[
        "release",
        "publish",
        &tree,
        "--product",
        "app",
        "--release",
        version,
        "--health-cmd",
        "health.sh",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_people_make_the_root_and_two_sign_what_becomes_stable() {
    let server = Server::start().await;
    let (_, people) = ceremony(&server, "hybrid");
    let (alice, bob, carol) = (&people[0], &people[1], &people[2]);
    publish(alice, "1.0.0");
    let said = alice.run(&[
        "release", "promote", "app", "1.0.0", "--to", "ga", "--reason", "x",
    ]);
    assert!(said.contains("1 of 2 people so far (alice)"), "{said}");
    // One signature is not enough, whoever asks, and signing twice counts once.
    let again = alice.run(&["release", "sign", "app", "1.0.0", "--yes"]);
    assert!(again.contains("1 of 2"), "{again}");
    let body = serde_json::json!({ "to": "ga", "reason": "x" });
    let path = "/api/v1/products/app/releases/1.0.0/promote";
    let (status, problem) = server.call("POST", path, Some(body), &server.token).await;
    assert_eq!(status, 409, "{problem}");
    // Nobody signs what they were not shown.
    let error = bob.refused(&["release", "sign", "app", "1.0.0"]);
    assert!(error.contains("no terminal"), "{error}");
    let said = bob.run(&["release", "sign", "app", "1.0.0", "--yes"]);
    assert!(said.contains("all its signatures"), "{said}");
    bob.run(&[
        "release", "promote", "app", "1.0.0", "--to", "ga", "--reason", "x",
    ]);
    // A wrong passphrase opens nothing.
    std::fs::write(&carol.passphrase, "something else\n").unwrap();
    let error = carol.refused(&["release", "policy", "app", "--notice", "hello"]);
    assert!(error.contains("passphrase of carol is wrong"), "{error}");

    let token = server.join_token();
    let dir = server.dir.path();
    let mut device = Device::enroll(dir, "terminal", &server.url, &token, "NA", None);
    device.run();
    server
        .roll_out("1.0.0", &["NA"], serde_json::json!({}))
        .await;
    device.settles_on("1.0.0").await;
}

#[tokio::test]
async fn holders_change_only_with_the_files_that_they_sign() {
    let server = Server::start().await;
    let (table, people) = ceremony(&server, "ed25519");
    let (alice, bob) = (&people[0], &people[1]);
    publish(alice, "1.0.0");
    let error = table.refused(&["keys", "add", "root", "alice"]);
    assert!(error.contains("holder already"), "{error}");
    // Dave takes Carol's place in the stable role; everybody has to sign.
    let dave = Person::new(&server, "dave");
    dave.run(&["keys", "new", "dave", "--profile", "ed25519"]);
    let file = dave.keys.join("holders/dave.json").display().to_string();
    table.run(&["keys", "fetch"]);
    table.run(&["keys", "rotate", "app-stable", "carol", &file]);
    table.run(&["keys", "threshold", "app-alpha", "1"]);
    let error = table.refused(&["keys", "rotate", "app-stable", "carol", &file]);
    assert!(error.contains("not a holder"), "{error}");
    for person in [alice, bob] {
        let copy = person.keys.join("copy.json");
        carry(&table.keys.join("drafts/targets.json"), &copy);
        let copy = copy.display().to_string();
        person.run(&["keys", "sign", &copy, "--yes"]);
        table.run(&["keys", "merge", &copy]);
    }
    table.run(&["keys", "push"]);
    alice.run(&[
        "release", "promote", "app", "1.0.0", "--to", "ga", "--reason", "x",
    ]);
    // Carol's signature no longer counts; Dave's does.
    let error = people[2].refused(&["release", "sign", "app", "--yes"]);
    assert!(error.contains("no key in"), "{error}");
    let root =
        tidegate_delta::sha256(&std::fs::read(table.keys.join("metadata/roots/1.json")).unwrap());
    dave.run(&["keys", "fetch", "--root", &root.to_string()]);
    let said = dave.run(&["release", "sign", "app", "--yes"]);
    assert!(said.contains("all its signatures"), "{said}");
    // A higher threshold without the signatures it requires would strand every device.
    table.run(&["keys", "fetch"]);
    table.run(&["keys", "threshold", "app-stable", "3"]);
    for person in [alice, bob] {
        let copy = person.keys.join("copy.json");
        carry(&table.keys.join("drafts/targets.json"), &copy);
        let copy = copy.display().to_string();
        person.run(&["keys", "sign", &copy, "--yes"]);
        table.run(&["keys", "merge", &copy]);
    }
    let error = table.refused(&["keys", "push"]);
    assert!(error.contains("keys renew app-stable"), "{error}");
}

#[tokio::test]
async fn a_root_that_nobody_told_us_of_is_not_taken() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let eve = Person::new(&server, "eve");
    let error = eve.refused(&["keys", "fetch"]);
    assert!(error.contains("no root of trust"), "{error}");
    let error = eve.refused(&["keys", "fetch", "--root", &"0".repeat(64)]);
    assert!(error.contains("not the one given with --root"), "{error}");
    // Keys at rest are encrypted.
    eve.run(&["keys", "new", "eve"]);
    let pem = std::fs::read_to_string(eve.keys.join("private/eve.pem")).unwrap();
    assert_eq!(pem.matches("BEGIN ENCRYPTED PRIVATE KEY").count(), 2);
    assert!(!pem.contains("BEGIN PRIVATE KEY"));
}

#[tokio::test]
async fn a_policy_is_signed_and_a_slip_of_the_finger_is_refused() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let (code, _, error) = server.cli_raw(&["release", "policy", "app", "--min-release", "9.0.0"]);
    assert_ne!(code, 0);
    assert!(error.contains("no installable release"), "{error}");
    server.cli(&[
        "release",
        "policy",
        "app",
        "--min-release",
        "1.1.0",
        "--eol",
        "1.0.0",
    ]);
    let (code, _, error) = server.cli_raw(&["release", "policy", "app", "--min-release", "1.0.0"]);
    assert_ne!(code, 0);
    assert!(error.contains("already"), "{error}");
}

#[tokio::test]
async fn a_promotion_that_the_server_refuses_signs_nothing() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let tree = application(server.dir.path(), "1.1.0", true);
    let tree = tree.display().to_string();
    let what = ["--product", "app", "--release", "1.1.0"];
    server.cli(&[&["release", "publish", &tree][..], &what].concat());
    let stable = server.dir.path().join("keys/metadata/app-stable.json");
    let before = std::fs::read(&stable).unwrap();
    let promote = ["release", "promote", "app", "1.1.0", "--to", "ga"];
    // It skips stages, and later it is withdrawn.
    let (code, _, error) = server.cli_raw(&promote);
    assert_eq!(code, 5, "{error}");
    server.cli(&["release", "withdraw", "app", "1.1.0", "--reason", "x"]);
    let (code, _, error) = server.cli_raw(&[&promote[..], &["--reason", "y"]].concat());
    assert_eq!(code, 5, "{error}");
    assert!(std::fs::read(&stable).unwrap() == before, "it was signed");
}

#[tokio::test]
async fn a_file_that_somebody_changed_by_hand_is_never_signed_again() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let path = server.dir.path().join("keys/metadata/app-alpha.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let images = file["signed"]["targets"].as_object_mut().unwrap();
    let (name, image) = images.iter().next().unwrap();
    let (name, image) = (name.replace("1.0.0", "6.6.6"), image.clone());
    images.insert(name, image);
    std::fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
    for arguments in [
        &["keys", "renew", "app-alpha", "--yes"][..],
        &["keys", "push"],
        &["keys", "show"],
        &["release", "policy", "app", "--notice", "x"],
    ] {
        let (code, out, error) = server.cli_raw(arguments);
        assert_ne!(code, 0, "{arguments:?}: {out}");
        assert!(error.contains("app-alpha.json does not verify"), "{error}");
    }
    // The original can be fetched again.
    std::fs::remove_file(&path).unwrap();
    server.cli(&["keys", "fetch"]);
    let (_, _, error) = server.cli_raw(&["keys", "renew", "app-alpha"]);
    assert!(error.contains("no terminal"), "{error}");
    let shown = server.cli(&["keys", "renew", "app-alpha", "--yes"]);
    assert!(
        shown.contains("images that stay as they are: 1") && !shown.contains("6.6.6"),
        "{shown}"
    );
    // A threshold that cannot be met is refused when it is written, and endless input is bounded.
    for arguments in [
        &["keys", "threshold", "root", "0"][..],
        &["keys", "threshold", "app-stable", "2"],
        &["keys", "merge", "/dev/zero"],
        &["keys", "show", "/dev/zero"],
    ] {
        let (code, out, _) = server.cli_raw(arguments);
        assert_ne!(code, 0, "{arguments:?}: {out}");
    }
    std::fs::write(server.dir.path().join("keys/drafts/root.json"), "zz").unwrap_or_else(|_| {
        std::fs::create_dir_all(server.dir.path().join("keys/drafts")).unwrap();
        std::fs::write(server.dir.path().join("keys/drafts/root.json"), "zz").unwrap();
    });
    let (_, _, error) = server.cli_raw(&["keys", "push"]);
    assert!(
        error.contains("drafts/root.json") && error.contains("keys drop root"),
        "{error}"
    );
    server.cli(&["keys", "drop", "root"]);
    server.cli(&["keys", "push"]);
}

#[tokio::test]
async fn a_token_of_hardware_signs() {
    const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
    if !Path::new(MODULE).exists() {
        let required = std::env::var_os("TIDEGATE_REQUIRE_SOFTHSM").is_some();
        assert!(
            !required,
            "TIDEGATE_REQUIRE_SOFTHSM is set and SoftHSM is not there"
        );
        eprintln!("SKIPPED: SoftHSM is not installed ({MODULE})");
        return;
    }
    let server = Server::start().await;
    let dir = server.dir.path();
    let tokens = dir.join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let conf = dir.join("softhsm2.conf");
    std::fs::write(
        &conf,
        format!("directories.tokendir = {}\n", tokens.display()),
    )
    .unwrap();
    let status = std::process::Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "release-token"])
        .args(["--pin", "123456", "--so-pin", "12345678"])
        .env("SOFTHSM2_CONF", &conf)
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
    std::fs::write(dir.join("pin"), "123456\n").unwrap();
    let (pin, keys, pass) = (dir.join("pin"), dir.join("hsm"), dir.join("passphrase"));
    std::fs::write(&pass, "a good passphrase\n").unwrap();
    let cli = |arguments: &[&str]| {
        let output = std::process::Command::new(tidegate_tests::binary("tidegate"))
            .args(arguments)
            .arg("--keys")
            .arg(&keys)
            .arg("--passphrase-file")
            .arg(&pass)
            .env("SOFTHSM2_CONF", &conf)
            .env("TIDEGATE_SERVER", &server.url)
            .env("TIDEGATE_TOKEN", &server.token)
            .env("HOME", dir)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let pin = pin.display().to_string();
    cli(&[
        "keys",
        "new",
        "hana",
        "--pkcs11-module",
        MODULE,
        "--token-label",
        "release-token",
        "--pin-file",
        &pin,
    ]);
    // The second half of the pair is a file; the first never leaves the token.
    let pem = std::fs::read_to_string(keys.join("private/hana.pem")).unwrap();
    assert_eq!(pem.matches("BEGIN ENCRYPTED").count(), 1);
    let said = cli(&["keys", "ceremony", "--holder", "hana", "--product", "app"]);
    assert!(said.contains("the ceremony is complete"), "{said}");
    cli(&["keys", "push"]);
    let tree = application(dir, "1.0.0", true).display().to_string();
    cli(&[
        "release",
        "publish",
        &tree,
        "--product",
        "app",
        "--release",
        "1.0.0",
    ]);
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_with_another_root_of_trust_and_both_are_named() {
    let (mine, theirs) = (Server::start().await, Server::start().await);
    mine.publish(&[("1.0.0", true)]);
    theirs.publish(&[("1.0.0", true)]);
    let root = |server: &Server| {
        let bytes = std::fs::read(server.keys().join("metadata/root.json")).unwrap();
        tidegate_delta::sha256(&bytes).to_string()
    };
    let at = |server: &Server, arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--server", &server.url, "--token", &server.token]);
        mine.cli_raw(&all)
    };
    let versions = async || theirs.get("/api/v1/trust").await["versions"].clone();
    let before = versions().await;
    let tree = application(mine.dir.path(), "1.1.0", true);
    let tree = tree.display().to_string();
    for command in [
        &["keys", "push"][..],
        &["keys", "fetch"],
        &[
            "release",
            "publish",
            &tree,
            "--product",
            "app",
            "--release",
            "1.1.0",
            "--yes",
        ],
        &["release", "promote", "app", "1.0.0", "--to", "ga", "--yes"],
        &[
            "release",
            "policy",
            "app",
            "--min-release",
            "1.0.0",
            "--yes",
        ],
    ] {
        let (code, out, error) = at(&theirs, command);
        assert_eq!(code, 5, "{command:?}: {out}{error}");
        assert!(out.is_empty(), "{command:?} says {out}");
        for named in [root(&mine), root(&theirs), theirs.url.clone()] {
            assert!(error.contains(&named), "{command:?}: {error}");
        }
        assert!(error.contains("--keys"), "{error}");
    }
    assert_eq!(versions().await, before);
    // Its own server, and one that has no root yet, take it; also after the root has changed.
    mine.cli(&["keys", "push"]);
    mine.cli(&["keys", "renew", "root", "--yes"]);
    let fresh = Server::start().await;
    for server in [&fresh, &mine] {
        let (code, out, error) = at(server, &["keys", "push"]);
        assert_eq!(code, 0, "{error}");
        assert!(out.contains("the server now has everything"), "{out}");
    }
    mine.cli(&["keys", "fetch"]);
}

#[tokio::test]
async fn a_command_that_signs_nothing_does_not_say_that_it_is_done() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    // Somebody else: a folder with the files and no key that may sign.
    let trust = server.get("/api/v1/trust").await;
    let root = trust["root_sha256"].as_str().unwrap();
    let guest = Person::new(&server, "guest");
    guest.run(&["keys", "new", "guest"]);
    guest.run(&["keys", "fetch", "--root", root]);
    guest.run(&["keys", "threshold", "root", "1"]);
    let error = guest.refused(&["keys", "sign", "--yes"]);
    assert!(error.contains("nothing was signed"), "{error}");
    let policy = [
        "release",
        "policy",
        "app",
        "--min-release",
        "1.0.0",
        "--yes",
    ];
    let error = guest.refused(&policy);
    assert!(error.contains("nothing of app was changed"), "{error}");
    let date = "2200-01-01T00:00:00Z";
    let said = server.cli(&[
        "release",
        "eol",
        "app",
        "1.0.0",
        "--date",
        date,
        "--dry-run",
    ]);
    assert!(said.contains("would reach its end of life"), "{said}");
}

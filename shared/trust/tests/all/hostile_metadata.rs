//! Attacks on signed metadata, A1 to A26 of `docs/explain/security-model.md`. Unless stated otherwise, the
//! attacker holds the server and its online keys.

use serde_json::{Value, json};
use tidegate_protocol::Timestamp;
use tidegate_trust::verify::Refresh;
use tidegate_trust::{
    Delegation, FileFacts, Floors, Holder, Policy, PublicKey, Quorum, Repository, RoleName,
    RoleSigner, RootRole, TrustError, UploadedFile, lifetime, sign, snapshot_body, timestamp_body,
};

use crate::common::*;

/// A role with one more release, as a thief would like it.
fn wished() -> Value {
    Server::product(2, &["1.0.0", "1.1.0", "6.6.6"], Policy::default()).body()
}

/// Serves a role file as the thief; the device must refuse it.
fn refuses_role(bytes: &[u8]) -> TrustError {
    let mut server = Server::new();
    server.serve_as_thief("app-stable", 2, bytes);
    server.look().unwrap_err()
}

/// Serves delegations signed by the targets key; the device and the server must refuse them.
fn refuses_targets(body: &Value) {
    let bytes = sign(body.clone(), &[&key(2)]).unwrap().to_bytes();
    let mut server = Server::new();
    assert!(server.upload("targets", &bytes).is_err(), "the server");
    server.serve_as_thief("targets", 2, &bytes);
    // A role correctly signed under the old delegations does not help.
    assert!(server.look().is_err(), "the device");
}

fn stable(quorum: Quorum) -> Vec<Delegation> {
    vec![
        Delegation::product(&role(), quorum),
        Delegation::director(key(12).public()),
    ]
}

#[test]
fn a01_without_signatures_or_with_empty_ones() {
    refuses_role(&tidegate_trust::Signed::unsigned(wished()).to_bytes());
    for sig in ["", "00", &"00".repeat(64), "zz"] {
        let id = key(3).public().key_id();
        let file = json!({ "signed": wished(), "signatures": [{ "keyid": id, "sig": sig }] });
        refuses_role(&serde_json::to_vec(&file).unwrap());
    }
}

#[test]
fn a02_one_signature_twice_is_one() {
    let both = sign(wished(), &[&key(3), &key(4)]).unwrap().to_bytes();
    let mut server = two_of_two(&both);
    server.look().unwrap();
    let once = sign(wished(), &[&key(3)]).unwrap().to_bytes();
    let mut twice: Value = serde_json::from_slice(&once).unwrap();
    let first = twice["signatures"][0].clone();
    twice["signatures"].as_array_mut().unwrap().push(first);
    server = two_of_two(&serde_json::to_vec(&twice).unwrap());
    assert!(server.look().is_err());
}

/// A repository whose stable role needs keys 3 and 4, serving this role file.
fn two_of_two(role_file: &[u8]) -> Server {
    let mut server = Server::new();
    let two = Quorum::of_people(
        vec![
            Holder::machine("a", key(3).public()),
            Holder::machine("b", key(4).public()),
        ],
        2,
    );
    let body = targets(2, stable(two)).body();
    let bytes = sign(body, &[&key(2)]).unwrap().to_bytes();
    server.upload("targets", &bytes).unwrap();
    server.serve_as_thief("app-stable", 2, role_file);
    server
}

#[test]
fn a03_one_key_under_two_ids() {
    // In delegations, with a threshold of two that one person could meet.
    let mut body = targets(2, stable(one("releases", 3))).body();
    let delegations = &mut body["delegations"];
    let id = key(3).public().key_id();
    let mut twin = delegations["keys"][&id].clone();
    let spelled = twin["keyval"]["public"].as_str().unwrap().to_uppercase();
    twin["keyval"]["public"] = json!(spelled);
    delegations["keys"]["ee".repeat(32)] = twin;
    delegations["roles"][0]["keyids"]
        .as_array_mut()
        .unwrap()
        .push(json!("ee".repeat(32)));
    delegations["roles"][0]["threshold"] = json!(2);
    refuses_targets(&body);
    // In a root.
    let mut body = root(2).body();
    let id = key(1).public().key_id();
    body["keys"]["dd".repeat(32)] = body["keys"][&id].clone();
    body["roles"]["root"]["keyids"]
        .as_array_mut()
        .unwrap()
        .push(json!("dd".repeat(32)));
    let bytes = sign(body, &[&key(1)]).unwrap().to_bytes();
    let mut server = Server::new();
    assert!(server.upload("root", &bytes).is_err());
    server.files.insert("2.root.json".into(), bytes);
    assert!(server.look().is_err());
}

#[test]
fn a04_thresholds_of_zero_below_zero_and_beyond_reach() {
    for threshold in [json!(0), json!(-1), json!(u64::MAX), json!("1"), json!(1.5)] {
        let mut body = targets(2, stable(one("releases", 3))).body();
        body["delegations"]["roles"][0]["threshold"] = threshold.clone();
        let Ok(signed) = sign(body, &[&key(2)]) else {
            continue; // A fraction has no canonical form to sign.
        };
        let mut server = Server::new();
        server.serve_as_thief("targets", 2, &signed.to_bytes());
        let unsigned = tidegate_trust::Signed::unsigned(wished()).to_bytes();
        server.files.insert("1.app-stable.json".into(), unsigned);
        assert!(server.look().is_err(), "{threshold}");
    }
}

#[test]
fn a05_the_key_of_another_role() {
    for other in [1, 2, 10, 11, 12] {
        refuses_role(&sign(wished(), &[&key(other)]).unwrap().to_bytes());
    }
}

#[test]
fn a06_roots_that_skip_repeat_or_have_one_side_only() {
    let mut server = Server::new();
    for (name, version, signers) in [
        ("skips", 3, vec![1, 21]),
        ("repeats", 1, vec![1, 21]),
        ("only the old keys", 2, vec![1]),
        ("only the new keys", 2, vec![21]),
    ] {
        let body = RootRole {
            root: one("root", 21),
            ..root(version)
        }
        .body();
        let keys: Vec<_> = signers.into_iter().map(key).collect();
        let signers: Vec<&dyn RoleSigner> = keys.iter().map(|k| k as _).collect();
        let bytes = sign(body, &signers).unwrap().to_bytes();
        let file = UploadedFile {
            role: "root".into(),
            bytes: bytes.clone(),
        };
        assert!(server.repository.accept(&file, NOW).is_err(), "{name}");
        server.files.insert("2.root.json".into(), bytes);
        assert!(server.look().is_err(), "{name}");
    }
    let body = RootRole {
        root: one("root", 21),
        ..root(2)
    }
    .body();
    let both = sign(body, &[&key(1), &key(21)]).unwrap().to_bytes();
    server.files.insert("2.root.json".into(), both);
    server.look().unwrap();
}

#[test]
fn a07_versions_of_zero_and_beyond_the_range() {
    for version in [json!(0), json!(-1), json!(1e30), json!("2")] {
        let mut body = timestamp_body(
            7,
            NOW.plus(lifetime::TIMESTAMP),
            FileFacts::of(1, b"whatever"),
        );
        body["version"] = version.clone();
        let Ok(signed) = sign(body, &[&key(11)]) else {
            continue;
        };
        let mut server = Server::new();
        server
            .files
            .insert("timestamp.json".into(), signed.to_bytes());
        assert!(server.look().is_err(), "{version}");
    }
    // A first file of people with version 0 is not taken by the server either.
    let whole = Server::new();
    let mut empty = Repository::default();
    for (name, signer) in [("root", 1), ("targets", 2), ("app-stable", 3)] {
        let first = whole.repository.bytes(name).unwrap();
        let mut upload = |bytes: &[u8]| {
            let file = UploadedFile {
                role: name.into(),
                bytes: bytes.to_vec(),
            };
            empty.accept(&file, NOW)
        };
        let mut body = serde_json::from_slice::<Value>(first).unwrap()["signed"].take();
        body["version"] = json!(0);
        let zero = sign(body, &[&key(signer)]).unwrap().to_bytes();
        let refused = upload(&zero).unwrap_err().to_string();
        assert!(
            refused.contains("versions count from 1"),
            "{name}: {refused}"
        );
        assert_eq!(upload(first).unwrap(), Some(1));
    }
    // The largest root version has no successor, and none is asked for.
    let last = sign(root(u64::MAX).body(), &[&key(1)]).unwrap().to_bytes();
    let mut server = Server::new();
    server.files.insert("1.root.json".into(), last);
    server.look().unwrap();
}

#[test]
fn a08_one_type_in_the_place_of_another() {
    let server = Server::new();
    for (from, to) in [
        ("1.snapshot.json", "timestamp.json"),
        ("timestamp.json", "1.snapshot.json"),
        ("1.app-stable.json", "1.targets.json"),
        ("1.targets.json", "1.app-stable.json"),
        ("1.root.json", "1.targets.json"),
    ] {
        let mut swapped = Server::new();
        swapped.files.insert(to.into(), server.files[from].clone());
        assert!(swapped.look().is_err(), "{from} as {to}");
    }
}

#[test]
fn a09_a_specification_of_another_major_version() {
    for version in ["2.0.0", "0.9", "", "1"] {
        let mut body = wished();
        body["spec_version"] = json!(version);
        let bytes = sign(body, &[&key(3)]).unwrap().to_bytes();
        let mut server = Server::new();
        server.serve_as_thief("app-stable", 2, &bytes);
        assert_eq!(server.look().is_ok(), version.starts_with('1'), "{version}");
    }
}

#[test]
fn a10_json_that_reads_in_two_ways_or_exhausts_the_reader() {
    let good = String::from_utf8(sign(wished(), &[&key(3)]).unwrap().to_bytes()).unwrap();
    let twice = good.replacen("{\"signatures\"", "{\"signatures\":[],\"signatures\"", 1);
    assert_ne!(good, twice);
    let bad: Vec<Vec<u8>> = vec![
        twice.into_bytes(),
        good.replacen("\"version\":2", "\"version\":2.0", 1)
            .into_bytes(),
        good.replacen("\"version\":2", "\"version\":2,\"version\":2", 1)
            .into_bytes(),
        format!("\u{feff}{good}").into_bytes(),
        format!("{good}{{}}").into_bytes(),
        "[".repeat(100_000).into_bytes(),
        b"NaN".to_vec(),
        good.replacen("1.1.0", "1.1.\u{0}", 1).into_bytes(),
        [good.as_bytes(), b"\xff"].concat(),
        [good.as_bytes(), &vec![b' '; 10 << 20]].concat(),
    ];
    for bytes in bad {
        refuses_role(&bytes);
    }
    let mut server = Server::new();
    server.serve_as_thief("app-stable", 2, good.as_bytes());
    server.look().unwrap();
}

#[test]
fn a11_another_version_than_the_name_says() {
    let bytes = sign(wished(), &[&key(3)]).unwrap().to_bytes();
    let mut server = Server::new();
    // Version 2 under the name and pin of version 3.
    server.serve_as_thief("app-stable", 3, &bytes);
    assert!(server.look().is_err());
}

#[test]
fn a12_a_snapshot_that_drops_a_role() {
    let mut server = Server::new();
    let seen = server.seen();
    let mut pins = server.repository.pins();
    pins.insert("app-alpha".into(), FileFacts::of(1, b"x"));
    pins.remove("app-stable");
    server.pin(&pins);
    assert!(server.look_again(&seen).is_err());
    assert!(server.look().is_err());
}

#[test]
fn a13_a_timestamp_that_pins_an_older_snapshot() {
    let mut server = Server::new();
    let first = server.files["1.snapshot.json"].clone();
    server.sign_online();
    let seen = server.seen();
    let mut body = timestamp_body(3, NOW.plus(lifetime::TIMESTAMP), FileFacts::of(1, &first));
    server.serve_timestamp(body.take());
    assert!(server.look_again(&seen).is_err());
    // Also to a device that has lost its files: its floors are stored apart from them.
    let floors = floors_of(&server_at(2));
    let result = refresh_with(&server, floors);
    assert!(
        matches!(result, Err(TrustError::BelowVersionFloor { .. })),
        "{result:?}"
    );
}

fn server_at(online: u64) -> Server {
    let mut server = Server::new();
    while server.online < online {
        server.sign_online();
    }
    server
}

fn floors_of(server: &Server) -> Floors {
    let mut refresh = Refresh::start(server.first(), Floors::default(), role(), NOW).unwrap();
    while let Some(request) = refresh.request() {
        refresh
            .answer(server.files.get(&request.file).cloned())
            .unwrap();
    }
    refresh.floors().clone()
}

fn refresh_with(server: &Server, floors: Floors) -> Result<Floors, TrustError> {
    let mut refresh = Refresh::start(server.first(), floors, role(), NOW)?;
    while let Some(request) = refresh.request() {
        refresh.answer(server.files.get(&request.file).cloned())?;
    }
    Ok(refresh.floors().clone())
}

#[test]
fn a14_a_snapshot_that_rolls_one_role_back() {
    let mut server = Server::new();
    let old = server.files["1.app-stable.json"].clone();
    server.publish(2, &["1.0.0", "1.1.0", "1.2.0"], Policy::default());
    let (seen, floors) = (server.seen(), floors_of(&server));
    server.serve_as_thief("app-stable", 1, &old);
    assert!(server.look_again(&seen).is_err());
    assert!(matches!(
        refresh_with(&server, floors),
        Err(TrustError::BelowVersionFloor { .. })
    ));
}

#[test]
fn a15_the_right_hash_with_the_wrong_length_and_the_reverse() {
    let server = Server::new();
    let snapshot = server.files["1.snapshot.json"].clone();
    let right = FileFacts::of(1, &snapshot);
    for wrong in [
        FileFacts {
            length: right.length + 1,
            ..right
        },
        FileFacts {
            sha256: FileFacts::of(1, b"other").sha256,
            ..right
        },
    ] {
        let mut server = Server::new();
        server.serve_snapshot(&snapshot, wrong);
        assert!(server.look().is_err());
    }
}

#[test]
fn a16_a_refused_timestamp_is_not_kept() {
    let mut server = server_at(2);
    let seen = server.seen();
    // Newer and correctly signed, but it pins an older snapshot.
    let first = server.files["1.snapshot.json"].clone();
    server.online = 99;
    server.serve_snapshot(&first, FileFacts::of(1, &first));
    let mut refresh = Refresh::start(seen.clone(), Floors::default(), role(), NOW).unwrap();
    let mut refused = None;
    while let Some(request) = refresh.request() {
        if let Err(error) = refresh.answer(server.files.get(&request.file).cloned()) {
            refused = Some(error);
            break;
        }
    }
    assert!(refused.is_some());
    assert_eq!(refresh.files(), &seen);
    assert!(refresh.floors().timestamp.version < 99);
}

#[test]
fn a17_expired_files_at_the_very_moment_too() {
    let server = Server::new();
    for (file, lifetime) in [
        ("root", lifetime::ROOT),
        ("timestamp", lifetime::TIMESTAMP),
        ("snapshot", lifetime::SNAPSHOT),
        ("targets", lifetime::TARGETS),
        ("role", lifetime::ROLE),
    ] {
        let trusted = server.look().unwrap();
        let end = NOW.plus(lifetime);
        let before = Timestamp::from_micros(end.as_micros() - 1);
        // The timestamp is the shortest: everything else is still good when it ends.
        assert_eq!(
            trusted.check_expiry(before).is_ok(),
            file == "timestamp",
            "{file}"
        );
        assert!(trusted.check_expiry(end).is_err(), "{file}");
        assert!(server.refresh(server.first(), end).is_err(), "{file}");
    }
    // Other spellings of a time are the same time.
    for expires in ["2027-01-15T08:00:00.000000Z", "2027-01-15T09:00:00+01:00"] {
        let mut body = wished();
        body["expires"] = json!(expires);
        refuses_role(&sign(body, &[&key(3)]).unwrap().to_bytes());
    }
}

#[test]
fn a18_expiry_that_passes_in_the_middle_of_an_update() {
    let trusted = Server::new().look().unwrap();
    let bytes = draft("1.1.0").sign(&key(12)).unwrap().to_bytes();
    check_with(&trusted, &bytes, "1.0.0").unwrap();
    let mut late = draft("1.1.0");
    late.time = NOW.plus(lifetime::TIMESTAMP);
    let bytes = late.sign(&key(12)).unwrap().to_bytes();
    let at = sane(NOW.plus(lifetime::TIMESTAMP));
    let result = check_in(&trusted, &bytes, "1.0.0", None, at);
    assert_eq!(
        result.unwrap_err().explained().code.as_str(),
        "metadata_expired"
    );
}

#[test]
fn a19_versions_pushed_to_the_end_are_undone_by_new_keys() {
    let mut server = Server::new();
    server.online = u64::MAX - 1;
    server.sign_online();
    let (seen, floors) = (server.seen(), floors_of(&server));
    // People give the server new keys; its versions begin again at 1.
    let new_root = RootRole {
        snapshot: one("snapshot", 30),
        timestamp: one("timestamp", 31),
        ..root(2)
    };
    let bytes = sign(new_root.body(), &[&key(1)]).unwrap().to_bytes();
    server.upload("root", &bytes).unwrap();
    let pins = server.repository.pins();
    let snapshot = snapshot_body(1, NOW.plus(lifetime::SNAPSHOT), &pins);
    let snapshot = sign(snapshot, &[&key(30)]).unwrap().to_bytes();
    let body = timestamp_body(
        1,
        NOW.plus(lifetime::TIMESTAMP),
        FileFacts::of(1, &snapshot),
    );
    server.files.insert("1.snapshot.json".into(), snapshot);
    let timestamp = sign(body, &[&key(31)]).unwrap().to_bytes();
    server.files.insert("timestamp.json".into(), timestamp);
    server.look_again(&seen).unwrap();
    let after = refresh_with(&server, floors).unwrap();
    assert_eq!((after.timestamp.version, after.root), (1, 2));
}

#[test]
fn a20_roles_with_names_that_lead_elsewhere() {
    for name in [
        "root",
        "../x",
        "a/b",
        "/etc",
        "",
        "app",
        "app-",
        "app-stable/../x",
    ] {
        let mut delegations = stable(one("releases", 3));
        delegations.push(Delegation {
            name: name.into(),
            quorum: one("x", 5),
            paths: vec!["*".into()],
        });
        let body = targets(2, delegations).body();
        let bytes = sign(body, &[&key(2)]).unwrap().to_bytes();
        assert!(
            Server::new().upload("targets", &bytes).is_err(),
            "{name} at the server"
        );
        // A device builds file names only from its own product and channel.
        assert!(name.parse::<RoleName>().is_err(), "{name}");
    }
}

#[test]
fn a21_delegations_in_circles_and_by_the_thousand() {
    // A role that delegates further is read only for what it lists itself; nothing is followed.
    let mut body = wished();
    body["delegations"] = targets(1, stable(one("releases", 66))).body()["delegations"].clone();
    let bytes = sign(body, &[&key(3)]).unwrap().to_bytes();
    let mut server = Server::new();
    server.serve_as_thief("app-stable", 2, &bytes);
    let mut asked = 0;
    let mut refresh = Refresh::start(server.first(), Floors::default(), role(), NOW).unwrap();
    while let Some(request) = refresh.request() {
        asked += 1;
        assert!(asked < 10, "it goes round in circles");
        refresh
            .answer(server.files.get(&request.file).cloned())
            .unwrap();
    }
    let many = (0..10_000).map(|n| Delegation {
        name: format!("app{n}-stable"),
        quorum: one("x", 5),
        paths: vec![format!("app{n}/stable/*/*")],
    });
    let mut delegations = stable(one("releases", 3));
    delegations.extend(many);
    let bytes = sign(targets(2, delegations).body(), &[&key(2)])
        .unwrap()
        .to_bytes();
    let mut server = Server::new();
    server.serve_as_thief("targets", 2, &bytes);
    assert!(matches!(server.look(), Err(TrustError::TooLarge { .. })));
}

#[test]
fn a22_a_role_that_speaks_for_anothers_paths() {
    // The alpha key, which one machine holds, lists an image of the stable channel.
    let mut delegations = stable(one("releases", 3));
    delegations.insert(
        0,
        Delegation {
            name: "app-alpha".into(),
            quorum: one("canary", 5),
            paths: vec!["app/*/*/*".into()],
        },
    );
    let mut server = Server::new();
    server.delegate(delegations).unwrap();
    let mut body = wished();
    body["version"] = json!(1);
    let bytes = sign(body, &[&key(5)]).unwrap().to_bytes();
    assert!(server.upload("app-alpha", &bytes).is_err());
    server.serve_as_thief("app-alpha", 1, &bytes);
    let trusted = server.look().unwrap();
    let order = draft("6.6.6").sign(&key(12)).unwrap().to_bytes();
    assert!(matches!(
        check_with(&trusted, &order, "1.0.0"),
        Err(TrustError::NotListed(_))
    ));
}

#[test]
fn a23_patterns_that_cross_folders_or_leave_them() {
    for paths in [
        vec!["app/*".to_owned()],
        vec!["*".into()],
        vec!["APP/stable/*/*".into()],
        vec!["app/stable/../*/*".into()],
        vec![],
    ] {
        let mut delegations = stable(one("releases", 3));
        delegations[0].paths = paths.clone();
        let mut server = Server::new();
        server.delegate(delegations).unwrap();
        let trusted = server.look().unwrap();
        let order = draft("1.1.0").sign(&key(12)).unwrap().to_bytes();
        assert!(
            matches!(
                check_with(&trusted, &order, "1.0.0"),
                Err(TrustError::PathOutsideRole(_))
            ),
            "{paths:?}"
        );
    }
    for path in [
        "app/stable/../../etc/passwd",
        "/app/stable/1.0.0/linux-x86_64",
        "app/stable/1.0.0/linux-x86_64/x",
        "app\\stable\\1.0.0\\linux-x86_64",
    ] {
        let mut body = wished();
        body["targets"][path] = body["targets"]["app/stable/1.1.0/linux-x86_64"].clone();
        refuses_role(&sign(body, &[&key(3)]).unwrap().to_bytes());
    }
}

#[test]
fn a24_hashes_that_nobody_knows() {
    let mut body = wished();
    body["targets"]["app/stable/6.6.6/linux-x86_64"]["hashes"] = json!({ "blake9": "00" });
    refuses_role(&sign(body, &[&key(3)]).unwrap().to_bytes());
    // Keys of unknown kinds: `keys_of_an_unknown_kind_are_tolerated_but_never_counted`.
}

/// The order of the group, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn a25_weak_keys_and_signatures_in_another_spelling() {
    // A point of small order verifies anything under lax rules.
    let weak = format!("01{}", "00".repeat(31));
    assert!(weak.parse::<PublicKey>().is_err());
    let mut body = targets(2, stable(one("releases", 3))).body();
    let id = key(3).public().key_id();
    body["delegations"]["keys"][&id]["keyval"]["public"] = json!(weak);
    let bytes = sign(body, &[&key(2)]).unwrap().to_bytes();
    let mut server = Server::new();
    server.serve_as_thief("targets", 2, &bytes);
    let zero =
        json!({ "signed": wished(), "signatures": [{ "keyid": id, "sig": weak.repeat(2) }] });
    server.files.insert(
        "1.app-stable.json".into(),
        serde_json::to_vec(&zero).unwrap(),
    );
    assert!(server.look().is_err());
    // The scalar plus the group's order is the same scalar in another spelling.
    let message = b"message";
    let mut signature = key(3).sign(message);
    let mut carry = 0u16;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    assert!(key(3).public().verify(message, &signature).is_err());
}

#[test]
fn a26_a_part_of_a_hash() {
    for hash in ["", "7fbd210ebec1", &"0".repeat(63), &"0".repeat(65)] {
        let mut body = wished();
        body["targets"]["app/stable/6.6.6/linux-x86_64"]["hashes"]["sha256"] = json!(hash);
        refuses_role(&sign(body, &[&key(3)]).unwrap().to_bytes());
    }
}

//! The whole chain: people sign offline, the server signs online, a device checks both. Every
//! refusal of an assignment has a test of its own.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_protocol::{Channel, DeviceId, Timestamp};
use tidegate_trust::assignment::{self, Action, Clock, Situation};
use tidegate_trust::verify::Refresh;
use tidegate_trust::{
    FileFacts, Floors, Policy, TopTargets, TrustError, lifetime, sign, snapshot_body,
    timestamp_body,
};

use crate::common::*;

#[test]
fn a_device_takes_what_was_signed_offline_and_assigned_online() {
    let accepted = check(&draft("1.1.0")).unwrap();
    assert_eq!(accepted.facts, facts("1.1.0"));
    assert_eq!(accepted.counter, 8);
}

#[test]
fn a_fleet_rollback_to_a_listed_release_is_taken() {
    let mut draft = draft("1.0.0");
    draft.terms.action = Action::Rollback;
    let bytes = draft.sign(&key(12)).unwrap().to_bytes();
    assert!(check_with(&Server::new().trusted(), &bytes, "1.1.0").is_ok());
}

#[test]
fn a_second_refresh_asks_for_no_more_than_the_next_root_and_the_timestamp() {
    let server = Server::new();
    let (_, files) = server.refresh(server.first(), NOW).unwrap();
    let mut refresh = Refresh::start(files, Floors::default(), role(), NOW).unwrap();
    let mut asked = Vec::new();
    while let Some(request) = refresh.request() {
        asked.push(request.file.clone());
        refresh
            .answer(server.files.get(&request.file).cloned())
            .unwrap();
    }
    assert_eq!(asked, ["2.root.json", "timestamp.json"]);
}

#[test]
fn trusted_versions_never_fall() {
    let mut server = Server::new();
    let old = server.files.clone();
    server.publish(2, &["1.0.0", "1.1.0", "1.2.0"], Policy::default());
    let (_, files) = server.refresh(server.first(), NOW).unwrap();
    server.files = old;
    let refused = server.refresh(files, NOW).unwrap_err();
    assert!(
        matches!(
            refused,
            TrustError::Metadata {
                source: sigstore_tuf::Error::Rollback { .. },
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn an_online_key_cannot_add_an_image_of_its_own() {
    let mut server = Server::new();
    let body = Server::product(2, &["1.0.0", "1.1.0", "6.6.6"], Policy::default()).body();
    let forged = sign(body, &[&key(12), &key(10), &key(11)])
        .unwrap()
        .to_bytes();
    assert!(server.upload("app-stable", &forged).is_err());
    // The thief replaces what the server serves, and pins it with the stolen online keys.
    server
        .files
        .insert("2.app-stable.json".into(), forged.clone());
    let mut pins = server.repository.pins();
    pins.insert("app-stable".into(), FileFacts::of(2, &forged));
    let snapshot = snapshot_body(2, NOW.plus(lifetime::SNAPSHOT), &pins);
    let snapshot = sign(snapshot, &[&key(10)]).unwrap().to_bytes();
    let facts = FileFacts::of(2, &snapshot);
    let timestamp = timestamp_body(2, NOW.plus(lifetime::TIMESTAMP), facts);
    server.files.insert(
        "timestamp.json".into(),
        sign(timestamp, &[&key(11)]).unwrap().to_bytes(),
    );
    server.files.insert("2.snapshot.json".into(), snapshot);
    let refused = server.refresh(server.first(), NOW).unwrap_err();
    assert!(
        matches!(
            refused,
            TrustError::Metadata {
                source: sigstore_tuf::Error::ThresholdNotMet { found: 0, .. },
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn a_frozen_timestamp_is_refused_once_it_has_expired() {
    let server = Server::new();
    let (_, files) = server.refresh(server.first(), NOW).unwrap();
    let later = NOW.plus(lifetime::TIMESTAMP * 2);
    let refused = server.refresh(files, later).unwrap_err();
    assert_eq!(refused.explained().code.as_str(), "metadata_expired");
}

#[test]
fn a_missing_pinned_file_is_refused() {
    let mut server = Server::new();
    server.files.remove("1.app-stable.json");
    assert!(matches!(
        server.refresh(server.first(), NOW),
        Err(TrustError::Missing(_))
    ));
}

#[test]
fn keys_of_an_unknown_kind_are_tolerated_but_never_counted() {
    let mut server = Server::new();
    let targets = TopTargets::from_bytes(&server.files["1.targets.json"]).unwrap();
    let mut body = TopTargets {
        version: 2,
        ..targets
    }
    .body();
    body["delegations"]["keys"]["ff00"] = json!({
        "keytype": "slh-dsa", "scheme": "slh-dsa-256s/1", "keyval": { "public": "AAAA" },
    });
    body["delegations"]["roles"][0]["keyids"]
        .as_array_mut()
        .unwrap()
        .push(json!("ff00"));
    server
        .upload("targets", &sign(body, &[&key(2)]).unwrap().to_bytes())
        .unwrap();
    let body = Server::product(2, &["1.0.0", "1.1.0", "1.2.0"], Policy::default()).body();
    let mut signed: Value =
        serde_json::from_slice(&sign(body, &[&key(3)]).unwrap().to_bytes()).unwrap();
    signed["signatures"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "keyid": "ff00", "sig": "00" }));
    server
        .upload("app-stable", &serde_json::to_vec(&signed).unwrap())
        .unwrap();
    server.sign_online();
    assert!(server.trusted().role().images.contains_key(&path("1.2.0")));
    // On its own, the unknown key counts for nothing.
    signed["signatures"].as_array_mut().unwrap().remove(0);
    signed["signed"]["version"] = json!(3);
    assert!(
        server
            .upload("app-stable", &serde_json::to_vec(&signed).unwrap())
            .is_err()
    );
}

#[test]
fn a_published_path_can_never_name_other_bytes() {
    let mut server = Server::new();
    let mut role = Server::product(2, &["1.0.0", "1.1.0"], Policy::default());
    role.images.get_mut(&path("1.1.0")).unwrap().image = image("other");
    let bytes = sign(role.body(), &[&key(3)]).unwrap().to_bytes();
    let refused = server.upload("app-stable", &bytes).unwrap_err();
    assert!(
        refused.to_string().contains("a different image"),
        "{refused}"
    );
}

macro_rules! refused {
    ($($name:ident: |$draft:ident| $change:expr => $error:pat,)*) => {$(
        #[test]
        fn $name() {
            let mut $draft = draft("1.1.0");
            $change;
            let result = check(&$draft);
            assert!(matches!(result, Err($error)), "{result:?}");
        }
    )*};
}

refused! {
    an_unlisted_image: |d| d.path.release = v("9.9.9") => TrustError::NotListed(_),
    swapped_bytes: |d| d.image.sha256 = image("evil").sha256 => TrustError::ImageDiffers,
    a_right_digest_with_a_wrong_length: |d| d.image.length += 1 => TrustError::ImageDiffers,
    another_devices_assignment: |d| d.terms.device = DeviceId::from_random([8; 16])
        => TrustError::WrongDevice,
    a_replayed_nonce: |d| d.terms.nonce = "ffff".into() => TrustError::WrongNonce,
    an_old_counter: |d| d.counter = 7 => TrustError::WrongCounter { .. },
    a_counter_that_jumps: |d| d.counter = u64::MAX => TrustError::WrongCounter { .. },
    another_channels_path: |d| d.path.role.channel = Channel::Alpha => TrustError::PathOutsideRole(_),
    another_platforms_image: |d| d.path.platform = "windows-x86_64".parse().unwrap()
        => TrustError::NotListed(_),
    a_rollback_to_what_already_runs: |d| {
        d.path.release = v("1.0.0");
        d.image = image("1.0.0");
    } => TrustError::AlreadyInstalled(_),
    no_way_to_fetch_it: |d| d.terms.payloads.clear() => TrustError::Field { .. },
}

#[test]
fn an_expired_assignment_is_refused_by_a_clock_that_its_owner_vouches_for() {
    let mut old = draft("1.1.0");
    old.time = Timestamp::from_secs(NOW.as_secs() - 7_200);
    let bytes = old.sign(&key(12)).unwrap().to_bytes();
    let trusted = Server::new().trusted();
    let by = |strict| {
        let clock = Clock {
            strict,
            ..sane(NOW)
        };
        check_in(&trusted, &bytes, "1.0.0", None, clock)
    };
    assert!(matches!(
        by(true),
        Err(TrustError::Metadata {
            source: sigstore_tuf::Error::Expired { .. },
            ..
        })
    ));
    // Otherwise the clock is wrong: the nonce proves that this is an answer. A machine that shows
    // its local time as UTC is not stranded by it.
    by(false).unwrap();
}

#[test]
fn an_order_for_carrying_answers_nobody_and_counts_once() {
    let trusted = Server::new().trusted();
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let mut carried = draft("1.1.0");
    carried.counter = 1_000;
    let bytes = carried.sign_carried(&key(12), days(30)).unwrap().to_bytes();
    assert!(check_with(&trusted, &bytes, "1.0.0").is_err());
    let apply = |bytes: &[u8], counter: u64, after: Duration| {
        let (platform, installed) = (platform(), v("1.0.0"));
        let situation = Situation {
            device: DeviceId::from_random([9; 16]),
            platform: &platform,
            nonce: "",
            counter,
            kept: None,
            installed: Some(&installed),
            floor: None,
            clock: sane(NOW.plus(after)),
            agent: None,
            formats: &["tar"],
        };
        assignment::verify_carried(&trusted, bytes, &situation)
    };
    // After three weeks the files signed every hour have expired, and the order has not.
    let accepted = apply(&bytes, 7, days(21)).unwrap();
    assert_eq!(accepted.counter, 1_000);
    assert!(apply(&bytes, 7, days(31)).is_err());
    assert!(matches!(
        apply(&bytes, 1_000, days(1)),
        Err(TrustError::WrongCounter { .. })
    ));
    // An answer to a device cannot be carried, and no key makes an order good for years.
    let answer = draft("1.1.0").sign(&key(12)).unwrap().to_bytes();
    assert!(apply(&answer, 7, days(0)).is_err());
    let long = carried
        .sign_carried(&key(12), days(1_000))
        .unwrap()
        .to_bytes();
    apply(&long, 7, days(59)).unwrap();
    assert!(apply(&long, 7, days(60)).is_err());
    let thief = carried.sign_carried(&key(11), days(30)).unwrap().to_bytes();
    assert!(apply(&thief, 7, days(1)).is_err());
}

#[test]
fn a_signature_by_another_online_key() {
    let bytes = draft("1.1.0").sign(&key(11)).unwrap().to_bytes();
    assert!(matches!(
        check_with(&Server::new().trusted(), &bytes, "1.0.0"),
        Err(TrustError::Metadata {
            source: sigstore_tuf::Error::ThresholdNotMet { .. },
            ..
        })
    ));
}

#[test]
fn two_images_in_one_assignment() {
    let signed = draft("1.1.0").sign(&key(12)).unwrap();
    let mut body = signed.body().clone();
    body["targets"]["app/stable/1.0.0/linux-x86_64"] =
        json!({ "length": 1_000, "hashes": { "sha256": image("1.0.0").sha256.to_string() } });
    let bytes = sign(body, &[&key(12)]).unwrap().to_bytes();
    assert!(matches!(
        check_with(&Server::new().trusted(), &bytes, "1.0.0"),
        Err(TrustError::NotOneImage(2))
    ));
}

#[test]
fn an_expiry_years_ahead() {
    let signed = draft("1.1.0").sign(&key(12)).unwrap();
    let mut body = signed.body().clone();
    body["expires"] = json!("2099-01-01T00:00:00Z");
    let bytes = sign(body, &[&key(12)]).unwrap().to_bytes();
    assert!(matches!(
        check_with(&Server::new().trusted(), &bytes, "1.0.0"),
        Err(TrustError::TooLongLived)
    ));
}

#[test]
fn a_downgrade_without_an_order() {
    let bytes = draft("1.0.0").sign(&key(12)).unwrap().to_bytes();
    assert!(matches!(
        check_with(&Server::new().trusted(), &bytes, "1.1.0"),
        Err(TrustError::Downgrade { .. })
    ));
}

#[test]
fn anything_below_the_devices_floor_or_the_policys() {
    let mut order = draft("1.0.0");
    order.terms.action = Action::Rollback;
    let bytes = order.sign(&key(12)).unwrap().to_bytes();
    let mut server = Server::new();
    let refused = check_in(&server.trusted(), &bytes, "1.1.0", Some("1.1.0"), sane(NOW));
    assert!(matches!(refused, Err(TrustError::BelowFloor { .. })));
    let policy = Policy {
        min_release: Some(v("1.1.0")),
        ..Policy::default()
    };
    server.publish(2, &["1.0.0", "1.1.0"], policy);
    assert!(matches!(
        check_with(&server.trusted(), &bytes, "1.1.0"),
        Err(TrustError::BelowFloor { .. })
    ));
}

#[test]
fn a_machine_without_a_clock_takes_a_fresh_answer_and_no_lying_future() {
    let server = Server::new();
    let floor = Clock {
        shows: Timestamp::ZERO,
        floor: Timestamp::from_secs(1),
        strict: false,
    };
    let bytes = draft("1.1.0").sign(&key(12)).unwrap().to_bytes();
    assert!(check_in(&server.trusted(), &bytes, "1.0.0", None, floor).is_ok());
    let mut future = draft("1.1.0");
    future.time = NOW.plus(lifetime::ROOT);
    let bytes = future.sign(&key(12)).unwrap().to_bytes();
    assert!(check_in(&server.trusted(), &bytes, "1.0.0", None, floor).is_err());
}

#[test]
fn rubbish_is_refused_without_a_panic() {
    let trusted = Server::new().trusted();
    let deep = "[".repeat(60_000);
    for bytes in [
        &b""[..],
        b"{}",
        b"null",
        &[0xff; 100],
        deep.as_bytes(),
        &vec![b' '; 70_000],
    ] {
        assert!(check_with(&trusted, bytes, "1.0.0").is_err());
    }
}

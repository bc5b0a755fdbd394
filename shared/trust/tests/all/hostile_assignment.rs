//! Attacks on assignments, A32 to A38 of `docs/explain/security-model.md`, by a present or former holder of
//! the director's key.

use serde_json::json;
use tidegate_protocol::{DeviceId, Timestamp};
use tidegate_trust::assignment::{Action, Clock, Draft, KeyOrder};
use tidegate_trust::{Delegation, Policy, TrustError, lifetime, sign};

use crate::common::*;

#[test]
fn a32_the_key_of_a_director_who_was_replaced() {
    let mut server = Server::new();
    server
        .delegate(vec![
            Delegation::product(&role(), one("releases", 3)),
            Delegation::director(key(13).public()),
        ])
        .unwrap();
    let trusted = server.look().unwrap();
    let old = draft("1.1.0").sign(&key(12)).unwrap().to_bytes();
    assert!(check_with(&trusted, &old, "1.0.0").is_err());
    let new = draft("1.1.0").sign(&key(13)).unwrap().to_bytes();
    check_with(&trusted, &new, "1.0.0").unwrap();
}

#[test]
fn a33_images_that_the_director_lists_itself() {
    let mut body = Server::product(1, &["6.6.6"], Policy::default()).body();
    body["x-policy"] = json!({});
    let bytes = sign(body, &[&key(12)]).unwrap().to_bytes();
    let mut server = Server::new();
    server.serve_as_thief("director", 1, &bytes);
    let trusted = server.look().unwrap();
    let order = draft("6.6.6").sign(&key(12)).unwrap().to_bytes();
    assert!(matches!(
        check_with(&trusted, &order, "1.0.0"),
        Err(TrustError::NotListed(_))
    ));
}

#[test]
fn a34_a_counter_at_the_end_of_its_range_locks_nobody_out() {
    let trusted = Server::new().look().unwrap();
    let mut order = draft("1.1.0");
    order.counter = u64::MAX;
    let bytes = order.sign(&key(12)).unwrap().to_bytes();
    assert!(matches!(
        check_with(&trusted, &bytes, "1.0.0"),
        Err(TrustError::WrongCounter { expected: 8, .. })
    ));
    // The device continues counting from where it was.
    let bytes = draft("1.1.0").sign(&key(12)).unwrap().to_bytes();
    check_with(&trusted, &bytes, "1.0.0").unwrap();
}

#[test]
fn a35_an_assignment_that_is_good_for_years() {
    let trusted = Server::new().look().unwrap();
    let signed = draft("1.1.0").sign(&key(12)).unwrap();
    let mut body = signed.body().clone();
    body["expires"] = json!(NOW.plus(lifetime::ROOT).to_string());
    let bytes = sign(body, &[&key(12)]).unwrap().to_bytes();
    assert!(matches!(
        check_with(&trusted, &bytes, "1.0.0"),
        Err(TrustError::TooLongLived)
    ));
}

#[test]
fn a36_of_two_assignments_at_once_one_counts() {
    let trusted = Server::new().look().unwrap();
    let first = draft("1.1.0").sign(&key(12)).unwrap().to_bytes();
    let accepted = check_with(&trusted, &first, "1.0.0").unwrap();
    // The device stores the counter before it acts; the other assignment is refused then.
    assert_eq!(accepted.counter, 8);
    let mut other = draft("1.1.0");
    other.counter = accepted.counter;
    let bytes = other.sign(&key(12)).unwrap().to_bytes();
    let platform = platform();
    let situation = tidegate_trust::assignment::Situation {
        device: other.terms.device,
        platform: &platform,
        nonce: NONCE,
        counter: accepted.counter,
        kept: None,
        installed: None,
        floor: None,
        clock: sane(NOW),
        agent: None,
        formats: &["tar"],
    };
    assert!(matches!(
        tidegate_trust::assignment::verify(&trusted, &bytes, &situation),
        Err(TrustError::WrongCounter { expected: 9, .. })
    ));
}

#[test]
fn a38_the_release_that_runs_already() {
    let trusted = Server::new().look().unwrap();
    for action in [Action::Install, Action::Rollback] {
        let mut order = draft("1.1.0");
        order.terms.action = action;
        let bytes = order.sign(&key(12)).unwrap().to_bytes();
        assert!(matches!(
            check_with(&trusted, &bytes, "1.1.0"),
            Err(TrustError::AlreadyInstalled(_))
        ));
    }
}

#[test]
fn a73_a_rollback_to_a_newer_release_passes_over_no_signed_rule() {
    let mut server = Server::new();
    let mut product = Server::product(2, &["1.0.0", "1.5.0", "2.0.0"], Policy::default());
    let rules = |facts: &mut tidegate_trust::ImageFacts| {
        facts.min_from = Some(v("1.5.0"));
        facts.stepping_stone = true;
    };
    rules(product.images.get_mut(&path("2.0.0")).unwrap());
    let bytes = sign(product.body(), &[&key(3)]).unwrap().to_bytes();
    server.upload("app-stable", &bytes).unwrap();
    server.sign_online();
    let trusted = server.look().unwrap();
    for release in ["1.5.0", "2.0.0"] {
        let mut order = draft(release);
        order.terms.action = Action::Rollback;
        let bytes = order.sign(&key(12)).unwrap().to_bytes();
        assert!(matches!(
            check_with(&trusted, &bytes, "1.0.0"),
            Err(TrustError::RollbackUpwards { .. })
        ));
    }
    let mut order = draft("1.0.0");
    order.terms.action = Action::Rollback;
    let bytes = order.sign(&key(12)).unwrap().to_bytes();
    check_with(&trusted, &bytes, "2.0.0").unwrap();
}

/// The kept slot needs no listing. A thief of the director's key gains nothing by that: it can name no
/// other bytes, no other time and no other direction, and what people signed against a release holds.
#[test]
fn a107_an_order_back_to_the_kept_slot_is_good_for_nothing_else() {
    let trusted = Server::new().look().unwrap();
    let kept = facts("0.9.0");
    let order = |release: &str, change: &dyn Fn(&mut Draft)| {
        let mut order = draft(release);
        order.terms.action = Action::Rollback;
        order.terms.payloads.clear();
        change(&mut order);
        order.sign(&key(12)).unwrap().to_bytes()
    };
    let plain = order("0.9.0", &|_| {});
    let accepted = check_keeping(&trusted, &plain, "1.1.0", Some(&kept)).unwrap();
    assert_eq!(accepted.facts.image, kept.image);
    // Once nothing is kept any more, after the window or because it has failed here, it is no way.
    assert!(check_keeping(&trusted, &plain, "1.1.0", None).is_err());
    let with_payload = order("0.9.0", &|o| {
        o.terms.payloads = draft("1.1.0").terms.payloads;
    });
    assert!(matches!(
        check_keeping(&trusted, &with_payload, "1.1.0", None),
        Err(TrustError::NotListed(_))
    ));
    // Other bytes under the kept release's name, the kept bytes under another name, another platform.
    let bytes = order("0.9.0", &|o| o.image = image("6.6.6"));
    assert!(check_keeping(&trusted, &bytes, "1.1.0", Some(&kept)).is_err());
    let name = order("0.8.0", &|o| o.image = kept.image);
    assert!(check_keeping(&trusted, &name, "1.1.0", Some(&kept)).is_err());
    let platform = order("0.9.0", &|o| o.path.platform = "plc-arm64".parse().unwrap());
    assert!(check_keeping(&trusted, &platform, "1.1.0", Some(&kept)).is_err());
    // As an install, and upwards.
    let install = order("0.9.0", &|o| {
        o.terms.action = Action::Install;
        o.terms.payloads = draft("1.1.0").terms.payloads;
    });
    assert!(matches!(
        check_keeping(&trusted, &install, "0.8.0", Some(&kept)),
        Err(TrustError::NotListed(_))
    ));
    assert!(matches!(
        check_keeping(&trusted, &plain, "0.8.0", Some(&kept)),
        Err(TrustError::RollbackUpwards { .. })
    ));
    // What people signed: no way back from the running release, a floor, an end of life.
    let mut server = Server::new();
    let mut product = Server::product(2, &["1.0.0", "1.1.0"], Policy::default());
    let running = product.images.get_mut(&path("1.1.0")).unwrap();
    running.allow_rollback = false;
    let bytes = sign(product.body(), &[&key(3)]).unwrap().to_bytes();
    server.upload("app-stable", &bytes).unwrap();
    server.sign_online();
    assert!(matches!(
        check_keeping(&server.look().unwrap(), &plain, "1.1.0", Some(&kept)),
        Err(TrustError::RollbackNotAllowed(_))
    ));
    for policy in [
        Policy {
            min_release: Some(v("1.0.0")),
            ..Policy::default()
        },
        Policy {
            eol: vec![v("0.9.0")],
            ..Policy::default()
        },
    ] {
        let mut server = Server::new();
        server.publish(2, &["1.0.0", "1.1.0"], policy);
        assert!(matches!(
            check_keeping(&server.look().unwrap(), &plain, "1.1.0", Some(&kept)),
            Err(TrustError::BelowFloor { .. } | TrustError::EndOfLife(_))
        ));
    }
}

#[test]
fn a_stepping_stone_cannot_be_skipped_by_the_server() {
    let mut server = Server::new();
    let mut product = Server::product(2, &["1.0.0", "1.1.0", "2.0.0"], Policy::default());
    product
        .images
        .get_mut(&path("1.1.0"))
        .unwrap()
        .stepping_stone = true;
    let bytes = sign(product.body(), &[&key(3)]).unwrap().to_bytes();
    server.upload("app-stable", &bytes).unwrap();
    server.sign_online();
    let trusted = server.look().unwrap();
    let order = draft("2.0.0").sign(&key(12)).unwrap().to_bytes();
    assert!(matches!(
        check_with(&trusted, &order, "1.0.0"),
        Err(TrustError::SkipsSteppingStone { .. })
    ));
    check_with(&trusted, &order, "1.1.0").unwrap();
    let stone = draft("1.1.0").sign(&key(12)).unwrap().to_bytes();
    check_with(&trusted, &stone, "1.0.0").unwrap();
}

#[test]
fn a48_wrong_clocks_strand_nobody() {
    let trusted = Server::new().look().unwrap();
    let bytes = draft("1.1.0").sign(&key(12)).unwrap().to_bytes();
    let floor = Timestamp::from_secs(NOW.as_secs() - 1_000);
    for (year, shows) in [
        (1970, Timestamp::ZERO),
        (2001, Timestamp::from_secs(1_000_000_000)),
        (2100, Timestamp::from_secs(4_102_444_800)),
    ] {
        let clock = Clock {
            shows,
            floor,
            strict: false,
        };
        check_in(&trusted, &bytes, "1.0.0", None, clock)
            .unwrap_or_else(|e| panic!("a clock in {year}: {e}"));
    }
    // If the owner vouches for the clock, it alone decides.
    let strict = Clock {
        shows: Timestamp::from_secs(4_102_444_800),
        floor,
        strict: true,
    };
    assert!(check_in(&trusted, &bytes, "1.0.0", None, strict).is_err());
}

#[test]
fn a105_an_order_for_a_new_key_is_obeyed_once_and_only_from_the_director() {
    let trusted = Server::new().look().unwrap();
    let order = KeyOrder {
        device: DeviceId::from_random([9; 16]),
        nonce: NONCE.into(),
        replaces: key(40).public().to_string(),
    };
    let check = |text: &str| order.verify(&trusted, text.as_bytes(), sane(NOW));
    let good = order.sign(&key(12), NOW).unwrap();
    check(&good).unwrap();
    // Signed by an online key that is not the director's, and not signed at all.
    check(&order.sign(&key(11), NOW).unwrap()).unwrap_err();
    check(&good.replace(NONCE, "44556677")).unwrap_err();
    check("{}").unwrap_err();
    // For another device, as an answer to another request, and for a key that was replaced before.
    let mut other = order.clone();
    other.device = DeviceId::from_random([8; 16]);
    let refused = check(&other.sign(&key(12), NOW).unwrap());
    assert!(matches!(refused, Err(TrustError::WrongDevice)));
    let mut other = order.clone();
    other.nonce = "44556677".into();
    let refused = check(&other.sign(&key(12), NOW).unwrap());
    assert!(matches!(refused, Err(TrustError::WrongNonce)));
    let mut other = order.clone();
    other.replaces = key(41).public().to_string();
    let refused = check(&other.sign(&key(12), NOW).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("does not use"), "{refused}");
    // After its time; and not for years.
    let late = NOW.plus(lifetime::ASSIGNMENT + lifetime::ASSIGNMENT_MAX);
    let strict = Clock {
        strict: true,
        ..sane(late)
    };
    order.verify(&trusted, good.as_bytes(), strict).unwrap_err();
    let mut body: serde_json::Value = serde_json::from_str(&good).unwrap();
    body["signed"]["expires"] = json!(NOW.plus(lifetime::ROOT).to_string());
    let text = sign(body["signed"].clone(), &[&key(12)])
        .unwrap()
        .to_bytes();
    let refused = order.verify(&trusted, &text, sane(NOW));
    assert!(matches!(refused, Err(TrustError::TooLongLived)));
    // Neither document of the director passes for the other.
    let assignment = draft("1.1.0").sign(&key(12)).unwrap().to_bytes();
    order.verify(&trusted, &assignment, sane(NOW)).unwrap_err();
    assert!(check_with(&trusted, good.as_bytes(), "1.0.0").is_err());
}

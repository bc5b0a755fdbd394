//! Signers whose clocks are ahead: what they sign is refused, and where it was taken all the same it
//! strands no device.

use std::time::Duration;

use tidegate_protocol::Timestamp;
use tidegate_trust::assignment::Clock;
use tidegate_trust::verify::Refresh;
use tidegate_trust::{Delegation, Floors, Policy, TrustError, UploadedFile, lifetime, sign};

use crate::common::*;

/// Three years later than it is.
fn far() -> Timestamp {
    NOW.plus(Duration::from_hours(3 * 365 * 24))
}

/// A new version of each offline file, signed at a time, with its role's name.
fn files(issued: Timestamp) -> [(&'static str, Vec<u8>); 3] {
    let mut top = root(2);
    top.issued = issued;
    let delegations = vec![
        Delegation::product(&role(), one("releases", 3)),
        Delegation::director(key(12).public()),
    ];
    let mut middle = targets(2, delegations);
    middle.issued = issued;
    let mut leaf = Server::product(2, &["1.0.0", "1.1.0"], Policy::default());
    leaf.issued = issued;
    leaf.expires = issued.plus(lifetime::ROLE);
    [
        ("root", sign(top.body(), &[&key(1)]).unwrap().to_bytes()),
        (
            "targets",
            sign(middle.body(), &[&key(2)]).unwrap().to_bytes(),
        ),
        (
            "app-stable",
            sign(leaf.body(), &[&key(3)]).unwrap().to_bytes(),
        ),
    ]
}

#[test]
fn a74_a_file_from_the_future_is_not_taken_by_the_server() {
    for (ahead, good) in [(4 * 60, true), (6 * 60, false), (100_000_000, false)] {
        for (name, bytes) in files(NOW.plus(Duration::from_secs(ahead))) {
            let uploaded = Server::new().upload(name, &bytes);
            assert_eq!(
                uploaded.is_ok(),
                good,
                "{name}, {ahead} s ahead: {uploaded:?}"
            );
            if let Err(error) = uploaded {
                assert!(error.to_string().contains("set the clock"), "{error}");
            }
        }
    }
}

/// A server that has taken files of a signer whose clock was years ahead.
fn careless() -> Server {
    let mut server = Server::new();
    for (name, bytes) in files(far()) {
        let role = name.to_owned();
        let file = UploadedFile {
            role,
            bytes: bytes.clone(),
        };
        let version = server.repository.accept(&file, Timestamp::ZERO).unwrap();
        let version = version.unwrap();
        server.files.insert(format!("{version}.{name}.json"), bytes);
    }
    server.sign_online();
    server
}

#[test]
fn a74_a_signers_clock_that_is_years_ahead_strands_no_device() {
    let server = careless();
    let (trusted, _) = server.refresh(server.first(), Timestamp::ZERO).unwrap();
    let floor = trusted.time_floor().unwrap();
    assert!(floor <= NOW.plus(lifetime::TIMESTAMP), "{floor}");
    // With the answer that it goes with, it is not even hours ahead.
    let bytes = draft("1.1.0").sign(&key(12)).unwrap().to_bytes();
    let accepted = check_with(&trusted, &bytes, "1.0.0").unwrap();
    assert_eq!(accepted.time_floor, NOW);
    let clock = Clock {
        floor: accepted.time_floor,
        ..sane(NOW)
    };
    check_in(&trusted, &bytes, "1.0.0", None, clock).unwrap();
}

/// Refreshes a device that believes a time to have passed.
fn look(server: &Server, believes: Timestamp) -> Result<Refresh, TrustError> {
    let mut refresh = Refresh::start(server.first(), Floors::default(), role(), believes)?;
    while let Some(request) = refresh.request() {
        refresh.answer(server.files.get(&request.file).cloned())?;
    }
    Ok(refresh)
}

#[test]
fn a74_a_device_that_was_stranded_is_turned_back_by_the_next_root_alone() {
    let mut server = Server::new();
    let error = look(&server, far()).map(drop).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    // New files of others do not help, and a root that says so without its keys does not either.
    server.publish(2, &["1.0.0", "1.1.0", "1.2.0"], Policy::default());
    assert!(look(&server, far()).is_err());
    let stolen = sign(root(2).body(), &[&key(11)]).unwrap().to_bytes();
    server.files.insert("2.root.json".into(), stolen);
    assert!(look(&server, far()).is_err());
    let next = sign(root(2).body(), &[&key(1)]).unwrap().to_bytes();
    server.files.insert("2.root.json".into(), next);
    let refresh = look(&server, far()).unwrap();
    assert_eq!(refresh.turned_back(), Some(NOW));
    refresh.finish().unwrap();
    // It lowers nothing where nothing is ahead.
    let earlier = Timestamp::from_secs(NOW.as_secs() - 60);
    assert_eq!(look(&server, earlier).unwrap().turned_back(), None);
    // The same root again is no news.
    let seen = server.seen();
    let again = Refresh::start(seen, Floors::default(), role(), far());
    let mut again = again.unwrap();
    assert!(again.answer(None).is_err());
}

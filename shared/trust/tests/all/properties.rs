//! Properties: whatever a server serves, in whatever order, trusted versions never fall, and what
//! is accepted is always in an offline-signed role.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate_trust::assignment::{self, Situation};
use tidegate_trust::verify::{Refresh, TrustedFiles};
use tidegate_trust::{FileFacts, Floors, Policy, sign};

use crate::common::*;

/// One thing that the thief serves: offline-signed role versions, mixed with their own.
#[derive(Debug, Clone)]
struct Served {
    /// Version of the role that is served, signed or forged.
    role: u64,
    forged: bool,
    /// Version numbers of snapshot and timestamp.
    snapshot: u64,
    timestamp: u64,
    /// Whether the device has lost its files (its journal is intact).
    lost: bool,
}

fn served() -> impl Strategy<Value = Served> {
    (
        1..4u64,
        any::<bool>(),
        1..6u64,
        1..6u64,
        prop::bool::weighted(0.2),
    )
        .prop_map(|(role, forged, snapshot, timestamp, lost)| Served {
            role,
            forged,
            snapshot,
            timestamp,
            lost,
        })
}

/// Releases that the offline keys listed, by role version.
const SIGNED: [&[&str]; 3] = [
    &["1.0.0"],
    &["1.0.0", "1.1.0"],
    &["1.0.0", "1.1.0", "1.2.0"],
];

fn serve(server: &Server, what: &Served) -> BTreeMap<String, Vec<u8>> {
    let mut files = server.files.clone();
    let index = usize::try_from(what.role).unwrap() - 1;
    let bytes = if what.forged {
        let body = Server::product(what.role, &["1.0.0", "6.6.6"], Policy::default()).body();
        sign(body, &[&key(10), &key(11), &key(12)])
            .unwrap()
            .to_bytes()
    } else {
        let body = Server::product(what.role, SIGNED[index], Policy::default()).body();
        sign(body, &[&key(3)]).unwrap().to_bytes()
    };
    let mut pins = server.repository.pins();
    pins.insert("app-stable".into(), FileFacts::of(what.role, &bytes));
    files.insert(format!("{}.app-stable.json", what.role), bytes);
    let body = tidegate_trust::snapshot_body(
        what.snapshot,
        NOW.plus(tidegate_trust::lifetime::SNAPSHOT),
        &pins,
    );
    let snapshot = sign(body, &[&key(10)]).unwrap().to_bytes();
    let body = tidegate_trust::timestamp_body(
        what.timestamp,
        NOW.plus(tidegate_trust::lifetime::TIMESTAMP),
        FileFacts::of(what.snapshot, &snapshot),
    );
    files.insert(format!("{}.snapshot.json", what.snapshot), snapshot);
    let timestamp = sign(body, &[&key(11)]).unwrap().to_bytes();
    files.insert("timestamp.json".into(), timestamp);
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn versions_never_fall_and_only_signed_releases_are_taken(
        sequence in prop::collection::vec(served(), 1..12),
    ) {
        let server = Server::new();
        let (mut files, mut floors) = (server.first(), Floors::default());
        for what in sequence {
            if what.lost {
                files = server.first();
            }
            let served = serve(&server, &what);
            let before = floors.clone();
            let mut refresh =
                Refresh::start(files.clone(), floors.clone(), role(), NOW).unwrap();
            let mut refused = false;
            while let Some(request) = refresh.request() {
                if refresh.answer(served.get(&request.file).cloned()).is_err() {
                    refused = true;
                    break;
                }
            }
            // Kept whatever the outcome, as the agent does.
            files = refresh.files().clone();
            floors = refresh.floors().clone();
            prop_assert!(floors.timestamp.version >= before.timestamp.version);
            prop_assert!(floors.snapshot.version >= before.snapshot.version);
            prop_assert!(floors.targets.version >= before.targets.version);
            prop_assert!(floors.role.version >= before.role.version);
            if refused {
                continue;
            }
            // Equal versions are no news: then the kept files count, which people signed.
            let trusted = refresh.finish().unwrap();
            let version = usize::try_from(trusted.role().version).unwrap();
            for release in ["1.0.0", "1.1.0", "1.2.0", "6.6.6"] {
                let order = draft(release).sign(&key(12)).unwrap().to_bytes();
                let platform = platform();
                let situation = Situation {
                    device: draft(release).terms.device,
                    platform: &platform,
                    nonce: NONCE,
                    counter: 7,
                    kept: None,
                    installed: None,
                    floor: None,
                    clock: sane(NOW),
                    agent: None,
                    formats: &["tar"],
                };
                let listed = SIGNED[version - 1].contains(&release);
                let verdict = assignment::verify(&trusted, &order, &situation);
                prop_assert_eq!(verdict.is_ok(), listed, "{} {:?}", release, verdict);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_verifier_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let server = Server::new();
        let trusted = server.trusted();
        prop_assert!(check_with(&trusted, &bytes, "1.0.0").is_err());
        let start = Refresh::start(
            TrustedFiles { root: bytes.clone(), ..TrustedFiles::default() },
            Floors::default(),
            role(),
            NOW,
        );
        prop_assert!(start.is_err());
        let mut refresh = Refresh::start(server.first(), Floors::default(), role(), NOW).unwrap();
        prop_assert!(refresh.answer(Some(bytes)).is_err());
    }
}

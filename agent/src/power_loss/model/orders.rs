//! Signed metadata and orders of the model.

use tidegate_protocol::{Channel, DeviceId, Platform, Timestamp};
use tidegate_trust::assignment::{Draft, Terms};
use tidegate_trust::verify::{Refresh, Trusted, TrustedFiles};
use tidegate_trust::{
    Delegation, FileFacts, Floors, Holder, ImageFacts, ImagePath, Policy, ProductRole, Quorum,
    Repository, RoleName, RootRole, SecretKey, TopTargets, UploadedFile, lifetime, sign,
    snapshot_body, timestamp_body,
};

use super::VERSIONS;
use super::versions::Versions;

/// Time at which everything was signed.
pub(super) const SIGNED: Timestamp = Timestamp::from_secs(1_800_000_000);

/// Metadata that a device trusts, and the signer of its orders.
pub(super) struct Orders {
    pub(super) trusted: Trusted,
    pub(super) device: DeviceId,
    pub(super) platform: Platform,
    images: Vec<(ImagePath, ImageFacts)>,
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn one(name: &str, n: u8) -> Quorum {
    Quorum::one(Holder::machine(name, key(n).public()))
}

impl Orders {
    pub(super) fn new(versions: &Versions) -> Self {
        let role = RoleName::new("app".parse().unwrap(), Channel::Stable);
        let platform: Platform = "linux-arm".parse().unwrap();
        let images: Vec<(ImagePath, ImageFacts)> = (0..VERSIONS)
            .map(|n| {
                let installed = versions.installed(n);
                let path = ImagePath {
                    role: role.clone(),
                    release: installed.release.clone(),
                    platform: platform.clone(),
                };
                let facts = ImageFacts {
                    image: installed.image,
                    release: installed.release,
                    hw: vec![platform.clone()],
                    format: installed.format,
                    min_from: None,
                    min_agent: None,
                    stepping_stone: false,
                    allow_rollback: true,
                    health: None,
                };
                (path, facts)
            })
            .collect();
        let root = RootRole {
            version: 1,
            issued: SIGNED,
            expires: SIGNED.plus(lifetime::ROOT),
            root: one("root", 1),
            targets: one("targets", 2),
            snapshot: one("snapshot", 10),
            timestamp: one("timestamp", 11),
        };
        let top = TopTargets {
            version: 1,
            issued: SIGNED,
            expires: SIGNED.plus(lifetime::TARGETS),
            delegations: vec![
                Delegation::product(&role, one("releases", 3)),
                Delegation::director(key(12).public()),
            ],
        };
        let product = ProductRole {
            name: role.clone(),
            version: 1,
            issued: SIGNED,
            expires: SIGNED.plus(lifetime::ROLE),
            policy: Policy::default(),
            images: images.iter().cloned().collect(),
        };
        let mut repository = Repository::default();
        let mut files = std::collections::BTreeMap::new();
        for (name, body, by) in [
            ("root", root.body(), 1),
            ("targets", top.body(), 2),
            ("app-stable", product.body(), 3),
        ] {
            let bytes = sign(body, &[&key(by)]).unwrap().to_bytes();
            let file = UploadedFile {
                role: name.into(),
                bytes: bytes.clone(),
            };
            repository.accept(&file, SIGNED).unwrap();
            files.insert(format!("1.{name}.json"), bytes);
        }
        let expires = SIGNED.plus(lifetime::SNAPSHOT);
        let snapshot = snapshot_body(1, expires, &repository.pins());
        let snapshot = sign(snapshot, &[&key(10)]).unwrap().to_bytes();
        let expires = SIGNED.plus(lifetime::TIMESTAMP);
        let timestamp = timestamp_body(1, expires, FileFacts::of(1, &snapshot));
        let timestamp = sign(timestamp, &[&key(11)]).unwrap().to_bytes();
        files.insert("1.snapshot.json".into(), snapshot);
        files.insert("timestamp.json".into(), timestamp);
        let first = TrustedFiles {
            root: files["1.root.json"].clone(),
            ..TrustedFiles::default()
        };
        let mut refresh = Refresh::start(first, Floors::default(), role, SIGNED).unwrap();
        while let Some(wanted) = refresh.request() {
            refresh.answer(files.get(&wanted.file).cloned()).unwrap();
        }
        Self {
            trusted: refresh.finish().unwrap(),
            device: DeviceId::from_random([9; 16]),
            platform,
            images,
        }
    }

    /// Signs the assignment of a version, as the answer to a device.
    pub(super) fn assign(&self, to: usize, counter: u64, time: Timestamp, terms: Terms) -> Vec<u8> {
        let (path, facts) = &self.images[to];
        let draft = Draft {
            counter,
            time,
            path: path.clone(),
            image: facts.image,
            terms,
        };
        draft.sign(&key(12)).unwrap().to_bytes()
    }
}

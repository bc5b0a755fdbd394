//! A fixed repository, signed by known keys, and a device that has seen it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;
use tidegate_protocol::{
    Channel, DeploymentId, DeviceId, Image, Platform, Sha256, Timestamp, Version,
};
use tidegate_trust::assignment::{Action, Draft, Payload, Terms};
use tidegate_trust::verify::{Refresh, Trusted, TrustedFiles};
use tidegate_trust::{
    Delegation, FileFacts, Floors, Holder, ImageFacts, ImagePath, MlDsaSecret, Policy, ProductRole,
    Quorum, Repository, RoleName, RoleSigner, RootRole, SecretKey, Signed, TopTargets, TrustError,
    UploadedFile, lifetime, sign, signed_version, snapshot_body, timestamp_body,
};

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
pub(crate) const NONCE: &str = "00112233";
/// The counter that the device sent.
pub(crate) const COUNTER: u64 = 7;

/// Holders of the keys.
pub(crate) mod keys {
    pub(crate) const ROOT: u8 = 1;
    pub(crate) const TARGETS: u8 = 2;
    pub(crate) const RELEASES: u8 = 3;
    pub(crate) const SNAPSHOT: u8 = 10;
    pub(crate) const TIMESTAMP: u8 = 11;
    pub(crate) const DIRECTOR: u8 = 12;
    pub(crate) const HOLDER: u8 = 20;
    pub(crate) const ALL: [u8; 7] = [
        ROOT, TARGETS, RELEASES, SNAPSHOT, TIMESTAMP, DIRECTOR, HOLDER,
    ];
}

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(World::new);

/// Everything that was ever signed.
pub(crate) struct World {
    /// Files that the server has accepted.
    pub(crate) repository: Repository,
    /// Files that it serves, by name.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The next versions, signed but not served, by role.
    pub(crate) next: BTreeMap<&'static str, Vec<u8>>,
    /// Public key files.
    pub(crate) holders: Vec<Vec<u8>>,
    /// Good assignments.
    pub(crate) assignments: Vec<Vec<u8>>,
    /// Files kept by a device that has seen the repository.
    pub(crate) kept: TrustedFiles,
    pub(crate) floors: Floors,
    pub(crate) trusted: Trusted,
    bodies: Vec<Value>,
}

impl World {
    fn new() -> Self {
        let (root, targets, role) = (root(1), targets(1), product(1, &["1.0.0", "1.1.0"]));
        let mut repository = Repository::default();
        let mut files = BTreeMap::new();
        for (name, bytes) in [("root", root), ("targets", targets), (ROLE, role)] {
            upload(&mut repository, name, &bytes).expect("the seed is good");
            files.insert(format!("1.{name}.json"), bytes);
        }
        files.extend(online(1, &repository.pins()));
        let mut refresh = Refresh::start(first(&files), Floors::default(), role_name(), NOW)
            .expect("the root is good");
        drive(&mut refresh, |file| files.get(file).cloned()).expect("the repository is good");
        let (kept, floors) = (refresh.files().clone(), refresh.floors().clone());
        let trusted = refresh.finish().expect("the refresh is complete");

        let mut next = BTreeMap::from([
            ("root", self::root(2)),
            ("targets", self::targets(2)),
            (ROLE, product(2, &["1.0.0", "1.1.0", "2.0.0"])),
        ]);
        for (file, bytes) in online(2, &repository.pins()) {
            let role = if file.contains("snapshot") {
                "snapshot"
            } else {
                "timestamp"
            };
            next.insert(role, bytes);
        }
        let (ed25519, ml_dsa) = (key(keys::HOLDER), MlDsaSecret::from_seed([21; 32]));
        let holders = vec![holder(&[&ed25519]), holder(&[&ed25519, &ml_dsa])];
        let assignments: Vec<Vec<u8>> = [("1.1.0", Action::Install), ("1.0.0", Action::Rollback)]
            .into_iter()
            .map(|(release, action)| assignment(release, action))
            .collect();
        let bodies = files
            .values()
            .chain(next.values())
            .chain(&holders)
            .chain(&assignments)
            .filter_map(|bytes| body(bytes))
            .collect();
        Self {
            repository,
            files,
            next,
            holders,
            assignments,
            kept,
            floors,
            trusted,
            bodies,
        }
    }

    /// Returns whether a file says something that one of the keys has signed.
    pub(crate) fn was_signed(&self, bytes: &[u8]) -> bool {
        body(bytes).is_some_and(|body| self.bodies.contains(&body))
    }

    /// Files of a device that joins now.
    pub(crate) fn first(&self) -> TrustedFiles {
        first(&self.files)
    }

    /// Files that a thief of the online keys serves to make a device read these bytes as a role.
    pub(crate) fn serve(&self, role: &str, bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.files.clone();
        let version = signed_version(bytes).unwrap_or(2);
        if role == "snapshot" {
            let facts = FileFacts::of(version, bytes);
            files.insert("timestamp.json".into(), timestamp(2, facts));
        } else {
            let mut pins = self.repository.pins();
            pins.insert(role.into(), FileFacts::of(version, bytes));
            files.extend(online(2, &pins));
        }
        files.insert(format!("{version}.{role}.json"), bytes.to_vec());
        files
    }
}

/// The device's product-channel role.
pub(crate) const ROLE: &str = "app-stable";

pub(crate) fn role_name() -> RoleName {
    RoleName::new("app".parse().expect("a name"), Channel::Stable)
}

pub(crate) fn platform() -> Platform {
    "linux-x86_64".parse().expect("a platform")
}

pub(crate) fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

pub(crate) fn device() -> DeviceId {
    DeviceId::from_random([9; 16])
}

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

/// The signed part of a file.
pub(crate) fn body(bytes: &[u8]) -> Option<Value> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    Some(document.get_mut("signed")?.take())
}

/// The same document with the signature of a key alone: the holder of the key is hostile.
pub(crate) fn sign_again(bytes: &[u8], key: &SecretKey) -> Option<Vec<u8>> {
    let body = Signed::from_bytes("input", bytes).ok()?.body().clone();
    Some(sign(body, &[key]).ok()?.to_bytes())
}

/// Hands a file to a server.
pub(crate) fn upload(
    repository: &mut Repository,
    role: &str,
    bytes: &[u8],
) -> Result<Option<u64>, TrustError> {
    let file = UploadedFile {
        role: role.into(),
        bytes: bytes.to_vec(),
    };
    repository.accept(&file, NOW)
}

/// Answers a refresh until it wants nothing more.
pub(crate) fn drive(
    refresh: &mut Refresh,
    serve: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<(), TrustError> {
    while let Some(request) = refresh.request() {
        refresh.answer(serve(&request.file))?;
    }
    Ok(())
}

fn first(files: &BTreeMap<String, Vec<u8>>) -> TrustedFiles {
    TrustedFiles {
        root: files["1.root.json"].clone(),
        ..TrustedFiles::default()
    }
}

fn signed(body: Value, n: u8) -> Vec<u8> {
    sign(body, &[&key(n)]).expect("it can be signed").to_bytes()
}

fn one(name: &str, n: u8) -> Quorum {
    Quorum::one(Holder::machine(name, key(n).public()))
}

fn root(version: u64) -> Vec<u8> {
    let role = RootRole {
        version,
        issued: NOW,
        expires: NOW.plus(lifetime::ROOT),
        root: one("root", keys::ROOT),
        targets: one("targets", keys::TARGETS),
        snapshot: one("snapshot", keys::SNAPSHOT),
        timestamp: one("timestamp", keys::TIMESTAMP),
    };
    signed(role.body(), keys::ROOT)
}

fn targets(version: u64) -> Vec<u8> {
    let role = TopTargets {
        version,
        issued: NOW,
        expires: NOW.plus(lifetime::TARGETS),
        delegations: vec![
            Delegation::product(&role_name(), one("releases", keys::RELEASES)),
            Delegation::director(key(keys::DIRECTOR).public()),
        ],
    };
    signed(role.body(), keys::TARGETS)
}

fn product(version: u64, releases: &[&str]) -> Vec<u8> {
    let role = ProductRole {
        name: role_name(),
        version,
        issued: NOW,
        expires: NOW.plus(lifetime::ROLE),
        policy: Policy::default(),
        images: releases.iter().map(|r| (path(r), facts(r))).collect(),
    };
    signed(role.body(), keys::RELEASES)
}

fn path(release: &str) -> ImagePath {
    ImagePath {
        role: role_name(),
        release: version(release),
        platform: platform(),
    }
}

fn image(release: &str) -> Image {
    Image {
        sha256: digest(release),
        length: 1_000,
    }
}

fn digest(text: &str) -> Sha256 {
    FileFacts::of(1, text.as_bytes()).sha256
}

fn facts(release: &str) -> ImageFacts {
    ImageFacts {
        image: image(release),
        release: version(release),
        hw: vec![platform()],
        format: ImageFacts::TAR.into(),
        min_from: None,
        min_agent: None,
        stepping_stone: false,
        allow_rollback: true,
        health: None,
    }
}

fn timestamp(version: u64, snapshot: FileFacts) -> Vec<u8> {
    let body = timestamp_body(version, NOW.plus(lifetime::TIMESTAMP), snapshot);
    signed(body, keys::TIMESTAMP)
}

/// Snapshot and timestamp over these pins.
fn online(version: u64, pins: &BTreeMap<String, FileFacts>) -> [(String, Vec<u8>); 2] {
    let body = snapshot_body(version, NOW.plus(lifetime::SNAPSHOT), pins);
    let snapshot = signed(body, keys::SNAPSHOT);
    let timestamp = timestamp(version, FileFacts::of(version, &snapshot));
    [
        (format!("{version}.snapshot.json"), snapshot),
        ("timestamp.json".into(), timestamp),
    ]
}

fn holder(signers: &[&dyn RoleSigner]) -> Vec<u8> {
    let keys = signers.iter().map(|s| s.role_key()).collect();
    let holder = Holder::new("person-1", keys).expect("a holder");
    holder.to_file(signers).expect("it can be signed")
}

fn assignment(release: &str, action: Action) -> Vec<u8> {
    let draft = Draft {
        counter: COUNTER + 1,
        time: NOW,
        path: path(release),
        image: image(release),
        terms: Terms {
            device: device(),
            nonce: NONCE.into(),
            action,
            deployment: DeploymentId::from_random([4; 16]),
            rollback_window_s: 60,
            again: false,
            switch_within_s: None,
            payloads: vec![Payload {
                manifest: digest(release),
                manifest_length: 10,
                from: None,
                bytes: 10,
            }],
        },
    };
    let signed = draft.sign(&key(keys::DIRECTOR));
    signed.expect("it can be signed").to_bytes()
}

//! A repository made by people and a server, and a device that looks at it.

use std::collections::BTreeMap;

use tidegate_protocol::{
    Channel, DeploymentId, DeviceId, Image, Platform, Sha256, Timestamp, Version,
};
use tidegate_trust::assignment::{self, Action, Clock, Draft, Payload, Situation, Terms};
use tidegate_trust::verify::{Refresh, Trusted, TrustedFiles};
use tidegate_trust::{
    Delegation, FileFacts, Floors, Holder, ImageFacts, ImagePath, Policy, ProductRole, Quorum,
    Repository, RoleName, RootRole, SecretKey, TopTargets, TrustError, UploadedFile, lifetime,
    sign, snapshot_body, timestamp_body,
};

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
pub(crate) const NONCE: &str = "00112233";

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

pub(crate) fn one(name: &str, n: u8) -> Quorum {
    Quorum::one(Holder::machine(name, key(n).public()))
}

pub(crate) fn v(text: &str) -> Version {
    text.parse().unwrap()
}

pub(crate) fn role() -> RoleName {
    RoleName::new("app".parse().unwrap(), Channel::Stable)
}

pub(crate) fn path(release: &str) -> ImagePath {
    ImagePath {
        role: role(),
        release: v(release),
        platform: platform(),
    }
}

pub(crate) fn platform() -> Platform {
    "linux-x86_64".parse().unwrap()
}

pub(crate) fn image(release: &str) -> Image {
    Image {
        sha256: tidegate_test_digest(release),
        length: 1_000,
    }
}

pub(crate) fn tidegate_test_digest(text: &str) -> Sha256 {
    FileFacts::of(1, text.as_bytes()).sha256
}

pub(crate) fn facts(release: &str) -> ImageFacts {
    ImageFacts {
        image: image(release),
        release: v(release),
        hw: vec![platform()],
        format: ImageFacts::TAR.into(),
        min_from: None,
        min_agent: None,
        stepping_stone: false,
        allow_rollback: true,
        health: None,
    }
}

/// A server and all the files that it serves, by name.
pub(crate) struct Server {
    pub(crate) repository: Repository,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) online: u64,
}

impl Server {
    pub(crate) fn new() -> Self {
        let mut server = Self {
            repository: Repository::default(),
            files: BTreeMap::new(),
            online: 0,
        };
        let root = RootRole {
            version: 1,
            issued: NOW,
            expires: NOW.plus(lifetime::ROOT),
            root: one("root", 1),
            targets: one("targets", 2),
            snapshot: one("snapshot", 10),
            timestamp: one("timestamp", 11),
        };
        server
            .upload("root", &sign(root.body(), &[&key(1)]).unwrap().to_bytes())
            .unwrap();
        let targets = TopTargets {
            version: 1,
            issued: NOW,
            expires: NOW.plus(lifetime::TARGETS),
            delegations: vec![
                Delegation::product(&role(), one("releases", 3)),
                Delegation::director(key(12).public()),
            ],
        };
        server
            .upload(
                "targets",
                &sign(targets.body(), &[&key(2)]).unwrap().to_bytes(),
            )
            .unwrap();
        server.publish(1, &["1.0.0", "1.1.0"], Policy::default());
        server
    }

    pub(crate) fn product(version: u64, releases: &[&str], policy: Policy) -> ProductRole {
        ProductRole {
            name: role(),
            version,
            issued: NOW,
            expires: NOW.plus(lifetime::ROLE),
            policy,
            images: releases.iter().map(|r| (path(r), facts(r))).collect(),
        }
    }

    pub(crate) fn publish(&mut self, version: u64, releases: &[&str], policy: Policy) {
        let body = Self::product(version, releases, policy).body();
        self.upload("app-stable", &sign(body, &[&key(3)]).unwrap().to_bytes())
            .unwrap();
        self.sign_online();
    }

    pub(crate) fn upload(&mut self, name: &str, bytes: &[u8]) -> Result<(), TrustError> {
        let file = UploadedFile {
            role: name.into(),
            bytes: bytes.to_vec(),
        };
        if let Some(version) = self.repository.accept(&file, NOW)? {
            self.files
                .insert(format!("{version}.{name}.json"), bytes.to_vec());
        }
        Ok(())
    }

    pub(crate) fn sign_online(&mut self) {
        self.online += 1;
        let pins = self.repository.pins();
        let snapshot = snapshot_body(self.online, NOW.plus(lifetime::SNAPSHOT), &pins);
        let snapshot = sign(snapshot, &[&key(10)]).unwrap().to_bytes();
        let facts = FileFacts::of(self.online, &snapshot);
        let timestamp = timestamp_body(self.online, NOW.plus(lifetime::TIMESTAMP), facts);
        let timestamp = sign(timestamp, &[&key(11)]).unwrap().to_bytes();
        self.files
            .insert(format!("{}.snapshot.json", self.online), snapshot);
        self.files.insert("timestamp.json".into(), timestamp);
    }

    pub(crate) fn refresh(
        &self,
        files: TrustedFiles,
        now: Timestamp,
    ) -> Result<(Trusted, TrustedFiles), TrustError> {
        let mut refresh = Refresh::start(files, Floors::default(), role(), now)?;
        while let Some(request) = refresh.request() {
            refresh.answer(self.files.get(&request.file).cloned())?;
        }
        let files = refresh.files().clone();
        Ok((refresh.finish()?, files))
    }

    pub(crate) fn first(&self) -> TrustedFiles {
        TrustedFiles {
            root: self.files["1.root.json"].clone(),
            ..TrustedFiles::default()
        }
    }

    pub(crate) fn trusted(&self) -> Trusted {
        self.refresh(self.first(), NOW).unwrap().0
    }
}

pub(crate) fn sane(at: Timestamp) -> Clock {
    Clock {
        shows: at,
        floor: Timestamp::ZERO,
        strict: false,
    }
}

pub(crate) fn draft(release: &str) -> Draft {
    Draft {
        counter: 8,
        time: NOW,
        path: path(release),
        image: image(release),
        terms: Terms {
            device: DeviceId::from_random([9; 16]),
            nonce: NONCE.into(),
            action: Action::Install,
            deployment: DeploymentId::from_random([4; 16]),
            rollback_window_s: 60,
            again: false,
            switch_within_s: None,
            payloads: vec![Payload {
                manifest: image(release).sha256,
                manifest_length: 10,
                from: None,
                bytes: 10,
            }],
        },
    }
}

pub(crate) fn check(draft: &Draft) -> Result<assignment::Accepted, TrustError> {
    check_with(
        &Server::new().trusted(),
        &draft.sign(&key(12)).unwrap().to_bytes(),
        "1.0.0",
    )
}

pub(crate) fn check_with(
    trusted: &Trusted,
    bytes: &[u8],
    installed: &str,
) -> Result<assignment::Accepted, TrustError> {
    check_in(trusted, bytes, installed, None, sane(NOW))
}

pub(crate) fn check_in(
    trusted: &Trusted,
    bytes: &[u8],
    installed: &str,
    floor: Option<&str>,
    clock: Clock,
) -> Result<assignment::Accepted, TrustError> {
    check_as(trusted, bytes, installed, None, floor, clock)
}

/// Checks an assignment as a device that keeps a version from before its deployment.
pub(crate) fn check_keeping(
    trusted: &Trusted,
    bytes: &[u8],
    installed: &str,
    kept: Option<&ImageFacts>,
) -> Result<assignment::Accepted, TrustError> {
    check_as(trusted, bytes, installed, kept, None, sane(NOW))
}

fn check_as(
    trusted: &Trusted,
    bytes: &[u8],
    installed: &str,
    kept: Option<&ImageFacts>,
    floor: Option<&str>,
    clock: Clock,
) -> Result<assignment::Accepted, TrustError> {
    let (platform, installed, floor) = (platform(), v(installed), floor.map(v));
    let situation = Situation {
        device: DeviceId::from_random([9; 16]),
        platform: &platform,
        nonce: NONCE,
        counter: 7,
        kept,
        installed: Some(&installed),
        floor: floor.as_ref(),
        clock,
        agent: None,
        formats: &["tar"],
    };
    assignment::verify(trusted, bytes, &situation)
}

/// Actions of a thief of the online keys.
impl Server {
    /// Serves these bytes as a version of a role, pinned by signed snapshot and timestamp.
    pub(crate) fn serve_as_thief(&mut self, role: &str, version: u64, bytes: &[u8]) {
        self.files
            .insert(format!("{version}.{role}.json"), bytes.to_vec());
        let mut pins = self.repository.pins();
        pins.insert(role.into(), FileFacts::of(version, bytes));
        self.pin(&pins);
    }

    /// Signs snapshot and timestamp over these pins.
    pub(crate) fn pin(&mut self, pins: &BTreeMap<String, FileFacts>) {
        self.online += 1;
        let snapshot = snapshot_body(self.online, NOW.plus(lifetime::SNAPSHOT), pins);
        let snapshot = sign(snapshot, &[&key(10)]).unwrap().to_bytes();
        self.serve_snapshot(&snapshot, FileFacts::of(self.online, &snapshot));
    }

    /// Serves a snapshot and a timestamp that pins it with these facts.
    pub(crate) fn serve_snapshot(&mut self, snapshot: &[u8], facts: FileFacts) {
        self.files.insert(
            format!("{}.snapshot.json", facts.version),
            snapshot.to_vec(),
        );
        let body = timestamp_body(self.online, NOW.plus(lifetime::TIMESTAMP), facts);
        self.serve_timestamp(body);
    }

    /// Serves a timestamp with this body.
    pub(crate) fn serve_timestamp(&mut self, body: serde_json::Value) {
        let bytes = sign(body, &[&key(11)]).unwrap().to_bytes();
        self.files.insert("timestamp.json".into(), bytes);
    }

    /// Refreshes a new device from the server.
    pub(crate) fn look(&self) -> Result<Trusted, TrustError> {
        self.refresh(self.first(), NOW).map(|(trusted, _)| trusted)
    }

    /// Refreshes a device that has seen `files`.
    pub(crate) fn look_again(&self, files: &TrustedFiles) -> Result<Trusted, TrustError> {
        self.refresh(files.clone(), NOW).map(|(trusted, _)| trusted)
    }

    /// Returns the files that a device keeps after a refresh.
    pub(crate) fn seen(&self) -> TrustedFiles {
        self.refresh(self.first(), NOW).unwrap().1
    }

    /// Signs new delegations with the targets key and uploads them.
    pub(crate) fn delegate(&mut self, delegations: Vec<Delegation>) -> Result<(), TrustError> {
        let version = self.repository.version("targets") + 1;
        let body = targets(version, delegations).body();
        self.upload("targets", &sign(body, &[&key(2)]).unwrap().to_bytes())?;
        self.sign_online();
        Ok(())
    }
}

/// A root of this repository with another version.
pub(crate) fn root(version: u64) -> RootRole {
    RootRole {
        version,
        issued: NOW,
        expires: NOW.plus(lifetime::ROOT),
        root: one("root", 1),
        targets: one("targets", 2),
        snapshot: one("snapshot", 10),
        timestamp: one("timestamp", 11),
    }
}

/// Delegations under this repository's `targets`.
pub(crate) fn targets(version: u64, delegations: Vec<Delegation>) -> TopTargets {
    TopTargets {
        version,
        issued: NOW,
        expires: NOW.plus(lifetime::TARGETS),
        delegations,
    }
}

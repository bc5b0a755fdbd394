//! Memory that a refresh and the check of one role take: a PLC has little of it.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::collections::BTreeMap;

use peak_alloc::PeakAlloc;
use tidegate_protocol::{Channel, DeploymentId, DeviceId, Image, Platform, Timestamp, Version};
use tidegate_trust::assignment::{self, Action, Clock, Draft, Payload, Situation, Terms};
use tidegate_trust::verify::{Refresh, TrustedFiles};
use tidegate_trust::{
    Delegation, FileFacts, Floors, Holder, ImageFacts, ImagePath, MlDsaSecret, Policy, ProductRole,
    Quorum, RoleName, RoleSigner, RootRole, SecretKey, TopTargets, lifetime, sign, size_limit,
    snapshot_body, timestamp_body,
};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

struct Person(SecretKey, MlDsaSecret);

impl Person {
    fn new(n: u8) -> Self {
        Self(
            SecretKey::from_seed([n; 32]),
            MlDsaSecret::from_seed([n; 32]),
        )
    }

    fn holder(&self, n: usize) -> Holder {
        let keys = vec![self.0.role_key(), self.1.role_key()];
        Holder::new(&format!("person-{n}"), keys).unwrap()
    }
}

/// A hybrid repository of three people, whose role has the maximum size.
fn repository() -> (BTreeMap<String, Vec<u8>>, ImagePath, Image) {
    let people: Vec<Person> = (1..=3).map(Person::new).collect();
    let holders: Vec<Holder> = (0..).zip(&people).map(|(n, p)| p.holder(n)).collect();
    let two = Quorum::of_people(holders, 2);
    let signers: Vec<&dyn RoleSigner> = people[..2]
        .iter()
        .flat_map(|p| [&p.0 as &dyn RoleSigner, &p.1])
        .collect();
    let online = |n: u8| SecretKey::from_seed([n; 32]);
    let one = |n: u8| Quorum::one(Holder::machine("server", online(n).public()));
    let root = RootRole {
        version: 1,
        issued: NOW,
        expires: NOW.plus(lifetime::ROOT),
        root: two.clone(),
        targets: two.clone(),
        snapshot: one(10),
        timestamp: one(11),
    };
    root.check_quorums().unwrap();
    let name = RoleName::new("app".parse().unwrap(), Channel::Stable);
    let targets = TopTargets {
        version: 1,
        issued: NOW,
        expires: NOW.plus(lifetime::TARGETS),
        delegations: vec![
            Delegation::product(&name, two),
            Delegation::director(online(12).public()),
        ],
    };
    let platform: Platform = "linux-x86_64".parse().unwrap();
    let mut role = ProductRole {
        name: name.clone(),
        version: 1,
        issued: NOW,
        expires: NOW.plus(lifetime::ROLE),
        policy: Policy::default(),
        images: BTreeMap::new(),
    };
    for n in 0..720u32 {
        let release: Version = format!("1.{n}.0").parse().unwrap();
        let path = ImagePath {
            role: name.clone(),
            release: release.clone(),
            platform: platform.clone(),
        };
        let image = Image {
            sha256: FileFacts::of(1, &n.to_be_bytes()).sha256,
            length: 1_000,
        };
        let facts = ImageFacts {
            image,
            release,
            hw: vec![platform.clone()],
            format: ImageFacts::TAR.into(),
            min_from: None,
            min_agent: None,
            stepping_stone: false,
            allow_rollback: true,
            health: None,
        };
        role.images.insert(path, facts);
    }
    let (path, facts) = role.images.iter().next_back().unwrap();
    let (path, image) = (path.clone(), facts.image);
    let mut files = BTreeMap::new();
    let file = |body| sign(body, &signers).unwrap().to_bytes();
    files.insert("1.root.json".to_owned(), file(root.body()));
    files.insert("1.targets.json".to_owned(), file(targets.body()));
    files.insert("1.app-stable.json".to_owned(), file(role.body()));
    let pins = ["targets", "app-stable"]
        .map(|role| {
            let bytes = &files[&format!("1.{role}.json")];
            (role.to_owned(), FileFacts::of(1, bytes))
        })
        .into();
    let snapshot = snapshot_body(1, NOW.plus(lifetime::SNAPSHOT), &pins);
    let snapshot = sign(snapshot, &[&online(10)]).unwrap().to_bytes();
    let facts = FileFacts::of(1, &snapshot);
    let timestamp = timestamp_body(1, NOW.plus(lifetime::TIMESTAMP), facts);
    let timestamp = sign(timestamp, &[&online(11)]).unwrap().to_bytes();
    files.insert("1.snapshot.json".to_owned(), snapshot);
    files.insert("timestamp.json".to_owned(), timestamp);
    (files, path, image)
}

#[test]
fn a_refresh_and_the_check_of_the_largest_hybrid_role_stay_under_four_megabytes() {
    let (mut files, path, image) = repository();
    let size = files["1.app-stable.json"].len();
    assert!(
        (size_limit::ROLE * 9 / 10..=size_limit::ROLE).contains(&size),
        "the role has {size} bytes"
    );
    let draft = Draft {
        counter: 1,
        time: NOW,
        path: path.clone(),
        image,
        terms: Terms {
            device: DeviceId::from_random([9; 16]),
            nonce: "00".into(),
            action: Action::Install,
            deployment: DeploymentId::from_random([4; 16]),
            rollback_window_s: 60,
            again: false,
            switch_within_s: None,
            payloads: vec![Payload {
                manifest: image.sha256,
                manifest_length: 10,
                from: None,
                bytes: 10,
            }],
        },
    };
    let order = draft
        .sign(&SecretKey::from_seed([12; 32]))
        .unwrap()
        .to_bytes();
    let platform = path.platform.clone();
    let first = TrustedFiles {
        root: files["1.root.json"].clone(),
        ..TrustedFiles::default()
    };

    PEAK.reset_peak_usage();
    let before = PEAK.current_usage();
    let name = path.role.clone();
    let mut refresh = Refresh::start(first, Floors::default(), name, NOW).unwrap();
    while let Some(request) = refresh.request() {
        refresh.answer(files.remove(&request.file)).unwrap();
    }
    let trusted = refresh.finish().unwrap();
    let situation = Situation {
        device: draft.terms.device,
        platform: &platform,
        nonce: "00",
        counter: 0,
        kept: None,
        installed: None,
        floor: None,
        clock: Clock {
            shows: NOW,
            floor: NOW,
            strict: false,
        },
        agent: None,
        formats: &["tar"],
    };
    assignment::verify(&trusted, &order, &situation).unwrap();
    let used = PEAK.peak_usage() - before;
    println!("{used} bytes at most, with a role of {size} bytes");
    assert!(used < 4 << 20, "{used} bytes");
}

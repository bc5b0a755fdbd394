//! Signed metadata. Input: one byte, the place with two flags; then the file.

use tidegate_trust::assignment::{Clock, Situation};
use tidegate_trust::verify::{Refresh, TrustedFiles};
use tidegate_trust::{
    Holder, ProductRole, Repository, RoleKey, RoleSigner, RootRole, Signed, TOP_ROLES, TopTargets,
    assignment, sign,
};

use crate::Seed;
use crate::world::{
    COUNTER, NONCE, NOW, ROLE, WORLD, device, drive, key, keys, platform, role_name, sign_again,
    upload,
};

/// The holder of the key that signs this file signs whatever it says.
const HOSTILE: u8 = 0x80;
/// The device has seen the repository before; otherwise it joins now.
const SEEN: u8 = 0x40;

/// Place in which the bytes turn up. New ones go to the end: the seeds name them by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The device's first root.
    FirstRoot,
    /// Kept by a device, damaged since.
    KeptTimestamp,
    KeptSnapshot,
    KeptTargets,
    KeptRole,
    /// Answered by a server; the online keys are stolen and vouch for it.
    Root,
    Timestamp,
    Snapshot,
    Targets,
    Role,
    /// Uploaded by somebody.
    UploadFirstRoot,
    UploadRoot,
    UploadTargets,
    UploadRole,
    /// Read by a tool to edit or to sign it.
    EditRoot,
    EditTargets,
    EditRole,
    Draft,
    PublicKeys,
}

use Place::{
    Draft, EditRole, EditRoot, EditTargets, FirstRoot, KeptRole, KeptSnapshot, KeptTargets,
    KeptTimestamp, PublicKeys, Role, Root, Snapshot, Targets, Timestamp, UploadFirstRoot,
    UploadRole, UploadRoot, UploadTargets,
};

/// All variants in the order of the enum.
const PLACES: [Place; 19] = [
    FirstRoot,
    KeptTimestamp,
    KeptSnapshot,
    KeptTargets,
    KeptRole,
    Root,
    Timestamp,
    Snapshot,
    Targets,
    Role,
    UploadFirstRoot,
    UploadRoot,
    UploadTargets,
    UploadRole,
    EditRoot,
    EditTargets,
    EditRole,
    Draft,
    PublicKeys,
];

impl Place {
    /// Holder of the key that signs this kind of file.
    fn key(self) -> u8 {
        match self {
            FirstRoot | Root | UploadFirstRoot | UploadRoot | EditRoot | Draft => keys::ROOT,
            KeptTimestamp | Timestamp => keys::TIMESTAMP,
            KeptSnapshot | Snapshot => keys::SNAPSHOT,
            KeptTargets | Targets | UploadTargets | EditTargets => keys::TARGETS,
            KeptRole | Role | UploadRole | EditRole => keys::RELEASES,
            PublicKeys => keys::HOLDER,
        }
    }
}

/// One input.
pub fn run(data: &[u8]) {
    let Some((&head, bytes)) = data.split_first() else {
        return;
    };
    let (hostile, seen) = (head & HOSTILE != 0, head & SEEN != 0);
    let place = PLACES[usize::from(head & !(HOSTILE | SEEN)) % PLACES.len()];
    let again = hostile.then(|| sign_again(bytes, &key(place.key())));
    let bytes = match &again {
        None => bytes,
        Some(Some(bytes)) => bytes,
        Some(None) => return,
    };
    let accepted = match place {
        FirstRoot => start(bytes),
        KeptTimestamp | KeptSnapshot | KeptTargets | KeptRole => {
            kept(place, bytes, hostile);
            false
        }
        Root | Timestamp | Snapshot | Targets | Role => answer(place, bytes, seen, hostile),
        UploadFirstRoot => accept(Repository::default(), "root", bytes),
        UploadRoot => accept(WORLD.repository.clone(), "root", bytes),
        UploadTargets => accept(WORLD.repository.clone(), "targets", bytes),
        UploadRole => accept(WORLD.repository.clone(), ROLE, bytes),
        EditRoot | EditTargets | EditRole => {
            edit(place, bytes);
            false
        }
        Draft => draft(&WORLD.repository, bytes),
        PublicKeys => Holder::from_file(bytes).is_ok(),
    };
    assert!(
        !accepted || hostile || WORLD.was_signed(bytes),
        "nobody has signed this: {place:?}"
    );
}

fn start(root: &[u8]) -> bool {
    let files = TrustedFiles {
        root: root.to_vec(),
        ..TrustedFiles::default()
    };
    match Refresh::start(files, WORLD.floors.clone(), role_name(), NOW) {
        Ok(mut refresh) => {
            let _ = drive(&mut refresh, |file| WORLD.files.get(file).cloned());
            true
        }
        Err(_) => false,
    }
}

/// A damaged file strands nobody, and is replaced.
fn kept(place: Place, bytes: &[u8], hostile: bool) {
    let mut files = WORLD.kept.clone();
    let file = match place {
        KeptTimestamp => &mut files.timestamp,
        KeptSnapshot => &mut files.snapshot,
        KeptTargets => &mut files.targets,
        _ => &mut files.role,
    };
    *file = Some(bytes.to_vec());
    let mut refresh =
        Refresh::start(files, WORLD.floors.clone(), role_name(), NOW).expect("the root is whole");
    let result = drive(&mut refresh, |file| WORLD.files.get(file).cloned());
    if hostile || WORLD.was_signed(bytes) {
        // Its keys have signed it: it may well be newer than what is served.
        return;
    }
    result.expect("a damaged file is fetched again");
    assert_eq!(refresh.files(), &WORLD.kept);
}

fn answer(place: Place, bytes: &[u8], seen: bool, hostile: bool) -> bool {
    let files = match place {
        Root => [("2.root.json".to_owned(), bytes.to_vec())]
            .into_iter()
            .chain(WORLD.files.clone())
            .collect(),
        Timestamp => {
            let mut files = WORLD.files.clone();
            files.insert("timestamp.json".into(), bytes.to_vec());
            files
        }
        Snapshot => WORLD.serve("snapshot", bytes),
        Targets => WORLD.serve("targets", bytes),
        _ => WORLD.serve(ROLE, bytes),
    };
    let known = if seen {
        WORLD.kept.clone()
    } else {
        WORLD.first()
    };
    let before = &WORLD.floors;
    let mut refresh =
        Refresh::start(known, before.clone(), role_name(), NOW).expect("the root is whole");
    let result = drive(&mut refresh, |file| files.get(file).cloned());
    let (now, floors) = (refresh.files(), refresh.floors());
    assert!(floors.root >= before.root);
    // New keys make the versions under the old ones void; nobody else does.
    if !(hostile && matches!(place, Root | Targets)) {
        assert!(floors.timestamp.version >= before.timestamp.version);
        assert!(floors.snapshot.version >= before.snapshot.version);
        assert!(floors.targets.version >= before.targets.version);
        assert!(floors.role.version >= before.role.version);
    }
    let taken = match place {
        Root => now.root == bytes,
        Timestamp => now.timestamp.as_deref() == Some(bytes),
        Snapshot => now.snapshot.as_deref() == Some(bytes),
        Targets => now.targets.as_deref() == Some(bytes),
        _ => now.role.as_deref() == Some(bytes),
    };
    if result.is_ok() {
        decide(refresh);
    }
    taken
}

/// Runs an agent's complete refresh.
fn decide(refresh: Refresh) {
    let Ok(trusted) = refresh.finish() else {
        return;
    };
    let platform = platform();
    let situation = Situation {
        device: device(),
        platform: &platform,
        nonce: NONCE,
        counter: COUNTER,
        kept: None,
        installed: None,
        floor: None,
        clock: Clock {
            shows: NOW,
            floor: trusted.time_floor().unwrap_or(NOW),
            strict: false,
        },
        agent: None,
        formats: &["tar"],
    };
    for bytes in &WORLD.assignments {
        if let Ok(accepted) = assignment::verify(&trusted, bytes, &situation) {
            assert_eq!(
                Some(&accepted.facts),
                trusted.role().images.get(&accepted.path)
            );
        }
    }
}

fn accept(mut repository: Repository, role: &str, bytes: &[u8]) -> bool {
    let before = repository.version(role);
    let Ok(version) = upload(&mut repository, role, bytes) else {
        assert_eq!(
            repository.version(role),
            before,
            "refused, so nothing changes"
        );
        return false;
    };
    assert_eq!(repository.bytes(role), Some(bytes));
    if let Some(version) = version {
        assert_eq!(repository.version(role), version);
        assert!(version > before);
    }
    let again = upload(&mut repository, role, bytes);
    assert!(matches!(again, Ok(None)), "{again:?}");
    let _ = (repository.check_chain(), repository.pins());
    for role in TOP_ROLES.into_iter().chain([ROLE, "director"]) {
        let _ = repository.quorum(role);
    }
    draft(&repository, bytes);
    true
}

/// An editor writes back what it read, with the same meaning.
fn edit(place: Place, bytes: &[u8]) {
    let write = |body| sign(body, &[]).expect("it can be written").to_bytes();
    match place {
        EditRoot => {
            if let Ok(role) = RootRole::from_bytes(bytes) {
                let _ = (role.check_quorums(), RootRole::check(bytes));
                let again = RootRole::from_bytes(&write(role.body()));
                let again = again.expect("it survives being written");
                assert_eq!(
                    (again.version, again.root.threshold),
                    (role.version, role.root.threshold)
                );
            }
        }
        EditTargets => {
            if let Ok(role) = TopTargets::from_bytes(bytes) {
                let _ = role.check();
                let again = TopTargets::from_bytes(&write(role.body()));
                let again = again.expect("it survives being written");
                assert_eq!(again.delegations.len(), role.delegations.len());
            }
        }
        _ => {
            if let Ok(role) = ProductRole::from_bytes(&role_name(), bytes) {
                let again = ProductRole::from_bytes(&role_name(), &write(role.body()));
                let again = again.expect("it survives being written");
                assert_eq!((again.images, again.policy), (role.images, role.policy));
            }
        }
    }
}

/// A document that waits for signatures; gives whether it has one.
fn draft(repository: &Repository, bytes: &[u8]) -> bool {
    let Ok(draft) = Signed::from_bytes("draft", bytes) else {
        return false;
    };
    let again = Signed::from_bytes("draft", &draft.to_bytes());
    assert_eq!(again.expect("it survives being written"), draft);
    for role in ["root", "targets", ROLE] {
        let _ = repository.draft_keys(role, &draft);
    }
    let known: Vec<RoleKey> = keys::ALL.iter().map(|n| key(*n).role_key()).collect();
    let signers = draft.valid_signers(&known).unwrap_or_default();
    let mut empty = Signed::unsigned(draft.body().clone());
    let merged = empty.merge(&draft, &known).unwrap_or_default();
    assert_eq!(merged == 0, signers.is_empty());
    !signers.is_empty()
}

/// The same document, after whose version there is none.
fn last_version(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut document: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    document["signed"]["version"] = u64::MAX.into();
    serde_json::to_vec(&document).ok()
}

/// Each file in each place where it belongs, as it is and signed anew.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for place in PLACES {
        let (now, next) = (
            |name: &str| &WORLD.files[name],
            |role: &str| &WORLD.next[role],
        );
        let files = match place {
            FirstRoot | UploadFirstRoot => vec![now("1.root.json")],
            Root | UploadRoot | EditRoot => vec![next("root")],
            KeptTimestamp => vec![now("timestamp.json")],
            KeptSnapshot => vec![now("1.snapshot.json")],
            KeptTargets => vec![now("1.targets.json")],
            KeptRole => vec![now("1.app-stable.json")],
            Timestamp => vec![now("timestamp.json"), next("timestamp")],
            Snapshot => vec![next("snapshot")],
            Targets | UploadTargets | EditTargets => vec![next("targets")],
            Role | UploadRole | EditRole => vec![next(ROLE)],
            Draft => vec![next("root"), next("targets"), next(ROLE)],
            PublicKeys => WORLD.holders.iter().collect(),
        };
        for (number, bytes) in files.into_iter().enumerate() {
            let flags = match place {
                Root | Timestamp | Snapshot | Targets | Role => vec![SEEN, HOSTILE],
                UploadFirstRoot | UploadRoot | UploadTargets | UploadRole => vec![0, HOSTILE],
                _ => vec![0],
            };
            for flags in flags {
                let input = [&[place as u8 | flags], &bytes[..]].concat();
                seeds.push((format!("{place:?}-{number}-{flags:02x}"), input));
            }
        }
    }
    let last = last_version(&WORLD.files["1.root.json"]).expect("it is JSON");
    let input = [&[UploadFirstRoot as u8 | HOSTILE], &last[..]].concat();
    seeds.push(("UploadFirstRoot-last".to_owned(), input));
    seeds
}

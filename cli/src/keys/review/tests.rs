use std::time::Duration;

use tidegate_protocol::{Channel, Platform, Sha256, Version};
use tidegate_trust::{ImagePath, RoleName, SecretKey};

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn person(name: &str, seed: u8) -> Holder {
    Holder::machine(name, SecretKey::from_seed([seed; 32]).public())
}

fn two_of_three(seed: u8) -> Quorum {
    let holders = ["alice", "bob", "carol"];
    let holders = (seed..).zip(holders).map(|(n, name)| person(name, n));
    Quorum::of_people(holders.collect(), 2)
}

fn name() -> RoleName {
    RoleName::new("press".parse().unwrap(), Channel::Stable)
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn a_root() -> RootRole {
    RootRole {
        version: 3,
        issued: NOW,
        expires: NOW.plus(Duration::from_hours(100)),
        root: two_of_three(1),
        targets: two_of_three(4),
        snapshot: Quorum::one(person("server-snapshot", 7)),
        timestamp: Quorum::one(person("server-timestamp", 8)),
    }
}

fn a_targets() -> TopTargets {
    TopTargets {
        version: 3,
        issued: NOW,
        expires: NOW.plus(Duration::from_hours(100)),
        delegations: vec![
            Delegation::product(&name(), two_of_three(9)),
            Delegation::director(SecretKey::from_seed([12; 32]).public()),
        ],
    }
}

fn facts(release: &str) -> ImageFacts {
    ImageFacts {
        image: Image {
            sha256: Sha256::from_bytes([7; 32]),
            length: 3_072,
        },
        release: version(release),
        hw: vec!["linux-x86_64".parse().unwrap()],
        format: ImageFacts::TAR.into(),
        min_from: Some(version("1.5.0")),
        min_agent: Some(version("0.1.0")),
        stepping_stone: true,
        allow_rollback: true,
        health: Some(CommandLine {
            command: vec!["bin/check".into(), "--port 80".into()],
            timeout_s: 30,
        }),
    }
}

fn a_role() -> ProductRole {
    let platform: Platform = "linux-x86_64".parse().unwrap();
    let path = |release: &str| ImagePath {
        role: name(),
        release: version(release),
        platform: platform.clone(),
    };
    ProductRole {
        name: name(),
        version: 3,
        issued: NOW,
        expires: NOW.plus(Duration::from_hours(100)),
        policy: Policy {
            min_release: Some(version("1.0.0")),
            eol: vec![version("1.1.0")],
            notice: Some("be careful".into()),
        },
        images: ["2.0.0", "2.1.0"].map(|r| (path(r), facts(r))).into(),
    }
}

/// Role, file in force, and the same as the next version.
fn files() -> [(&'static str, Value, Value); 3] {
    let (mut root, mut targets, mut role) = (a_root(), a_targets(), a_role());
    let before = [root.body(), targets.body(), role.body()];
    (root.version, targets.version, role.version) = (4, 4, 4);
    let [a, b, c] = before;
    [
        ("root", a, root.body()),
        ("targets", b, targets.body()),
        ("press-stable", c, role.body()),
    ]
}

fn look(role: &str, present: &Value, next: Value) -> Result<String, CliError> {
    let present = Signed::unsigned(present.clone()).to_bytes();
    review(role, &Signed::unsigned(next), Some(&present), NOW)
}

/// Pointers of all values inside a document, the document itself first.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            for (name, inside) in map {
                places(inside, &format!("{at}/{}", escaped(name)), found);
            }
        }
        Value::Array(list) => {
            for (index, inside) in list.iter().enumerate() {
                places(inside, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Values that stand in for a value: of its kind, and of others.
fn others(value: &Value) -> Vec<Value> {
    let mut others = vec![
        Value::Null,
        Value::from("x"),
        Value::from(1),
        Value::from(true),
    ];
    match value {
        Value::String(text) => {
            others.extend(["9.9.9", "2031-01-01T00:00:00Z", "linux-arm", "raw"].map(Value::from));
            others.push(Value::from(format!("{text} ")));
            others.push(Value::from(text.replacen('0', "1", 1)));
            others.push(Value::from(text.replacen('7', "8", 1)));
        }
        Value::Number(number) => {
            others.push(Value::from(number.as_u64().unwrap_or(0) + 1));
            others.push(Value::from(0));
        }
        Value::Bool(value) => others.push(Value::from(!value)),
        Value::Array(list) => {
            others.push(Value::from(Vec::<Value>::new()));
            let mut twice = list.clone();
            twice.extend(list.first().cloned());
            others.push(Value::from(twice));
            others.push(Value::from(list.iter().rev().cloned().collect::<Vec<_>>()));
        }
        Value::Object(map) => {
            let mut more = map.clone();
            more.insert("x-new".into(), Value::from(1));
            others.push(Value::from(more));
            for name in map.keys() {
                let mut less = map.clone();
                less.remove(name);
                others.push(Value::from(less));
            }
        }
        Value::Null => {}
    }
    others.retain(|other| other != value);
    others
}

#[test]
fn each_field_of_each_signed_file_is_shown_or_the_file_is_refused() {
    let mut shown = 0;
    for (role, present, next) in files() {
        let unchanged = look(role, &present, next.clone()).unwrap();
        let mut all = Vec::new();
        places(&next, "", &mut all);
        for place in all {
            for other in others(next.pointer(&place).unwrap()) {
                let mut changed = next.clone();
                *changed.pointer_mut(&place).unwrap() = other.clone();
                match look(role, &present, changed) {
                    Ok(text) => {
                        assert_ne!(text, unchanged, "{role} {place} {other}");
                        shown += 1;
                    }
                    Err(error) => drop(error),
                }
            }
        }
    }
    // Refusing everything would be no review.
    assert!(shown > 60, "{shown}");
}

#[test]
fn a_field_that_is_not_known_is_refused_by_its_name() {
    for (role, present, mut next) in files() {
        next["x-later"] = Value::from("sh -c id");
        let error = look(role, &present, next).unwrap_err().to_string();
        assert!(error.contains("/x-later"), "{error}");
    }
    let [_, _, (role, present, mut next)] = files();
    next["targets"]["press/stable/2.0.0/linux-x86_64"]["custom"]["pre_install"] = "id".into();
    let error = look(role, &present, next).unwrap_err().to_string();
    assert!(error.contains("/custom/pre_install"), "{error}");
}

#[test]
fn commands_come_first_with_their_words_and_who_runs_them() {
    let [_, _, (role, present, mut next)] = files();
    let custom = "/targets/press~1stable~12.1.0~1linux-x86_64/custom";
    let custom = next.pointer_mut(custom).unwrap();
    custom["health"]["command"] = serde_json::json!(["sh", "-c", "id>\u{202e}/PWNED\n+ forged"]);
    custom["allow_rollback"] = false.into();
    let text = look(role, &present, next).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[1].starts_with("! devices will run this command for press/stable/2.1.0"),
        "{text}"
    );
    assert!(lines[1].contains("the agent's user"), "{text}");
    assert!(
        lines[1].contains(r#""sh" "-c" "id>\u202e/PWNED\n+ forged", for 30 s"#),
        "{text}"
    );
    assert!(
        text.contains("may be rolled back from: no; before, yes"),
        "{text}"
    );
    // What stays as it is in force is not repeated.
    assert!(!text.contains("2.0.0"), "{text}");
}

#[test]
fn people_who_come_and_go_are_marked() {
    let [(role, present, _), ..] = files();
    let mut next = a_root();
    next.version = 4;
    next.root.remove("root", "carol").unwrap();
    next.root.add("root", person("mallory", 40)).unwrap();
    next.targets.set_people(1);
    let text = look(role, &present, next.body()).unwrap();
    assert!(text.contains("\n  + mallory  "), "{text}");
    assert!(text.contains("\n  - carol  "), "{text}");
    assert!(
        text.contains("targets: 1 of 3 people, 1 signatures; before, 2 of 3 people"),
        "{text}"
    );
}

#[test]
fn a_file_from_the_future_is_not_signed() {
    for (role, present, mut next) in files() {
        for (ahead, good) in [(240, true), (360, false), (100_000_000, false)] {
            let issued = NOW.plus(Duration::from_secs(ahead));
            next["x-issued"] = issued.to_string().into();
            let looked = look(role, &present, next.clone());
            assert_eq!(looked.is_ok(), good, "{role} {ahead}: {looked:?}");
        }
    }
}

//! Assignments. Input: one byte of flags, then the document.

use tidegate_trust::assignment::{Accepted, Clock, Situation, verify};
use tidegate_trust::verify::Trusted;

use crate::Seed;
use crate::world::{
    COUNTER, NONCE, NOW, WORLD, device, key, keys, platform, role_name, sign_again, version,
};
use tidegate_protocol::Timestamp;

/// The director signs whatever the document says.
const HOSTILE: u8 = 0x80;
/// The release that runs is the newer one.
const NEWER: u8 = 0x40;
/// Nothing runs.
const NOTHING: u8 = 0x20;
/// The clock stands at 1970.
const NO_CLOCK: u8 = 0x10;
/// The owner vouches for the clock.
const STRICT: u8 = 0x08;
/// The agent's version is known.
const AGENT: u8 = 0x04;
/// There is a floor of releases.
const FLOOR: u8 = 0x02;

/// One input.
pub fn run(data: &[u8]) {
    let Some((&flags, bytes)) = data.split_first() else {
        return;
    };
    let has = |flag| flags & flag != 0;
    let again = has(HOSTILE).then(|| sign_again(bytes, &key(keys::DIRECTOR)));
    let bytes = match &again {
        None => bytes,
        Some(Some(bytes)) => bytes,
        Some(None) => return,
    };
    let installed = version(if has(NEWER) { "1.1.0" } else { "1.0.0" });
    let (floor, agent, platform) = (version("1.0.0"), version("0.1.0"), platform());
    let situation = Situation {
        device: device(),
        platform: &platform,
        nonce: NONCE,
        counter: COUNTER,
        kept: None,
        installed: (!has(NOTHING)).then_some(&installed),
        floor: has(FLOOR).then_some(&floor),
        clock: Clock {
            shows: if has(NO_CLOCK) { Timestamp::ZERO } else { NOW },
            floor: WORLD
                .trusted
                .time_floor()
                .expect("offline keys vouch for a time"),
            strict: has(STRICT),
        },
        agent: has(AGENT).then_some(&agent),
        formats: &["tar"],
    };
    if let Ok(accepted) = verify(&WORLD.trusted, bytes, &situation) {
        assert!(
            has(HOSTILE) || WORLD.was_signed(bytes),
            "nobody has signed this"
        );
        check(&WORLD.trusted, &accepted, &situation);
    }
}

/// Whatever the director signs, it is for this device, now, and an image that people listed.
fn check(trusted: &Trusted, accepted: &Accepted, situation: &Situation<'_>) {
    assert_eq!(accepted.terms.device, situation.device);
    assert_eq!(accepted.terms.nonce, situation.nonce);
    assert_eq!(accepted.counter, situation.counter + 1);
    assert_eq!(accepted.path.role, role_name());
    assert_eq!(
        Some(&accepted.facts),
        trusted.role().images.get(&accepted.path)
    );
    assert!(accepted.facts.hw.contains(situation.platform));
    assert_ne!(Some(&accepted.path.release), situation.installed);
    assert!(
        situation
            .floor
            .is_none_or(|floor| accepted.path.release >= *floor)
    );
}

/// The good assignments, as they are and signed anew, in several situations.
pub fn seeds() -> Vec<Seed> {
    let names = ["install", "rollback"];
    let flags = [
        [
            0,
            HOSTILE | FLOOR,
            NOTHING | NO_CLOCK,
            HOSTILE | STRICT | AGENT,
        ],
        [
            NEWER,
            HOSTILE | NEWER | FLOOR,
            NEWER | NO_CLOCK,
            HOSTILE | NEWER | AGENT,
        ],
    ];
    let mut seeds = Vec::new();
    for ((name, bytes), flags) in names.iter().zip(&WORLD.assignments).zip(flags) {
        for flags in flags {
            let mut input = vec![flags];
            input.extend(bytes);
            seeds.push((format!("{name}-{flags:02x}"), input));
        }
    }
    seeds
}

//! The checks of an assignment, in the order of `docs/explain/security-model.md`.

use serde::Deserialize as _;
use serde_json::Value;
use sigstore_tuf::metadata::Targets;
use tidegate_protocol::{DeviceId, Format, Platform, Timestamp, Version};

use super::order::check_order;
use super::{Action, Clock, FILE, Terms};
use crate::role::{self, ImagePath};
use crate::trusted::Trusted;
use crate::{ImageFacts, TrustError, from_jiff, lifetime, quorum, size_limit};

/// Maximum number of payloads in one assignment.
const MAX_PAYLOADS: usize = 8;

/// Facts about the device that an assignment is checked against.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// Id of the device.
    pub device: DeviceId,
    /// Platform of the device.
    pub platform: &'a Platform,
    /// Nonce that it sent.
    pub nonce: &'a str,
    /// Counter that it sent.
    pub counter: u64,
    /// Release that is installed.
    pub installed: Option<&'a Version>,
    /// Image that it keeps from before the present deployment, while the rollback window is open: it
    /// may be ordered back to it, listed or not, for it has held and run these very bytes.
    pub kept: Option<&'a ImageFacts>,
    /// Oldest release that it may ever install again.
    pub floor: Option<&'a Version>,
    /// Its view of the time.
    pub clock: Clock,
    /// Version of its agent.
    pub agent: Option<&'a Version>,
    /// Formats that it can install.
    pub formats: &'a [&'a str],
}

/// An assignment that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Counter of the assignment, to be stored before acting on it.
    pub counter: u64,
    /// Place where the image is listed.
    pub path: ImagePath,
    /// Facts about the image, signed by the offline keys.
    pub facts: ImageFacts,
    /// Terms, signed online.
    pub terms: Terms,
    /// Newest time that an offline key has vouched for, as far as this answer bears it out.
    pub time_floor: Timestamp,
}

/// Checks an assignment. Step numbers are those of `docs/explain/security-model.md`.
pub fn verify(
    trusted: &Trusted,
    bytes: &[u8],
    situation: &Situation<'_>,
) -> Result<Accepted, TrustError> {
    verify_as(trusted, bytes, situation, false)
}

/// Checks an assignment that a person has carried to this machine. The machine did not ask for it,
/// so its nonce answers nothing; its counter must be higher than all before, so that an old one is
/// refused after a newer one. Files signed every hour or week are judged at the time of the
/// assignment; files signed by people, and the assignment itself, at the machine's time.
pub fn verify_carried(
    trusted: &Trusted,
    bytes: &[u8],
    situation: &Situation<'_>,
) -> Result<Accepted, TrustError> {
    verify_as(trusted, bytes, situation, true)
}

fn verify_as(
    trusted: &Trusted,
    bytes: &[u8],
    situation: &Situation<'_>,
    carried: bool,
) -> Result<Accepted, TrustError> {
    let signed = open(trusted, FILE, bytes, "x-assignment")?;
    let said = |name| signed.extra.get("x-assignment").and_then(|v| v.get(name));
    let terms: Terms = role::extra(FILE, &signed.extra, "x-assignment")?
        .ok_or_else(|| TrustError::field(FILE, "x-assignment is missing"))?;
    if said("carried").and_then(Value::as_bool).unwrap_or(false) != carried {
        let text = if carried {
            "it is the answer to a device's own request and cannot be carried offline"
        } else {
            "it is for offline delivery and does not answer a request"
        };
        return Err(TrustError::field(FILE, text));
    }
    let time = time_of(FILE, said("time").and_then(Value::as_str))?;
    if terms.device != situation.device {
        return Err(TrustError::WrongDevice);
    }
    if !carried && terms.nonce != situation.nonce {
        return Err(TrustError::WrongNonce);
    }
    let expected = situation.counter.saturating_add(1);
    let in_order = if carried {
        signed.version >= expected
    } else {
        signed.version == expected
    };
    if !in_order {
        return Err(TrustError::WrongCounter {
            expected,
            got: signed.version,
        });
    }
    let longest = if carried {
        lifetime::CARRIED_MAX
    } else {
        lifetime::ASSIGNMENT_MAX
    };
    // 5. A machine without a believable clock uses the time of the fresh assignment, for this
    // decision only: the nonce proves that it is an answer, not a replay.
    let now = if carried {
        trusted.check_fresh(time)?;
        let ahead = longest.saturating_add(Clock::AHEAD);
        situation.clock.decide_within(time, ahead)
    } else {
        let now = situation.clock.decide(time);
        trusted.check_fresh(now)?;
        now
    };
    check_expiry(trusted, FILE, &signed, time.plus(longest), now)?;
    // 6. Exactly one image, listed offline, for this device.
    let mut entries = signed.targets.iter();
    let (Some((path, entry)), None) = (entries.next(), entries.next()) else {
        return Err(TrustError::NotOneImage(signed.targets.len()));
    };
    let parsed: ImagePath = path.parse()?;
    if parsed.role != trusted.role().name || !trusted.role_may_speak_for(path)? {
        return Err(TrustError::PathOutsideRole(path.clone()));
    }
    let image = role::image_of(path, entry)?;
    // Back to the slot that it keeps: which bytes these are, the device knows by itself. That they are
    // not listed (adopted, a draft, another channel's) says nothing against them; what people did sign
    // against a release is checked with the order below.
    let kept = situation.kept.filter(|kept| {
        terms.action == Action::Rollback
            && parsed.platform == *situation.platform
            && parsed.release == kept.release
            && image == kept.image
    });
    let few = usize::from(kept.is_none());
    if terms.payloads.len() < few || terms.payloads.len() > MAX_PAYLOADS {
        return Err(TrustError::field(
            FILE,
            format!("it must offer {few} to {MAX_PAYLOADS} payloads"),
        ));
    }
    let facts = kept
        .or_else(|| trusted.role().images.get(&parsed))
        .ok_or_else(|| TrustError::NotListed(path.clone()))?;
    if image != facts.image {
        return Err(TrustError::ImageDiffers);
    }
    if facts.release != parsed.release {
        return Err(TrustError::field(
            path,
            "the image is listed under another release",
        ));
    }
    if !facts.hw.contains(situation.platform) {
        let names: Vec<&str> = facts.hw.iter().map(Platform::as_str).collect();
        return Err(TrustError::WrongPlatform(names.join(", ")));
    }
    if !situation.formats.contains(&facts.format.as_str()) {
        return Err(TrustError::field(
            path,
            format!(
                "format {:?} cannot be installed here; supported: {}",
                facts.format,
                situation.formats.join(", ")
            ),
        ));
    }
    if let (Some(needed), Some(agent)) = (&facts.min_agent, situation.agent)
        && agent < needed
    {
        return Err(TrustError::AgentTooOld {
            image: facts.release.clone(),
            needed: needed.clone(),
        });
    }
    check_order(trusted, facts, terms.action, situation)?;
    Ok(Accepted {
        counter: signed.version,
        path: parsed,
        facts: facts.clone(),
        terms,
        // Nor beyond the answer's own time: it would be expired at the floor.
        time_floor: trusted.time_floor()?.min(time),
    })
}

/// Opens a document of the director: checks its size, its signatures and its format.
pub(super) fn open(
    trusted: &Trusted,
    file: &str,
    bytes: &[u8],
    field: &str,
) -> Result<Targets, TrustError> {
    // 2. Size is checked before parsing.
    if bytes.len() > size_limit::ASSIGNMENT {
        return Err(TrustError::TooLarge {
            file: file.into(),
            length: bytes.len(),
            limit: size_limit::ASSIGNMENT,
        });
    }
    let document = quorum::parse_targets(file, bytes)?;
    // 4. Signed by the director that the fresh offline targets name.
    trusted.verify_director(file, &document)?;
    let signed = document.into_signed();
    let terms = signed.extra.get(field);
    let terms = terms.ok_or_else(|| TrustError::field(file, format!("{field} is missing")))?;
    // Before the terms are read: those of another format have other fields.
    let format = terms
        .get("format")
        .map_or(Ok(Format::unnamed()), Format::deserialize);
    format
        .map_err(|e| TrustError::field(file, format!("format: {e}")))?
        .check("the control plane", "this agent")
        .map_err(|e| TrustError::field(file, e.to_string()))?;
    Ok(signed)
}

/// Reads the time at which the director signed.
pub(super) fn time_of(file: &str, text: Option<&str>) -> Result<Timestamp, TrustError> {
    text.unwrap_or_default()
        .parse::<jiff::Timestamp>()
        .map(from_jiff)
        .map_err(|e| TrustError::field(file, format!("time: {e}")))
}

/// 5, continued. Checks the expiry of a document of the director, and of what people signed.
pub(super) fn check_expiry(
    trusted: &Trusted,
    file: &str,
    signed: &Targets,
    latest: Timestamp,
    now: Timestamp,
) -> Result<(), TrustError> {
    let expires = from_jiff(signed.expires);
    if expires > latest {
        return Err(TrustError::TooLongLived);
    }
    trusted.check_lasting(now)?;
    if expires <= now {
        return Err(TrustError::Metadata {
            file: file.into(),
            source: sigstore_tuf::Error::Expired {
                role: file.into(),
                expires: signed.expires,
            },
        });
    }
    Ok(())
}

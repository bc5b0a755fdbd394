//! The assignment: one device, one image, one action, signed online, checked against what was
//! signed offline.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_protocol::{DeploymentId, DeviceId, Format, Image, Platform, Timestamp, Version};

pub use tidegate_protocol::Payload;

use crate::role::{self, ImagePath};
use crate::trusted::Trusted;
use crate::{
    ImageFacts, SPEC_VERSION, SecretKey, Signed, TrustError, from_jiff, lifetime, quorum, sign,
    size_limit,
};

/// Name of the document in errors.
pub const FILE: &str = "assignment";

/// Action for a device to take with the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Move to the image.
    Install,
    /// Return to the image.
    Rollback,
}

/// The online part of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Device it is for.
    pub device: DeviceId,
    /// Nonce of the request that this answers.
    pub nonce: String,
    /// Action to take.
    pub action: Action,
    /// Deployment it belongs to.
    pub deployment: DeploymentId,
    /// Time for which the previous slot is kept after a healthy start, in seconds.
    pub rollback_window_s: u32,
    /// Seconds from now within which the device must switch or ask again, because its maintenance
    /// window closes. A device measures it with its own monotonic clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch_within_s: Option<u32>,
    /// Whether a person has lifted what keeps the device from this image: an earlier failure of the
    /// image there no longer counts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
    /// Ways to fetch the image, best first; the last one needs no old image.
    pub payloads: Vec<Payload>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Maximum number of payloads in one assignment.
const MAX_PAYLOADS: usize = 8;

/// An assignment before it is signed.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Counter: one more than the device sent.
    pub counter: u64,
    /// The server's clock.
    pub time: Timestamp,
    /// Place where the image is listed.
    pub path: ImagePath,
    /// The image.
    pub image: Image,
    /// Remaining terms.
    pub terms: Terms,
}

impl Draft {
    /// Signs the draft with the director's key, as the answer to a device that asks.
    pub fn sign(&self, director: &SecretKey) -> Result<Signed, TrustError> {
        self.sign_for(director, lifetime::ASSIGNMENT, false)
    }

    /// Signs the draft to be carried to a machine without a network, where a person must apply it
    /// within `lives`. Machines that ask a server refuse such an assignment.
    pub fn sign_carried(
        &self,
        director: &SecretKey,
        lives: Duration,
    ) -> Result<Signed, TrustError> {
        self.sign_for(director, lives.min(lifetime::CARRIED_MAX), true)
    }

    fn sign_for(
        &self,
        director: &SecretKey,
        lives: Duration,
        carried: bool,
    ) -> Result<Signed, TrustError> {
        let mut terms = serde_json::to_value(&self.terms)
            .map_err(|e| TrustError::field(FILE, e.to_string()))?;
        terms["format"] = json!(Format::CURRENT);
        terms["time"] = json!(self.time.to_string());
        if carried {
            terms["carried"] = json!(true);
        }
        let path = self.path.to_string();
        let body = json!({
            "_type": "targets",
            "spec_version": SPEC_VERSION,
            "version": self.counter,
            "expires": self.time.plus(lives).to_string(),
            "targets": {
                path: {
                    "length": self.image.length,
                    "hashes": { "sha256": self.image.sha256.to_string() },
                },
            },
            "x-assignment": terms,
        });
        sign(body, &[director])
    }
}

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
    /// Oldest release that it may ever install again.
    pub floor: Option<&'a Version>,
    /// Its view of the time.
    pub clock: Clock,
    /// Version of its agent.
    pub agent: Option<&'a Version>,
    /// Formats that it can install.
    pub formats: &'a [&'a str],
}

/// A device's view of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Time that its clock shows.
    pub shows: Timestamp,
    /// Newest time that an offline key has vouched for: the true time is certainly later.
    pub floor: Timestamp,
    /// Whether its owner vouches for the clock (it is set by a trusted source). If so, expiry is
    /// judged by the clock alone.
    pub strict: bool,
}

impl Clock {
    /// Lead over the server beyond which a clock counts as wrong. Shorter than the lifetime of an
    /// assignment: a clock that shows local time as UTC must not make every assignment expired.
    const AHEAD: Duration = Duration::from_mins(30);

    /// Returns the time to decide by, given the time that a fresh answer of the server claims. A
    /// clock behind the floor, or more than half an hour ahead of the server, counts as wrong, so
    /// that 1970 and 2100 strand nobody. A server that lies about the past keeps expired files in
    /// use, which it could also do by not answering; versions never fall. A server that lies about
    /// the future is refused.
    pub fn decide(self, claimed: Timestamp) -> Timestamp {
        self.decide_within(claimed, Self::AHEAD)
    }

    fn decide_within(self, claimed: Timestamp, ahead: Duration) -> Timestamp {
        if self.strict {
            return self.shows.max(self.floor);
        }
        if self.shows >= self.floor && self.shows <= claimed.plus(ahead) {
            self.shows
        } else {
            claimed.max(self.floor)
        }
    }
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
    // 2. Size is checked before parsing.
    if bytes.len() > size_limit::ASSIGNMENT {
        return Err(TrustError::TooLarge {
            file: FILE.into(),
            length: bytes.len(),
            limit: size_limit::ASSIGNMENT,
        });
    }
    let document = quorum::parse_targets(FILE, bytes)?;
    // 4. Signed by the director that the fresh offline targets name.
    trusted.verify_director(FILE, &document)?;
    let signed = document.into_signed();
    let said = |name| signed.extra.get("x-assignment").and_then(|v| v.get(name));
    // Before the terms are read: those of another format have other fields.
    let format = said("format").map_or(Ok(Format::unnamed()), Format::deserialize);
    format
        .map_err(|e| TrustError::field(FILE, format!("format: {e}")))?
        .check("the control plane", "this agent")
        .map_err(|e| TrustError::field(FILE, e.to_string()))?;
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
    let time = said("time").and_then(Value::as_str).unwrap_or_default();
    let time = time
        .parse::<jiff::Timestamp>()
        .map(from_jiff)
        .map_err(|e| TrustError::field(FILE, format!("time: {e}")))?;
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
    let expires = from_jiff(signed.expires);
    let longest = if carried {
        lifetime::CARRIED_MAX
    } else {
        lifetime::ASSIGNMENT_MAX
    };
    if expires > time.plus(longest) {
        return Err(TrustError::TooLongLived);
    }
    if terms.payloads.is_empty() || terms.payloads.len() > MAX_PAYLOADS {
        return Err(TrustError::field(
            FILE,
            format!("it must offer 1 to {MAX_PAYLOADS} payloads"),
        ));
    }
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
    trusted.check_lasting(now)?;
    if expires <= now {
        return Err(TrustError::Metadata {
            file: FILE.into(),
            source: sigstore_tuf::Error::Expired {
                role: FILE.into(),
                expires: signed.expires,
            },
        });
    }
    // 6. Exactly one image, listed offline, for this device.
    let mut entries = signed.targets.iter();
    let (Some((path, entry)), None) = (entries.next(), entries.next()) else {
        return Err(TrustError::NotOneImage(signed.targets.len()));
    };
    let parsed: ImagePath = path.parse()?;
    if parsed.role != trusted.role().name || !trusted.role_may_speak_for(path)? {
        return Err(TrustError::PathOutsideRole(path.clone()));
    }
    let facts = trusted
        .role()
        .images
        .get(&parsed)
        .ok_or_else(|| TrustError::NotListed(path.clone()))?;
    if role::image_of(path, entry)? != facts.image {
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
    })
}

/// Check 6, continued: floors, end of life, direction.
fn check_order(
    trusted: &Trusted,
    facts: &ImageFacts,
    action: Action,
    situation: &Situation<'_>,
) -> Result<(), TrustError> {
    let image = facts.release.clone();
    let role = trusted.role();
    let floor = situation
        .floor
        .into_iter()
        .chain(role.policy.min_release.as_ref())
        .max();
    if let Some(floor) = floor
        && image < *floor
    {
        return Err(TrustError::BelowFloor {
            image,
            floor: floor.clone(),
        });
    }
    if role.policy.eol.contains(&image) {
        return Err(TrustError::EndOfLife(image));
    }
    let Some(installed) = situation.installed else {
        return Ok(());
    };
    if image == *installed {
        return Err(TrustError::AlreadyInstalled(image));
    }
    match action {
        Action::Install => {
            if image < *installed {
                return Err(TrustError::Downgrade {
                    image,
                    installed: installed.clone(),
                });
            }
            if let Some(needed) = &facts.min_from
                && installed < needed
            {
                return Err(TrustError::BelowMinimumSource {
                    image,
                    needed: needed.clone(),
                });
            }
            if let Some(stone) = skipped_stone(role, situation.platform, installed, &image) {
                return Err(TrustError::SkipsSteppingStone { image, stone });
            }
        }
        Action::Rollback => {
            // Upwards it would bypass minimum source, stepping stones and the rollback window.
            if image > *installed {
                return Err(TrustError::RollbackUpwards {
                    image,
                    installed: installed.clone(),
                });
            }
            let from = ImagePath {
                role: role.name.clone(),
                release: installed.clone(),
                platform: situation.platform.clone(),
            };
            if role
                .images
                .get(&from)
                .is_some_and(|facts| !facts.allow_rollback)
            {
                return Err(TrustError::RollbackNotAllowed(installed.clone()));
            }
        }
    }
    Ok(())
}

/// Returns the oldest stepping stone for this platform that lies between two releases and may still
/// be installed.
fn skipped_stone(
    role: &crate::ProductRole,
    platform: &Platform,
    installed: &Version,
    image: &Version,
) -> Option<Version> {
    role.images
        .iter()
        .filter(|(path, facts)| facts.stepping_stone && path.platform == *platform)
        .map(|(path, _)| &path.release)
        .filter(|stone| *stone > installed && *stone < image)
        .filter(|stone| !role.policy.eol.contains(stone))
        .filter(|stone| {
            role.policy
                .min_release
                .as_ref()
                .is_none_or(|min| *stone >= min)
        })
        .min()
        .cloned()
}

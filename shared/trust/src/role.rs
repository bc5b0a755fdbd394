//! Content of the offline roles: written by the CLI, read by server and agent.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sigstore_tuf::metadata::{TargetFile, Targets};
use tidegate_protocol::{Channel, Image, Platform, ProductName, Timestamp, Version};

use crate::{SPEC_VERSION, TrustError, from_jiff};

/// The role of one product and channel, for example `app-stable`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoleName {
    /// The product.
    pub product: ProductName,
    /// The channel.
    pub channel: Channel,
}

impl RoleName {
    /// Creates a role name.
    pub fn new(product: ProductName, channel: Channel) -> Self {
        Self { product, channel }
    }

    /// Pattern of the paths that it may speak for.
    pub fn paths(&self) -> String {
        format!("{}/{}/*/*", self.product, self.channel)
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.product, self.channel)
    }
}

impl FromStr for RoleName {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let refuse = || TrustError::field(text, "not a role name: expected <product>-<channel>");
        let (product, channel) = text.rsplit_once('-').ok_or_else(refuse)?;
        Ok(Self {
            product: product.parse().map_err(|_| refuse())?,
            channel: channel.parse().map_err(|_| refuse())?,
        })
    }
}

/// Path of an image in the repository: `<product>/<channel>/<release>/<platform>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImagePath {
    /// Role of its product and channel.
    pub role: RoleName,
    /// The release.
    pub release: Version,
    /// The platform.
    pub platform: Platform,
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RoleName { product, channel } = &self.role;
        write!(f, "{product}/{channel}/{}/{}", self.release, self.platform)
    }
}

impl FromStr for ImagePath {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let refuse =
            || TrustError::field(text, "not a path <product>/<channel>/<release>/<platform>");
        let mut parts = text.split('/');
        let mut next = || parts.next().ok_or_else(refuse);
        let path = Self {
            role: RoleName {
                product: next()?.parse().map_err(|_| refuse())?,
                channel: next()?.parse().map_err(|_| refuse())?,
            },
            release: next()?.parse().map_err(|_| refuse())?,
            platform: next()?.parse().map_err(|_| refuse())?,
        };
        if parts.next().is_some() {
            Err(refuse())
        } else {
            Ok(path)
        }
    }
}

/// Health check of an installed image, as the publisher defines it. Signed offline, because it is a
/// command that devices run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLine {
    /// Program and arguments; the program is looked up below the slot.
    pub command: Vec<String>,
    /// Timeout in seconds.
    pub timeout_s: u32,
}

/// Facts about one image, as stated by the offline keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Digest and length of its bytes.
    #[serde(skip, default = "no_image")]
    pub image: Image,
    /// Its release.
    pub release: Version,
    /// The platforms that it runs on.
    pub hw: Vec<Platform>,
    /// Format of the bytes: [`ImageFacts::TAR`] or [`ImageFacts::RAW`].
    pub format: String,
    /// Oldest release that it may be installed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_from: Option<Version>,
    /// Oldest agent that can install it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_agent: Option<Version>,
    /// Whether it must not be skipped on the way to a later release.
    #[serde(default)]
    pub stepping_stone: bool,
    /// Whether a device may roll back from it to an older release on the server's order.
    pub allow_rollback: bool,
    /// Its health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<CommandLine>,
}

fn no_image() -> Image {
    Image {
        sha256: tidegate_protocol::Sha256::from_bytes([0; 32]),
        length: 0,
    }
}

impl ImageFacts {
    /// A deterministic tar of a folder.
    pub const TAR: &'static str = "tar";
    /// The bytes as they are: an executable, a disk image, a firmware bundle.
    pub const RAW: &'static str = "raw";

    pub(crate) fn from_target(path: &str, file: &TargetFile) -> Result<Self, TrustError> {
        let custom = file.custom.clone().unwrap_or(Value::Null);
        let mut facts: Self =
            of_value(&custom).map_err(|e| TrustError::field(path, e.to_string()))?;
        facts.image = image_of(path, file)?;
        Ok(facts)
    }
}

/// Length and SHA-256 of a listed file; a file without a SHA-256 is not accepted.
pub(crate) fn image_of(path: &str, file: &TargetFile) -> Result<Image, TrustError> {
    let sha256 = file
        .hashes
        .get("sha256")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| TrustError::field(path, "the SHA-256 is missing or malformed"))?;
    Ok(Image {
        sha256,
        length: file.length,
    })
}

/// Policy of a product-channel role, in addition to its images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Oldest release that may still be installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_release: Option<Version>,
    /// Releases that may no longer be installed.
    #[serde(default)]
    pub eol: Vec<Version>,
    /// Notice for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// One product-channel role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductRole {
    /// Its name.
    pub name: RoleName,
    /// Its version.
    pub version: u64,
    /// Time of signing.
    pub issued: Timestamp,
    /// Time of expiry.
    pub expires: Timestamp,
    /// Its policy.
    pub policy: Policy,
    /// The images that it lists.
    pub images: BTreeMap<ImagePath, ImageFacts>,
}

impl ProductRole {
    /// Reads a role's own file without verifying signatures.
    pub fn from_bytes(name: &RoleName, bytes: &[u8]) -> Result<Self, TrustError> {
        let parsed = crate::quorum::parse_targets(&name.to_string(), bytes)?;
        Self::from_targets(name, parsed.signed())
    }

    /// Reads a role whose signatures were verified.
    pub fn from_targets(name: &RoleName, targets: &Targets) -> Result<Self, TrustError> {
        let file = name.to_string();
        let mut images = BTreeMap::new();
        for (path, entry) in &targets.targets {
            let parsed: ImagePath = path.parse()?;
            if parsed.role != *name {
                return Err(TrustError::PathOutsideRole(path.clone()));
            }
            images.insert(parsed, ImageFacts::from_target(path, entry)?);
        }
        Ok(Self {
            name: name.clone(),
            version: targets.version,
            issued: issued(&file, &targets.extra)?,
            expires: from_jiff(targets.expires),
            policy: extra(&file, &targets.extra, "x-policy")?.unwrap_or_default(),
            images,
        })
    }

    /// The body to sign.
    pub fn body(&self) -> Value {
        let targets: Map<String, Value> = self
            .images
            .iter()
            .map(|(path, facts)| {
                (
                    path.to_string(),
                    json!({
                        "length": facts.image.length,
                        "hashes": { "sha256": facts.image.sha256.to_string() },
                        "custom": facts,
                    }),
                )
            })
            .collect();
        json!({
            "_type": "targets",
            "spec_version": SPEC_VERSION,
            "version": self.version,
            "expires": self.expires.to_string(),
            "targets": targets,
            "x-issued": self.issued.to_string(),
            "x-policy": self.policy,
        })
    }
}

/// Reads a value by way of its text: reading it in its place is a second copy of each type's reader,
/// 7 KB of the agent.
fn of_value<T: serde::de::DeserializeOwned>(value: &Value) -> serde_json::Result<T> {
    serde_json::from_slice(&serde_json::to_vec(value)?)
}

pub(crate) fn extra<T: serde::de::DeserializeOwned>(
    file: &str,
    fields: &BTreeMap<String, Value>,
    name: &str,
) -> Result<Option<T>, TrustError> {
    fields
        .get(name)
        .map(of_value)
        .transpose()
        .map_err(|e| TrustError::field(file, format!("{name}: {e}")))
}

pub(crate) fn issued(
    file: &str,
    fields: &BTreeMap<String, Value>,
) -> Result<Timestamp, TrustError> {
    let text: String = extra(file, fields, "x-issued")?
        .ok_or_else(|| TrustError::field(file, "x-issued is missing"))?;
    text.parse::<jiff::Timestamp>()
        .map(from_jiff)
        .map_err(|e| TrustError::field(file, format!("x-issued: {e}")))
}

//! The assignment: one device, one image, one action, signed online, checked against what was
//! signed offline.

mod check;
mod clock;
mod key_order;
mod order;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_protocol::{DeploymentId, DeviceId, Format, Image, Timestamp};

pub use check::{Accepted, Situation, verify, verify_carried};
pub use clock::Clock;
pub use key_order::KeyOrder;
pub use tidegate_protocol::Payload;

use crate::role::ImagePath;
use crate::{SPEC_VERSION, SecretKey, Signed, TrustError, lifetime, sign};

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

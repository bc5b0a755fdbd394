//! The order for a new key: signed by the director and bound to one request, like an assignment. A device
//! without a rollout gets one too, so it is a document of its own.

use serde_json::{Value, json};
use tidegate_protocol::{DeviceId, Format, Timestamp};

use super::Clock;
use super::check::{check_expiry, open, time_of};
use crate::trusted::Trusted;
use crate::{SPEC_VERSION, SecretKey, TrustError, lifetime, sign};

/// Name of the document in errors.
const FILE: &str = "key order";
/// Name of its own field: no other document of the director has it, and it has none of theirs.
const FIELD: &str = "x-key-order";

/// An order to generate a new key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOrder {
    /// Device it is for.
    pub device: DeviceId,
    /// Nonce of the request that this answers.
    pub nonce: String,
    /// Public key to replace, in hexadecimal: an order is good for one change.
    pub replaces: String,
}

impl KeyOrder {
    /// Signs the order with the director's key; returns the JSON text.
    pub fn sign(&self, director: &SecretKey, time: Timestamp) -> Result<String, TrustError> {
        let body = json!({
            "_type": "targets",
            "spec_version": SPEC_VERSION,
            "version": 1,
            "expires": time.plus(lifetime::ASSIGNMENT).to_string(),
            "targets": {},
            FIELD: {
                "format": Format::CURRENT,
                "time": time.to_string(),
                "device": self.device.to_string(),
                "nonce": self.nonce,
                "replaces": self.replaces,
            },
        });
        let signed = sign(body, &[director])?;
        Ok(String::from_utf8_lossy(&signed.to_bytes()).into_owned())
    }

    /// Checks that a text is this very order, signed by the director and in force.
    pub fn verify(&self, trusted: &Trusted, bytes: &[u8], clock: Clock) -> Result<(), TrustError> {
        let signed = open(trusted, FILE, bytes, FIELD)?;
        let terms = signed.extra.get(FIELD);
        let said = |name: &str| terms.and_then(|t| t.get(name)).and_then(Value::as_str);
        if said("device") != Some(self.device.to_string().as_str()) {
            return Err(TrustError::WrongDevice);
        }
        if said("nonce") != Some(self.nonce.as_str()) {
            return Err(TrustError::WrongNonce);
        }
        if said("replaces") != Some(self.replaces.as_str()) {
            let what = "it replaces a key that this device does not use";
            return Err(TrustError::field(FILE, what));
        }
        let time = time_of(FILE, said("time"))?;
        let now = clock.decide(time);
        trusted.check_fresh(now)?;
        check_expiry(
            trusted,
            FILE,
            &signed,
            time.plus(lifetime::ASSIGNMENT_MAX),
            now,
        )
    }
}

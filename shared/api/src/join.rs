//! Joining: tokens, and devices that wait to be accepted.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Request to create a join token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenBody {
    /// Product of the devices that join.
    pub product: String,
    /// Region of the devices; absent if each device names its own.
    pub region: Option<String>,
    /// Channel of the devices; absent if each device names its own.
    pub channel: Option<String>,
    /// Labels given to the devices.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Number of devices that may join; 1 by default, or the number of keys.
    pub uses: Option<u32>,
    /// Validity in seconds; a day by default, a year at most.
    pub valid_s: Option<u64>,
    /// Whether each device that joins waits for a person to accept it.
    #[serde(default)]
    pub approve: bool,
    /// Fingerprints of the only keys that may join; any key may if there are none.
    #[serde(default)]
    pub keys: BTreeSet<String>,
}

/// A join token, shown once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenView {
    /// Its id.
    pub id: String,
    /// The whole token.
    pub token: String,
}

/// A join token without its secret.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenItem {
    /// Its id.
    pub id: String,
    /// Product of the devices that join.
    pub product: String,
    /// Region of the devices; absent if each device names its own.
    pub region: Option<String>,
    /// Channel of the devices; absent if each device names its own.
    pub channel: Option<String>,
    /// Labels given to the devices.
    pub labels: BTreeMap<String, String>,
    /// Number of devices that may still join.
    pub uses_left: u32,
    /// Number of devices that may join in all; absent for tokens made before that was kept.
    pub uses: Option<u32>,
    /// Whether each device that joins waits for a person to accept it.
    pub approve: bool,
    /// Fingerprints of the only keys that may join; any key may if there are none.
    pub keys: Vec<String>,
    /// Time it was created.
    pub created_at: String,
    /// Name of the operator who created it.
    pub created_by: String,
    /// Time it expires.
    pub expires_at: String,
}

/// Request to revoke every join token that could be used.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeJoinTokensBody {
    /// Only tokens of this product; of every product if it is absent.
    pub product: Option<String>,
    /// The reason.
    #[schema(min_length = 1, max_length = 300)]
    pub reason: String,
}

/// Number of join tokens that were revoked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RevokedView {
    /// The number.
    pub revoked: u64,
}

/// Request to accept or reject a device that waits.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptBody {
    /// Fingerprint that the device's key must have; absent to take the device as it is.
    pub key_sha256: Option<String>,
    /// The reason.
    #[schema(min_length = 1, max_length = 300)]
    pub reason: String,
}

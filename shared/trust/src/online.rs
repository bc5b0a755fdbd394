//! Statements of the online keys about the files that people sign.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidegate_protocol::{Sha256, Timestamp};

use crate::SPEC_VERSION;

/// Facts about a file that `snapshot` and `timestamp` pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// Its version.
    pub version: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: Sha256,
}

impl FileFacts {
    /// Computes the facts of a file.
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        let digest = <sha2::Sha256 as sha2::Digest>::digest(bytes);
        Self {
            version,
            length: bytes.len() as u64,
            sha256: Sha256::from_bytes(digest.into()),
        }
    }

    fn to_json(self) -> Value {
        json!({
            "version": self.version,
            "length": self.length,
            "hashes": { "sha256": self.sha256.to_string() },
        })
    }
}

/// Body of `snapshot`: the facts of every targets file.
pub fn snapshot_body(
    version: u64,
    expires: Timestamp,
    files: &BTreeMap<String, FileFacts>,
) -> Value {
    let meta: Map<String, Value> = files
        .iter()
        .map(|(role, facts)| (format!("{role}.json"), facts.to_json()))
        .collect();
    json!({
        "_type": "snapshot",
        "spec_version": SPEC_VERSION,
        "version": version,
        "expires": expires.to_string(),
        "meta": meta,
    })
}

/// Body of `timestamp`: the current snapshot.
pub fn timestamp_body(version: u64, expires: Timestamp, snapshot: FileFacts) -> Value {
    json!({
        "_type": "timestamp",
        "spec_version": SPEC_VERSION,
        "version": version,
        "expires": expires.to_string(),
        "meta": { "snapshot.json": snapshot.to_json() },
    })
}

/// Returns the version stated in a signed file, unverified.
pub fn signed_version(bytes: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(bytes)
        .ok()?
        .get("signed")?
        .get("version")?
        .as_u64()
}

//! Typed identifiers: a short prefix that names the type, and 128 bits in hexadecimal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Error for a text that is not an id of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_<32 lower-case hex digits>: {text:?}")]
pub struct ParseIdError {
    prefix: &'static str,
    text: String,
}

/// Parses `prefix_<32 hex>`; the text quoted in the error is cut to a bounded length.
fn parse(prefix: &'static str, text: &str) -> Result<[u8; 16], ParseIdError> {
    let refuse = || ParseIdError {
        prefix,
        text: text.chars().take(64).collect(),
    };
    let hex_part = text
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .ok_or_else(refuse)?;
    if hex_part.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(refuse());
    }
    let mut bytes = [0; 16];
    hex::decode_to_slice(hex_part, &mut bytes).map_err(|_| refuse())?;
    Ok(bytes)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// Creates an id from 128 bits that the caller drew at random.
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse($prefix, text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;
            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    )*};
}

ids! {
    /// One machine that runs an agent.
    DeviceId = "dev";
    /// One rollout of a release.
    RolloutId = "rol";
    /// One device in one rollout.
    DeploymentId = "dep";
    /// A token that devices enroll with.
    JoinTokenId = "join";
    /// An operator's API token.
    TokenId = "tok";
    /// A background job.
    JobId = "job";
    /// A hold, which keeps devices from a release.
    HoldId = "hold";
    /// An incident: a release that is being taken back.
    IncidentId = "inc";
    /// A change to a rollout that is waiting for approval.
    ChangeId = "chg";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_being_written_and_read() {
        let id = DeviceId::from_random([0xab; 16]);
        assert_eq!(id.to_string(), format!("dev_{}", "ab".repeat(16)));
        assert_eq!(id.to_string().parse::<DeviceId>().unwrap(), id);
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let text = RolloutId::from_random([1; 16]).to_string();
        assert!(text.parse::<DeviceId>().is_err());
    }

    #[test]
    fn upper_case_and_wrong_lengths_are_refused() {
        for bad in [
            "dev_",
            "dev_AB",
            &format!("dev_{}", "AB".repeat(16)),
            "dev",
            "",
        ] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad}");
        }
    }
}

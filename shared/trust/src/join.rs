//! Join tokens: what a new device needs to find its fleet and to trust it from the first byte.

use std::fmt;
use std::str::FromStr;

use tidegate_protocol::{JoinTokenId, Sha256};

/// `tgj1_<id>_<secret>_<SHA-256 of a root>`: names a token, proves that the bearer was given
/// it, and pins the root metadata, so that there is no trust on first use.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Which token.
    pub id: JoinTokenId,
    /// 32 random bytes; the server keeps only their hash.
    pub secret: [u8; 32],
    /// SHA-256 of the root metadata that the device starts from.
    pub root: Sha256,
}

/// The text is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: it has the form tgj1_<id>_<secret>_<root hash>; copy it whole")]
pub struct JoinTokenError;

impl fmt::Display for JoinToken {
    /// The whole token, secret included: this is what is handed to the device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id.to_string();
        let id = id.trim_start_matches("join_");
        write!(f, "tgj1_{id}_{}_{}", hex::encode(self.secret), self.root)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let mut parts = text.trim().split('_');
        let (Some("tgj1"), Some(id), Some(secret), Some(root), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(JoinTokenError);
        };
        let mut bytes = [0; 32];
        hex::decode_to_slice(secret, &mut bytes).map_err(|_| JoinTokenError)?;
        Ok(Self {
            id: format!("join_{id}").parse().map_err(|_| JoinTokenError)?,
            secret: bytes,
            root: root.parse().map_err(|_| JoinTokenError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_written_and_read_and_hides_its_secret() {
        let token = JoinToken {
            id: JoinTokenId::from_random([1; 16]),
            secret: [2; 32],
            root: Sha256::from_bytes([3; 32]),
        };
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(&hex::encode([2; 32])));
        let text = token.to_string();
        assert!(text[..text.len() - 1].parse::<JoinToken>().is_err());
    }
}

//! Join tokens: what a new device needs to find its fleet and to trust it from the first byte.

use std::fmt;
use std::str::FromStr;

use tidegate_protocol::{Channel, JoinTokenId, Sha256};

use crate::{Floor, Floors};

/// Lowest versions that a new device accepts. It has seen nothing yet, so that an old copy of the
/// repository would look like a current one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backstop {
    /// Lowest version of `targets`.
    pub targets: u64,
    /// Lowest versions of the roles of the token's product: alpha, beta, stable.
    pub roles: [u64; 3],
}

impl Backstop {
    /// Returns the floors of a new device on a channel.
    pub fn floors(&self, channel: Channel) -> Floors {
        let role = match channel {
            Channel::Alpha => self.roles[0],
            Channel::Beta => self.roles[1],
            Channel::Stable => self.roles[2],
        };
        let floor = |version| Floor {
            version,
            keys: None,
        };
        Floors {
            targets: floor(self.targets),
            role: floor(role),
            ..Floors::default()
        }
    }
}

/// `tgj2_<id>_<secret>_<SHA-256 of a root>_<backstop>`: names a token, proves that the bearer was
/// given it, pins the root metadata, so that there is no trust on first use, and the lowest
/// versions of what that root vouches for (`targets.alpha.beta.stable`).
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Id of the token.
    pub id: JoinTokenId,
    /// 32 random bytes; the server keeps only their hash.
    pub secret: [u8; 32],
    /// SHA-256 of the root metadata that the device starts from.
    pub root: Sha256,
    /// The lowest versions that the device accepts.
    pub backstop: Backstop,
}

/// The text is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a join token: expected tgj2_<id>_<secret>_<root hash>_<versions>; copy the whole token"
)]
pub struct JoinTokenError;

impl fmt::Display for JoinToken {
    /// Writes the whole token, secret included: this is what is handed to the device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id.to_string();
        let id = id.trim_start_matches("join_");
        let secret = hex::encode(self.secret);
        let Backstop { targets, roles } = self.backstop;
        let [alpha, beta, stable] = roles;
        write!(
            f,
            "tgj2_{id}_{secret}_{}_{targets}.{alpha}.{beta}.{stable}",
            self.root
        )
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
        let (Some("tgj2"), Some(id), Some(secret), Some(root), Some(versions), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(JoinTokenError);
        };
        let versions: Vec<u64> = versions
            .split('.')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| JoinTokenError)?;
        let [targets, alpha, beta, stable] = versions[..] else {
            return Err(JoinTokenError);
        };
        let mut bytes = [0; 32];
        hex::decode_to_slice(secret, &mut bytes).map_err(|_| JoinTokenError)?;
        Ok(Self {
            id: format!("join_{id}").parse().map_err(|_| JoinTokenError)?,
            secret: bytes,
            root: root.parse().map_err(|_| JoinTokenError)?,
            backstop: Backstop {
                targets,
                roles: [alpha, beta, stable],
            },
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
            backstop: Backstop {
                targets: 4,
                roles: [1, 2, 30],
            },
        };
        assert_eq!(token.backstop.floors(Channel::Stable).role.version, 30);
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(&hex::encode([2; 32])));
        let text = token.to_string();
        assert!(text[..text.len() - 3].parse::<JoinToken>().is_err());
        assert!(text.replace("tgj2", "tgj1").parse::<JoinToken>().is_err());
    }
}

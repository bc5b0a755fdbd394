//! Session tickets and nonces: keyed hashes that any replica verifies without a database query.
//!
//! A ticket is `<device id>.<expiry>.<number>.<MAC>`: a keyed hash of the id, the device's public key, the
//! expiry and the number of the signed request that opened the session. Tickets of before have no number.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tidegate_protocol::{DeviceId, Timestamp};

use crate::random;

/// Lifetime of a nonce handed out by the server, in seconds.
const NONCE_LIFE_S: i64 = 300;

/// Key of tickets and nonces, shared by all replicas.
#[derive(Clone)]
pub struct TicketKey([u8; 32]);

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKey")
    }
}

impl TicketKey {
    /// Parses the stored form.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// Generates a key, in its stored form.
    pub fn fresh_hex() -> String {
        hex::encode(random::bytes::<32>())
    }

    fn mac(&self, purpose: &str, parts: &[&str]) -> Hmac<Sha256> {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            unreachable!("HMAC takes keys of any length")
        };
        mac.update(purpose.as_bytes());
        for part in parts {
            // Prefix each part with its length, so that different lists of parts never collide.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }

    fn tag(&self, purpose: &str, parts: &[&str]) -> String {
        hex::encode(self.mac(purpose, parts).finalize().into_bytes())
    }

    pub(crate) fn check(&self, purpose: &str, parts: &[&str], tag: &str) -> bool {
        hex::decode(tag).is_ok_and(|tag| self.mac(purpose, parts).verify_slice(&tag).is_ok())
    }

    /// Issues a ticket.
    pub(crate) fn ticket(
        &self,
        device: DeviceId,
        public_key: &str,
        number: u64,
        expires: Timestamp,
    ) -> String {
        let (id, until) = (device.to_string(), expires.as_secs().to_string());
        let number = number.to_string();
        let tag = self.tag("session", &[&id, public_key, &until, &number]);
        format!("{id}.{until}.{number}.{tag}")
    }

    /// Issues a nonce: the time of issue, a random part, and a MAC.
    pub(crate) fn nonce(&self, now: Timestamp) -> String {
        let (at, salt) = (
            now.as_secs().to_string(),
            hex::encode(random::bytes::<12>()),
        );
        let tag = self.tag("nonce", &[&at, &salt]);
        format!("{at}.{salt}.{tag}")
    }

    pub(crate) fn nonce_is_fresh(&self, nonce: &str, now: Timestamp) -> bool {
        let mut parts = nonce.splitn(3, '.');
        let (Some(at), Some(salt), Some(tag)) = (parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        let Ok(secs) = at.parse::<i64>() else {
            return false;
        };
        let age = now.as_secs().saturating_sub(secs);
        self.check("nonce", &[at, salt], tag) && (-NONCE_LIFE_S..=NONCE_LIFE_S).contains(&age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TicketKey {
        TicketKey([3; 32])
    }

    #[test]
    fn a_nonce_is_good_for_a_while_and_only_from_this_server() {
        let now = Timestamp::from_secs(1_000_000);
        let nonce = key().nonce(now);
        assert!(key().nonce_is_fresh(&nonce, now));
        let late = Timestamp::from_secs(1_000_000 + NONCE_LIFE_S + 1);
        assert!(!key().nonce_is_fresh(&nonce, late));
        assert!(!TicketKey([4; 32]).nonce_is_fresh(&nonce, now));
        assert!(!key().nonce_is_fresh("1000000.x.00", now));
        assert!(!key().nonce_is_fresh("", now));
    }

    #[test]
    fn a_ticket_is_bound_to_device_key_and_time() {
        let device = DeviceId::from_random([1; 16]);
        let ticket = key().ticket(device, "aa", 7, Timestamp::from_secs(50));
        let tag = ticket.rsplit('.').next().unwrap();
        let id = device.to_string();
        assert!(key().check("session", &[&id, "aa", "50", "7"], tag));
        for other in [
            &[&id, "bb", "50", "7"][..],
            &[&id, "aa", "51", "7"],
            &[&id, "aa", "50", "8"],
            &[&id, "aa", "50"],
        ] {
            assert!(!key().check("session", other, tag));
        }
        assert!(!key().check("nonce", &[&id, "aa", "50", "7"], tag));
    }
}

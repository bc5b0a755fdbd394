//! Sessions of devices: signed requests in, tickets out.
//!
//! A ticket is `<device id>.<expiry>.<MAC>`: a keyed hash of the id, the device's public key and
//! the expiry. Any replica checks it without a look at the database.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tidegate_protocol::{DeviceId, ProblemCode, SessionGranted, Timestamp};
use tidegate_trust::http_signature::{RequestFacts, SignatureHeaders, Signer, verify_request};

use super::ServiceError;
use crate::app::App;
use crate::random;

/// How long a nonce that the server handed out may be used, in seconds.
const NONCE_LIFE_S: i64 = 300;

/// The key of tickets and nonces, shared by all replicas.
#[derive(Clone)]
pub struct TicketKey([u8; 32]);

impl TicketKey {
    /// From its stored form.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// A fresh key in its stored form.
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
            // The length goes first, so that no two lists of parts look alike.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }

    fn tag(&self, purpose: &str, parts: &[&str]) -> String {
        hex::encode(self.mac(purpose, parts).finalize().into_bytes())
    }

    fn check(&self, purpose: &str, parts: &[&str], tag: &str) -> bool {
        hex::decode(tag).is_ok_and(|tag| self.mac(purpose, parts).verify_slice(&tag).is_ok())
    }

    /// A ticket.
    fn ticket(&self, device: DeviceId, public_key: &str, expires: Timestamp) -> String {
        let (id, until) = (device.to_string(), expires.as_secs().to_string());
        let tag = self.tag("session", &[&id, public_key, &until]);
        format!("{id}.{until}.{tag}")
    }

    /// A nonce: the time at which it was handed out, something random, and a MAC.
    fn nonce(&self, now: Timestamp) -> String {
        let (at, salt) = (
            now.as_secs().to_string(),
            hex::encode(random::bytes::<12>()),
        );
        let tag = self.tag("nonce", &[&at, &salt]);
        format!("{at}.{salt}.{tag}")
    }

    fn nonce_is_fresh(&self, nonce: &str, now: Timestamp) -> bool {
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

impl App {
    /// A nonce for a signed request.
    pub fn fresh_nonce(&self) -> String {
        self.tickets.nonce(self.now())
    }

    /// Checks the signature and the nonce of a request; says which key signed.
    pub fn verify_signed(
        &self,
        headers: Option<&SignatureHeaders>,
        request: &RequestFacts<'_>,
    ) -> Result<Signer, ServiceError> {
        let needed = |text: &str| ServiceError::refuse(ProblemCode::NonceRequired, text);
        let headers = headers.ok_or_else(|| needed("the request is not signed"))?;
        let signer = verify_request(headers, request)
            .map_err(|e| ServiceError::refuse(ProblemCode::Unauthenticated, e.to_string()))?;
        if !self.tickets.nonce_is_fresh(&signer.nonce, self.now()) {
            return Err(needed("the nonce is not one of this server's, or too old"));
        }
        Ok(signer)
    }

    /// Grants a session to the device whose key signed.
    pub async fn grant_session(
        &self,
        device: DeviceId,
        signer: &Signer,
    ) -> Result<SessionGranted, ServiceError> {
        let unknown = || {
            ServiceError::refuse(
                ProblemCode::Unauthenticated,
                "no device of this id has this key; enrol again",
            )
        };
        if self.fleet.device(device).is_none() {
            // It may have joined through another replica a moment ago.
            self.fleet.reload_device(&self.db, device).await?;
        }
        let entry = self.fleet.device(device).ok_or_else(unknown)?;
        let state = entry.lock();
        if state.device.public_key != signer.key.to_string() {
            return Err(unknown());
        }
        if !state.device.active {
            return Err(ServiceError::refuse(
                ProblemCode::DeviceRevoked,
                "the device is revoked",
            ));
        }
        let session = self.settings.devices.session;
        let expires = self.now().plus(session);
        Ok(SessionGranted {
            ticket: self
                .tickets
                .ticket(device, &state.device.public_key, expires),
            expires_in_s: u32::try_from(session.as_secs()).unwrap_or(u32::MAX),
        })
    }

    /// Which device bears a ticket. Revocation bites here, at the next request.
    pub fn authenticate_device(&self, ticket: &str) -> Result<DeviceId, ServiceError> {
        let refused = || {
            ServiceError::refuse(
                ProblemCode::Unauthenticated,
                "the session has ended; open another",
            )
        };
        let mut parts = ticket.splitn(3, '.');
        let (Some(id), Some(until), Some(tag)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refused());
        };
        let device: DeviceId = id.parse().map_err(|_| refused())?;
        let expires: i64 = until.parse().map_err(|_| refused())?;
        let entry = self.fleet.device(device).ok_or_else(refused)?;
        let state = entry.lock();
        if !self
            .tickets
            .check("session", &[id, &state.device.public_key, until], tag)
            || expires <= self.now().as_secs()
        {
            return Err(refused());
        }
        if !state.device.active {
            return Err(ServiceError::refuse(
                ProblemCode::DeviceRevoked,
                "the device is revoked",
            ));
        }
        Ok(device)
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
        let ticket = key().ticket(device, "aa", Timestamp::from_secs(50));
        let tag = ticket.rsplit('.').next().unwrap();
        let id = device.to_string();
        assert!(key().check("session", &[&id, "aa", "50"], tag));
        assert!(!key().check("session", &[&id, "bb", "50"], tag));
        assert!(!key().check("session", &[&id, "aa", "51"], tag));
        assert!(!key().check("nonce", &[&id, "aa", "50"], tag));
    }
}

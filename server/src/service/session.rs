//! Sessions of devices: a signed request opens one, a ticket identifies it.
//!
//! A ticket is `<device id>.<expiry>.<MAC>`: a keyed hash of the id, the device's public key and
//! the expiry. Any replica verifies it without a database query.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tidegate_domain::event::Event;
use tidegate_domain::requests::Numbered;
use tidegate_protocol::{
    DeviceId, Format, KeyChange, KeyChanged, ProblemCode, SessionGranted, SessionRequest, Timestamp,
};
use tidegate_trust::http_signature::{RequestFacts, SignatureHeaders, Signer, verify_request};
use tidegate_trust::{PublicKey, key_change};

use super::ServiceError;
use super::checkin::revoked;
use crate::app::App;
use crate::random;
use crate::store::devices;

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

    fn check(&self, purpose: &str, parts: &[&str], tag: &str) -> bool {
        hex::decode(tag).is_ok_and(|tag| self.mac(purpose, parts).verify_slice(&tag).is_ok())
    }

    /// Issues a ticket.
    fn ticket(&self, device: DeviceId, public_key: &str, expires: Timestamp) -> String {
        let (id, until) = (device.to_string(), expires.as_secs().to_string());
        let tag = self.tag("session", &[&id, public_key, &until]);
        format!("{id}.{until}.{tag}")
    }

    /// Issues a nonce: the time of issue, a random part, and a MAC.
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

/// Refuses a device whose messages this server would misread.
pub(super) fn require_format(format: Format) -> Result<(), ServiceError> {
    format
        .check("the agent", "this server")
        .map_err(|e| ServiceError::refuse(ProblemCode::FormatUnsupported, e.to_string()))
}

impl App {
    /// Issues a nonce for a signed request.
    pub fn fresh_nonce(&self) -> String {
        self.fleet.plan().trust.secrets.tickets.nonce(self.now())
    }

    /// Verifies the signature and the nonce of a request; returns the signer.
    pub fn verify_signed(
        &self,
        headers: Option<&SignatureHeaders>,
        request: &RequestFacts<'_>,
    ) -> Result<Signer, ServiceError> {
        let needed = |text: &str| ServiceError::refuse(ProblemCode::NonceRequired, text);
        let headers = headers.ok_or_else(|| needed("the request is not signed"))?;
        let signer = verify_request(headers, request)
            .map_err(|e| ServiceError::refuse(ProblemCode::Unauthenticated, e.to_string()))?;
        if !self
            .fleet
            .plan()
            .trust
            .secrets
            .tickets
            .nonce_is_fresh(&signer.nonce, self.now())
        {
            return Err(needed("the nonce is unknown or expired"));
        }
        Ok(signer)
    }

    /// Opens a session for the device whose key signed.
    pub async fn grant_session(
        &self,
        request: &SessionRequest,
        signer: &Signer,
    ) -> Result<SessionGranted, ServiceError> {
        require_format(request.format)?;
        let device = request.device;
        self.known_signer(device, &signer.key).await?;
        self.check_number(device, request.counter, signer).await?;
        let session = self.settings.devices.session;
        let expires = self.now().plus(session);
        Ok(SessionGranted {
            ticket: self.fleet.plan().trust.secrets.tickets.ticket(
                device,
                &signer.key.to_string(),
                expires,
            ),
            expires_in_s: u32::try_from(session.as_secs()).unwrap_or(u32::MAX),
        })
    }

    /// Checks that a device has this key and may take part.
    async fn known_signer(&self, device: DeviceId, key: &PublicKey) -> Result<(), ServiceError> {
        let unknown = || {
            ServiceError::refuse(
                ProblemCode::Unauthenticated,
                "no device with this id has this key; enroll again",
            )
        };
        let key = key.to_string();
        let is_known = || {
            let entry = self.fleet.device(device)?;
            let known = entry.lock().device.public_key == key;
            known.then_some(entry)
        };
        if is_known().is_none() {
            // It may have just joined, or changed its key, through another replica.
            self.fleet.reload_device(&self.db, device).await?;
        }
        let entry = is_known().ok_or_else(unknown)?;
        let state = entry.lock();
        if !state.device.active {
            return Err(revoked());
        }
        Ok(())
    }

    /// Checks the number of a signed request. A repeated request is refused, and so is one older
    /// than the newest. A number already used by a different request means that two machines share
    /// one identity, or that one was restored to an older state: the device is isolated until a
    /// person has looked.
    async fn check_number(
        &self,
        device: DeviceId,
        number: u64,
        signer: &Signer,
    ) -> Result<(), ServiceError> {
        let (found, isolated) = self.take_number(device, number, &signer.nonce).await?;
        if isolated {
            self.metrics.clones.inc();
            tracing::warn!(%device, number, "a request number was used twice; the device is isolated");
        }
        let refuse = |text: &str| Err(ServiceError::refuse(ProblemCode::Unauthenticated, text));
        match found {
            Some(Numbered::New | Numbered::Forked) => Ok(()),
            Some(Numbered::Repeated) => refuse("this request was already used; sign a new one"),
            Some(Numbered::Late) => refuse("a newer request has already arrived; sign a new one"),
            None => refuse("this device is revoked or isolated"),
        }
    }

    /// Changes the key of a device. The request is signed by the current key; or, if its answer was
    /// lost, by the new one.
    pub async fn change_device_key(
        &self,
        change: &KeyChange,
        signer: &Signer,
    ) -> Result<KeyChanged, ServiceError> {
        let device = change.device;
        self.known_signer(device, &signer.key).await?;
        let new: PublicKey = change.public_key.parse().map_err(ServiceError::invalid)?;
        let done = KeyChanged {
            public_key: new.to_string(),
        };
        if signer.key == new {
            return Ok(done);
        }
        let proof = hex::decode(&change.proof).unwrap_or_default();
        let statement = key_change(device, change.counter, &signer.key, &new);
        new.verify(&statement, &proof).map_err(|_| {
            ServiceError::refuse(
                ProblemCode::Unauthenticated,
                "the change is not signed by the new key",
            )
        })?;
        self.check_number(device, change.counter, signer).await?;
        let actor = self.device_actor(device);
        self.change(&actor, async |tx| {
            let old = signer.key.to_string();
            if devices::by_key(tx, &done.public_key).await?.is_some()
                || !devices::set_key(tx, device, &old, &done.public_key).await?
            {
                return Err(ServiceError::refuse(
                    ProblemCode::Conflict,
                    "the key belongs to another device, or has just been changed",
                ));
            }
            Ok(((), vec![Event::KeyChanged { device }]))
        })
        .await?;
        Ok(done)
    }

    /// Returns the device that a ticket belongs to. Revocation takes effect here, at the next
    /// request.
    pub fn authenticate_device(&self, ticket: &str) -> Result<DeviceId, ServiceError> {
        let refused = || {
            ServiceError::refuse(
                ProblemCode::Unauthenticated,
                "the session has expired; open a new one",
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
        let plan = self.fleet.plan();
        if !plan
            .trust
            .secrets
            .tickets
            .check("session", &[id, &state.device.public_key, until], tag)
            || expires <= self.now().as_secs()
        {
            return Err(refused());
        }
        if !state.device.active {
            return Err(revoked());
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

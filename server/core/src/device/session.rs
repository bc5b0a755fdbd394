//! Sessions of devices: a signed request opens one, a ticket identifies it.

use std::sync::Arc;
use std::time::Duration;

use tidegate_domain::event::Event;
use tidegate_domain::event::budget::HOUR;
use tidegate_domain::requests::Numbered;
use tidegate_protocol::{
    DeviceId, KeyChange, KeyChanged, ProblemCode, SessionGranted, SessionRequest,
};
use tidegate_store::{devices, events};
use tidegate_trust::http_signature::{RequestFacts, SignatureHeaders, Signer};
use tidegate_trust::{PublicKey, key_change};

use crate::CoreError;
use crate::app::App;
use crate::device::{require_active, require_format};
use crate::memory::device::DeviceEntry;
use crate::public::{self, Named};

/// Time after its end for which a ticket still opens blobs and metadata.
const READING: Duration = Duration::from_hours(1);
/// Changes of its key that a device may make in an hour: each is an event, and must be seen.
const KEY_CHANGES: u64 = 4;

impl App {
    /// Issues a nonce for a signed request.
    pub fn fresh_nonce(&self) -> String {
        self.fleet.plan().trust.secrets.tickets.nonce(self.now())
    }

    /// Verifies the signature and the nonce of a request; returns the signer. The authority that it is
    /// signed for is one of this server's, whatever `request` says.
    pub fn verify_signed(
        &self,
        headers: Option<&SignatureHeaders>,
        request: &RequestFacts<'_>,
        named: &Named<'_>,
    ) -> Result<Signer, CoreError> {
        let needed = |text: &str| CoreError::refuse(ProblemCode::NonceRequired, text);
        let headers = headers.ok_or_else(|| needed("the request is not signed"))?;
        let own = &self.settings.devices.public_urls;
        let signer = public::verify(headers, request, named, own)
            .map_err(|text| CoreError::refuse(ProblemCode::Unauthenticated, text))?;
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

    /// Opens a session for the device whose key signed; `from` is the address of the request.
    pub async fn grant_session(
        &self,
        request: &SessionRequest,
        signer: &Signer,
        from: &str,
    ) -> Result<SessionGranted, CoreError> {
        require_format(request.format)?;
        let device = request.device;
        let entry = self.known_signer(device, &signer.key).await?;
        // A device that waits to be accepted may ask whether it has been.
        let waits = entry.lock().device.awaiting;
        if !waits {
            require_active(&entry.lock().device)?;
        }
        self.check_number(&entry, request.counter, signer, from)
            .await?;
        let session = self.settings.devices.session;
        let expires = self.now().plus(session);
        Ok(SessionGranted {
            ticket: self.fleet.plan().trust.secrets.tickets.ticket(
                device,
                &signer.key.to_string(),
                request.counter,
                expires,
            ),
            expires_in_s: u32::try_from(session.as_secs()).unwrap_or(u32::MAX),
        })
    }

    /// Returns the device that has this key.
    async fn known_signer(
        &self,
        device: DeviceId,
        key: &PublicKey,
    ) -> Result<Arc<DeviceEntry>, CoreError> {
        let unknown = || {
            CoreError::refuse(
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
        is_known().ok_or_else(unknown)
    }

    /// Checks the number of a signed request. A repeated request is refused, and so is one older
    /// than the newest. A number already used by a different request means that two machines share
    /// one identity, or that one was restored to an older state: the device is isolated until a
    /// person has looked, who is told where both requests came from.
    async fn check_number(
        &self,
        entry: &DeviceEntry,
        number: u64,
        signer: &Signer,
        from: &str,
    ) -> Result<(), CoreError> {
        let (device, last) = {
            let state = entry.lock();
            (state.device.id, state.device.contact.clone())
        };
        // Of both machines, so that people can find them.
        let heard = last.map(|last| {
            format!(
                ", and the last check-in came from {} at {}",
                last.from, last.at
            )
        });
        let places = format!(
            "this request came from {from} at {}{}",
            self.now(),
            heard.unwrap_or_default()
        );
        let (found, isolated) = self
            .take_number(device, number, &signer.nonce, &places)
            .await?;
        if isolated {
            self.metrics.clones.inc();
            tracing::warn!(%device, number, "a request number was used twice; the device is isolated");
        }
        let refuse = |text: &str| Err(CoreError::refuse(ProblemCode::Unauthenticated, text));
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
        from: &str,
    ) -> Result<KeyChanged, CoreError> {
        let device = change.device;
        let entry = self.known_signer(device, &signer.key).await?;
        require_active(&entry.lock().device)?;
        let new: PublicKey = change.public_key.parse().map_err(CoreError::invalid)?;
        let done = KeyChanged {
            public_key: new.to_string(),
        };
        if signer.key == new {
            return Ok(done);
        }
        let proof = hex::decode(&change.proof).unwrap_or_default();
        let statement = key_change(device, change.counter, &signer.key, &new);
        new.verify(&statement, &proof).map_err(|_| {
            CoreError::refuse(
                ProblemCode::Unauthenticated,
                "the change is not signed by the new key",
            )
        })?;
        self.check_number(&entry, change.counter, signer, from)
            .await?;
        let actor = self.device_actor(device);
        self.change(&actor, async |tx| {
            let changed = Event::KeyChanged { device };
            let since = self.now().minus(HOUR);
            if events::count_of(tx, device, changed.kind(), since).await? >= KEY_CHANGES {
                return Err(CoreError::refuse(
                    ProblemCode::Conflict,
                    format!("the key was changed {KEY_CHANGES} times within an hour; it can be again later"),
                ));
            }
            let old = signer.key.to_string();
            if devices::by_key(tx, &done.public_key).await?.is_some()
                || !devices::set_key(tx, device, &old, &done.public_key).await?
            {
                return Err(CoreError::refuse(
                    ProblemCode::Conflict,
                    "the key belongs to another device, or has just been changed",
                ));
            }
            Ok(((), vec![changed]))
        })
        .await?;
        Ok(done)
    }

    /// Returns the device that a ticket belongs to. Revocation takes effect here, at the next
    /// request.
    pub fn authenticate_device(&self, ticket: &str) -> Result<DeviceId, CoreError> {
        let (entry, _) = self.device_of_ticket(ticket)?;
        let state = entry.lock();
        require_active(&state.device)?;
        Ok(state.device.id)
    }

    /// Like [`App::authenticate_device`], also for a device that waits to be accepted. Returns as well
    /// the number of the signed request that opened the session; 0 for a ticket of before.
    pub fn authenticate_waiting(&self, ticket: &str) -> Result<(DeviceId, u64), CoreError> {
        let (entry, number) = self.device_of_ticket(ticket)?;
        let state = entry.lock();
        if !state.device.awaiting {
            require_active(&state.device)?;
        }
        Ok((state.device.id, number))
    }

    /// Like [`App::authenticate_device`], for blobs and metadata. A download may outlive the session that it
    /// began in: a ticket is good for it for another hour. Revocation takes effect all the same.
    pub fn authenticate_reader(&self, ticket: &str) -> Result<DeviceId, CoreError> {
        let (entry, _) = self.ticket_within(ticket, READING)?;
        let state = entry.lock();
        require_active(&state.device)?;
        Ok(state.device.id)
    }

    fn device_of_ticket(&self, ticket: &str) -> Result<(Arc<DeviceEntry>, u64), CoreError> {
        self.ticket_within(ticket, Duration::ZERO)
    }

    /// Returns the device of a ticket that has not ended for longer than `grace`, and the number of the
    /// request that opened its session.
    fn ticket_within(
        &self,
        ticket: &str,
        grace: Duration,
    ) -> Result<(Arc<DeviceEntry>, u64), CoreError> {
        let refused = || {
            CoreError::refuse(
                ProblemCode::Unauthenticated,
                "the session has expired; open a new one",
            )
        };
        let parts: Vec<&str> = ticket.splitn(4, '.').collect();
        let (id, until, number, tag) = match parts[..] {
            [id, until, number, tag] => (id, until, Some(number), tag),
            // Of the version before; it lives for an hour.
            [id, until, tag] => (id, until, None, tag),
            _ => return Err(refused()),
        };
        let device: DeviceId = id.parse().map_err(|_| refused())?;
        let expires: i64 = until.parse().map_err(|_| refused())?;
        let opened: u64 = number.map_or(Ok(0), str::parse).map_err(|_| refused())?;
        let entry = self.fleet.device(device).ok_or_else(refused)?;
        let state = entry.lock();
        let plan = self.fleet.plan();
        let mut signed = vec![id, &state.device.public_key, until];
        signed.extend(number);
        if !plan.trust.secrets.tickets.check("session", &signed, tag)
            || expires <= self.now().minus(grace).as_secs()
        {
            return Err(refused());
        }
        drop(state);
        Ok((entry, opened))
    }
}

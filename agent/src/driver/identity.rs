//! Identity of the device towards the server: sessions, and key rotation.

use tidegate_protocol::{
    Explained, Format, KeyChange, KeyChanged, Reason, SessionGranted, SessionRequest, Timestamp,
    paths,
};
use tidegate_trust::assignment::KeyOrder;
use tidegate_trust::{SecretKey, key_change};

use super::{Driver, DriverError, RoundError, encode};
use crate::host::platform;
use crate::log;
use crate::net::TransportError;
use crate::net::signed::send_signed;
use crate::people::config::ConfigError;
use crate::people::identity;

impl Driver {
    /// Returns the number of the next signed request. It is used up before it is sent: two machines
    /// with one identity are detected by the numbers that both of them use.
    fn next_request(&mut self) -> Result<u64, DriverError> {
        let mut record = self.journal().draft();
        record.requests += 1;
        let number = record.requests;
        self.write(record)?;
        Ok(number)
    }

    /// Opens a session if there is none, before a download that an earlier process began. If that fails, the
    /// download itself says why.
    pub(super) async fn seek_session(&mut self) {
        if !self.client.has_ticket() {
            let _ = self.open_session().await;
        }
    }

    pub(super) async fn open_session(&mut self) -> Result<(), RoundError> {
        let key = self.key.clone();
        match self.session_by(&key).await {
            Err(error) if is_unknown(&error) => self.fall_back(error).await,
            other => other,
        }
    }

    async fn session_by(&mut self, key: &SecretKey) -> Result<(), RoundError> {
        let request = SessionRequest {
            format: Format::CURRENT,
            device: self.config.device,
            counter: self.next_request()?,
        };
        let body = encode(&request)?;
        let answer = send_signed(&mut self.client, key, paths::SESSION, body)
            .await?
            .ok()?;
        let granted: SessionGranted = serde_json::from_slice(&answer)
            .map_err(|e| TransportError::Malformed(e.to_string()))?;
        self.client.set_ticket(Some(granted.ticket));
        Ok(())
    }

    /// Tries the keys of before at a server that does not know the present one: it was restored from
    /// a backup, or the change was taken by one that had stolen its place. Returns the error that led here
    /// if none of them opens a session. The present key is announced again.
    async fn fall_back(&mut self, error: RoundError) -> Result<(), RoundError> {
        for old in identity::old_identities(&self.state) {
            if old.public() == self.key.public() {
                continue;
            }
            match self.session_by(&old).await {
                Err(error) if is_unknown(&error) => continue,
                other => other?,
            }
            log::line(
                "the server knows an earlier key of this device: using it, and announcing the new one again",
            );
            identity::put_back_identity(&*self.fs, &self.state, &old).map_err(DriverError::from)?;
            self.key = old;
            return Ok(());
        }
        Err(error)
    }

    /// Obeys a signed order for a new key, unless the key was changed too often.
    pub(super) async fn take_key_order(
        &mut self,
        text: &str,
        nonce: String,
    ) -> Result<(), RoundError> {
        let trusted = self.refresh().await?;
        let expected = KeyOrder {
            device: self.config.device,
            nonce,
            replaces: self.key.public().to_string(),
        };
        expected.verify(&trusted, text.as_bytes(), self.clock())?;
        // The server is told with the next check-in, and the round goes on.
        self.refused = (!identity::has_room(&self.state, self.latest())).then(|| {
            let text = ConfigError::KeyChanges.to_string();
            Explained::new(Reason::AssignmentRefused, text)
        });
        if self.refused.is_some() {
            return Ok(());
        }
        self.change_key().await
    }

    /// The newest time that is known here: a clock that was set back makes no key of before younger.
    fn latest(&self) -> Timestamp {
        platform::now().max(self.journal().record().time_floor)
    }

    /// Rotates the device's key: the new one is made durable, then announced under the old one,
    /// then taken into use. Interrupted at any step, it is repeated: a server that has the new key
    /// already gets the announcement signed by the new key itself. The old key is kept for a month.
    pub(super) async fn change_key(&mut self) -> Result<(), RoundError> {
        let now = self.latest();
        let next =
            identity::next_identity(&*self.fs, &self.state, now).map_err(DriverError::from)?;
        if next.public() == self.key.public() {
            // Interrupted on the way back to a key of before.
            return identity::drop_next_identity(&*self.fs, &self.state)
                .map_err(|e| DriverError::from(e).into());
        }
        match self.announce(&next, false).await {
            Err(error) if is_unknown(&error) => match self.announce(&next, true).await {
                Err(error) if is_unknown(&error) => {
                    // It knows neither: announced again under the key that it does know.
                    return self.fall_back(error).await;
                }
                other => other?,
            },
            other => other?,
        }
        identity::take_next_identity(&*self.fs, &self.state, now).map_err(DriverError::from)?;
        self.key = next;
        self.client.set_ticket(None);
        log::line("device key rotated");
        Ok(())
    }

    async fn announce(&mut self, next: &SecretKey, signed_by_new: bool) -> Result<(), RoundError> {
        let (device, counter) = (self.config.device, self.next_request()?);
        let new = next.public();
        let proof = next.sign(&key_change(device, counter, &self.key.public(), &new));
        let change = KeyChange {
            device,
            counter,
            public_key: new.to_string(),
            proof: hex::encode(proof),
        };
        let body = encode(&change)?;
        let signer = if signed_by_new { next } else { &self.key };
        let answer = send_signed(&mut self.client, signer, paths::KEY, body)
            .await?
            .ok()?;
        let changed: KeyChanged = serde_json::from_slice(&answer)
            .map_err(|e| TransportError::Malformed(e.to_string()))?;
        if changed.public_key == change.public_key {
            Ok(())
        } else {
            Err(TransportError::Malformed("the server accepted a different key".into()).into())
        }
    }
}

/// Returns whether a server refused a request since it does not know the key.
fn is_unknown(error: &RoundError) -> bool {
    matches!(
        error,
        RoundError::Transport(TransportError::Status { status: 401, .. })
    )
}

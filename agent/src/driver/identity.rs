//! Identity of the device towards the server: sessions, and key rotation.

use tidegate_protocol::{Format, KeyChange, KeyChanged, SessionGranted, SessionRequest, paths};
use tidegate_trust::{SecretKey, key_change};

use super::{Driver, DriverError, RoundError, encode};
use crate::log;
use crate::net::TransportError;
use crate::net::signed::send_signed;
use crate::people::identity;

impl Driver {
    /// Returns the number of the next signed request. It is used up before it is sent: two machines
    /// with one identity are detected by the numbers that both of them use.
    fn next_request(&mut self) -> Result<u64, DriverError> {
        let mut record = self.journal().draft();
        record.requests += 1;
        let number = record.requests;
        self.core.journal.write(record)?;
        Ok(number)
    }

    pub(super) async fn open_session(&mut self) -> Result<String, RoundError> {
        let key = self.key.clone();
        match self.session_by(&key).await {
            Err(error) if is_unknown(&error) => self.fall_back(error).await,
            other => other,
        }
    }

    async fn session_by(&mut self, key: &SecretKey) -> Result<String, RoundError> {
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
        self.ticket = Some(granted.ticket.clone());
        Ok(granted.ticket)
    }

    /// Tries the keys of before at a server that does not know the present one: it was restored from
    /// a backup, or the change was taken by one that had stolen its place. Returns a session, or the
    /// error that led here. The present key is announced again.
    async fn fall_back(&mut self, error: RoundError) -> Result<String, RoundError> {
        for old in identity::old_identities(&self.state) {
            if old.public() == self.key.public() {
                continue;
            }
            let session = match self.session_by(&old).await {
                Err(error) if is_unknown(&error) => continue,
                other => other?,
            };
            log::line(
                "the server knows an earlier key of this device: using it, and announcing the new one again",
            );
            identity::put_back_identity(&*self.fs, &self.state, &old).map_err(DriverError::from)?;
            self.key = old;
            return Ok(session);
        }
        Err(error)
    }

    /// Rotates the device's key: the new one is made durable, then announced under the old one,
    /// then taken into use. Interrupted at any step, it is repeated: a server that has the new key
    /// already gets the announcement signed by the new key itself. The old key is kept for a month.
    pub(super) async fn change_key(&mut self) -> Result<(), RoundError> {
        if !identity::may_change_identity(&self.state) {
            let text =
                "the device's key is not changed: it was changed too often in the last 30 days";
            log::line(text);
            return identity::drop_next_identity(&*self.fs, &self.state)
                .map_err(|e| DriverError::from(e).into());
        }
        let next = identity::next_identity(&*self.fs, &self.state).map_err(DriverError::from)?;
        if next.public() == self.key.public() {
            return identity::drop_next_identity(&*self.fs, &self.state)
                .map_err(|e| DriverError::from(e).into());
        }
        let by_old = self.announce(&next, false).await;
        match by_old {
            Err(error) if is_unknown(&error) => match self.announce(&next, true).await {
                Err(error) if is_unknown(&error) => {
                    // It knows neither: announced again under the key that it does know.
                    return self.fall_back(error).await.map(drop);
                }
                other => other?,
            },
            other => other?,
        }
        identity::take_next_identity(&*self.fs, &self.state).map_err(DriverError::from)?;
        self.key = next;
        self.ticket = None;
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

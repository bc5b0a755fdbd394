//! Identity of the device towards the server: sessions, and key rotation.

use tidegate_protocol::{Format, KeyChange, KeyChanged, SessionGranted, SessionRequest, paths};
use tidegate_trust::{SecretKey, key_change};

use super::{Driver, DriverError, RoundError, encode};
use crate::log;
use crate::net::TransportError;
use crate::net::signed::send_signed;
use crate::people::config;

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
        let request = SessionRequest {
            format: Format::CURRENT,
            device: self.config.device,
            counter: self.next_request()?,
        };
        let body = encode(&request)?;
        let answer = send_signed(&mut self.client, &self.key, paths::SESSION, body)
            .await?
            .ok()?;
        let granted: SessionGranted = serde_json::from_slice(&answer)
            .map_err(|e| TransportError::Malformed(e.to_string()))?;
        self.ticket = Some(granted.ticket.clone());
        Ok(granted.ticket)
    }

    /// Rotates the device's key: the new one is made durable, then announced under the old one,
    /// then taken into use. Interrupted at any step, it is repeated: a server that has the new key
    /// already gets the announcement signed by the new key itself.
    pub(super) async fn change_key(&mut self) -> Result<(), RoundError> {
        let next = config::next_identity(&*self.fs, &self.state).map_err(DriverError::from)?;
        let by_old = self.announce(&next, false).await;
        if let Err(RoundError::Transport(TransportError::Status { status: 401, .. })) = by_old {
            self.announce(&next, true).await?;
        } else {
            by_old?;
        }
        config::take_next_identity(&*self.fs, &self.state).map_err(DriverError::from)?;
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

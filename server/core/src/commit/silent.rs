//! Writes without an event, each by name: no other part needs to follow them. The architecture test
//! checks this list.

use std::time::Duration;

use tidegate_domain::event::{Actor, Event};
use tidegate_domain::requests::Numbered;
use tidegate_domain::rollout::Stratum;
use tidegate_protocol::{DeviceId, Image, JobId, RolloutId, Timestamp};
use tidegate_store::artifacts::{self, Payload};
use tidegate_store::devices::{self, Device};
use tidegate_store::jobs::{self, Job, Outcome};
use tidegate_store::requests;
use tidegate_store::{Db, StoreError, Tx, aggregates, operators};

use crate::CoreError;
use crate::app::App;
use crate::commit::Done;
use crate::memory::secrets::Secrets;

impl App {
    /// Writes without an event; nothing in memory depends on the rows.
    async fn silently<T>(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tx = self.db.begin_write().await?;
        let value = work(&mut tx).await?;
        tx.commit().await?;
        Ok(value)
    }

    /// Writes the latest heartbeats of devices; other replicas read them from the rows.
    pub(crate) async fn write_heartbeats(&self, heard: &[Device]) -> Result<(), StoreError> {
        let now = self.now();
        self.silently(async |tx| {
            for device in heard {
                devices::heartbeat(tx, device, now).await?;
            }
            Ok(())
        })
        .await
    }

    /// Claims or renews a lease; returns whether this replica holds it now.
    pub async fn claim_lease(&self, name: &'static str, term: Duration) -> Result<bool, CoreError> {
        let now = self.now();
        Ok(self
            .silently(async |tx| jobs::claim_lease(tx, name, &self.origin, now, term).await)
            .await?)
    }

    /// Releases a lease so that another replica need not wait for it to expire.
    pub async fn release_lease(&self, name: &'static str) -> Result<(), CoreError> {
        Ok(self
            .silently(async |tx| jobs::release_lease(tx, name, &self.origin).await)
            .await?)
    }

    /// Deletes idempotency keys older than this time.
    pub async fn forget_idempotency(&self, before: Timestamp) -> Result<(), CoreError> {
        Ok(self
            .silently(async |tx| operators::forget_before(tx, before).await.map(drop))
            .await?)
    }

    /// Takes the next job from the queue under a lease of this length; `None` if there is none.
    pub async fn take_job(&self, lease: Duration) -> Result<Option<Job>, CoreError> {
        let now = self.now();
        Ok(self
            .silently(async |tx| jobs::take(tx, &self.origin, now, lease).await)
            .await?)
    }

    /// Extends the lease of a job to this long from now.
    pub async fn keep_job(&self, id: JobId, lease: Duration) -> Result<(), CoreError> {
        let until = self.now().plus(lease);
        Ok(self
            .silently(async |tx| jobs::extend(tx, id, &self.origin, until).await.map(drop))
            .await?)
    }

    /// Records the outcome of a job.
    pub async fn finish_job(&self, id: JobId, outcome: &Outcome) -> Result<(), CoreError> {
        let now = self.now();
        Ok(self
            .silently(async |tx| jobs::finish(tx, id, &self.origin, outcome, now).await)
            .await?)
    }

    /// Records a stored blob and its raw payload. Making it part of a release is an event.
    pub(crate) async fn keep_blob(&self, image: Image, raw: &Payload) -> Result<(), StoreError> {
        let now = self.now();
        self.silently(async |tx| {
            artifacts::insert_blob(tx, image, now).await?;
            artifacts::insert_payload(tx, raw, now).await.map(drop)
        })
        .await
    }

    /// Records what the comparison of a rollout's new and old release observed.
    pub(crate) async fn remember_comparison(
        &self,
        rollout: RolloutId,
        at: Timestamp,
        stratum: Stratum,
    ) -> Result<(), StoreError> {
        self.silently(async |tx| aggregates::add_stratum(tx, rollout, at, stratum).await)
            .await
    }

    /// Takes the number of a device's signed request; `None` if the device may not take part. A
    /// number that another request has used isolates the device, which is an event; the flag is
    /// `true` if that happened now. `places` says where both requests came from.
    pub(crate) async fn take_number(
        &self,
        device: DeviceId,
        number: u64,
        nonce: &str,
        places: &str,
    ) -> Result<(Option<Numbered>, bool), CoreError> {
        self.change_or_leave(async |tx| {
            let found = requests::take(tx, device, number, nonce).await?;
            match found {
                // Nothing was taken.
                None | Some(Numbered::Repeated) => Ok(Done::Leave((found, false))),
                Some(Numbered::New | Numbered::Late) => {
                    Ok(Done::Commit((found, false), Vec::new()))
                }
                Some(Numbered::Forked) => {
                    let known = devices::one(tx, device).await?;
                    if !known.is_some_and(|d| d.active && d.isolated.is_empty()) {
                        return Ok(Done::Leave((found, false)));
                    }
                    let why = format!(
                        "its signed request {number} was used before, or does not follow the others: two machines have this \
                         identity, or one was restored to an older state; {places}"
                    );
                    devices::set_isolated(tx, device, &why).await?;
                    let isolated = Event::DeviceIsolated {
                        device,
                        request: Some(number),
                        reason: why,
                    };
                    Ok(Done::by(&Actor::CheckIn, (found, true), [isolated]))
                }
            }
        })
        .await
    }
}

/// Creates the secrets that all replicas share, before the server runs. Replicas that start
/// together end up with the same ones.
pub(crate) async fn first_secrets(db: &Db, now: Timestamp) -> Result<Secrets, CoreError> {
    let mut tx = db.begin_write().await?;
    let secrets = Secrets::ensure_in(&mut tx, now).await?;
    tx.commit().await?;
    Ok(secrets)
}

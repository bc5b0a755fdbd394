//! Orders of people about a device: revoke it, isolate it, lift a quarantine; and looks at it.

use std::sync::Arc;

use tidegate_domain::admission::{Step, barred_later};
use tidegate_domain::event::{Actor, Event};
use tidegate_protocol::{DeviceId, Explained, ProblemCode, Reason, Sha256, Version};
use tidegate_store::{StoreError, Tx, devices, quarantine, waiting};
use tidegate_trust::PublicKey;

use crate::CoreError;
use crate::app::App;
use crate::memory::access::Operator;
use crate::memory::device::{DeviceEntry, DeviceState};

/// Explanation of what a device is told.
#[derive(Debug, Clone)]
pub struct WhyDevice {
    /// Reason it would be given now.
    pub reason: Explained,
    /// All steps of the decision.
    pub steps: Vec<Step>,
}

/// A device, the reason it would be given now, and whether it is online.
#[derive(Debug, Clone)]
pub struct DeviceStanding {
    /// Its state.
    pub state: DeviceState,
    /// Reason it would be given now.
    pub reason: Explained,
    /// Whether it was heard from lately.
    pub online: bool,
    /// Reason that it could not be ordered back later to what it runs now, if there is one.
    pub no_way_back: Option<Explained>,
}

/// Fingerprint of a stored key.
pub fn fingerprint(public_key: &str) -> Result<Sha256, CoreError> {
    let key: PublicKey = public_key.parse().map_err(CoreError::invalid)?;
    Ok(key.fingerprint())
}

/// Adds to a reason what people may know, and the device is not told: it may be the copy.
fn told(reason: Explained, state: &DeviceState) -> Explained {
    if reason.code == Reason::DeviceIsolated && reason.detail.is_empty() {
        return Explained::new(reason.code, state.device.isolated.clone());
    }
    reason
}

impl App {
    /// Returns a device as people look at it.
    pub async fn device_standing(&self, id: DeviceId) -> Result<DeviceStanding, CoreError> {
        let entry = self.device(id).await?;
        let plan = self.fleet.plan();
        let state = entry.lock().clone();
        let now = self.now();
        let places = |rollout| self.fleet.permits_left(rollout);
        let reason = told(state.decide(&plan, &places, now, &mut ()).reason, &state);
        let online = state.device.last_seen >= now.minus(self.settings.devices.offline_after());
        let product = plan.product(&state.device.product);
        let no_way_back = barred_later(product, &state.facts());
        Ok(DeviceStanding {
            state,
            reason,
            online,
            no_way_back,
        })
    }

    /// Revokes a device, or readmits it.
    pub async fn set_device_active(
        &self,
        by: &Operator,
        id: DeviceId,
        active: bool,
        reason: &str,
    ) -> Result<(), CoreError> {
        let reason = reason.to_owned();
        let event = if active {
            Event::DeviceReadmitted { device: id, reason }
        } else {
            Event::DeviceRevoked { device: id, reason }
        };
        self.change_device(by, id, event, async |tx| {
            if active {
                devices::readmit(tx, id).await
            } else {
                devices::revoke(tx, id).await
            }
        })
        .await
    }

    /// Accepts a device that waits, or rejects it. If a fingerprint is given, the device's key must
    /// have it: ids and names are what the device says, its key is what it has.
    pub async fn decide_waiting(
        &self,
        by: &Operator,
        id: DeviceId,
        accept: bool,
        key: Option<Sha256>,
        reason: &str,
    ) -> Result<(), CoreError> {
        let reason = reason.to_owned();
        let event = if accept {
            Event::DeviceAccepted { device: id, reason }
        } else {
            Event::DeviceRejected { device: id, reason }
        };
        self.change(&by.actor, async |tx| {
            let known = devices::one(tx, id).await?;
            let known = known.filter(|device| device.awaiting);
            let known =
                known.ok_or_else(|| CoreError::not_found(format!("waiting device {id}")))?;
            let found = fingerprint(&known.public_key)?;
            if key.is_some_and(|key| key != found) {
                let text = format!("the device's key has another fingerprint: {found}");
                return Err(CoreError::refuse(ProblemCode::Conflict, text));
            }
            if accept {
                waiting::accept(tx, id).await?;
            } else {
                waiting::reject(tx, id).await?;
            }
            Ok(((), vec![event]))
        })
        .await
    }

    /// Returns devices that wait for a person to accept them, after a position, by id; an empty
    /// `product` selects all.
    pub async fn waiting_devices(
        &self,
        after: &str,
        product: &str,
        limit: i64,
    ) -> Result<Vec<DeviceId>, CoreError> {
        let mut tx = self.db.read().await?;
        Ok(waiting::page(&mut tx, after, product, limit).await?)
    }

    /// Isolates a device: it may only roll back until it is readmitted.
    pub async fn isolate_device(
        &self,
        by: &Operator,
        id: DeviceId,
        reason: &str,
    ) -> Result<(), CoreError> {
        let event = Event::DeviceIsolated {
            device: id,
            request: None,
            reason: reason.to_owned(),
        };
        self.change_device(by, id, event, async |tx| {
            devices::set_isolated(tx, id, reason).await
        })
        .await
    }

    /// Asks a device to generate a new key.
    pub async fn want_new_key(
        &self,
        by: &Operator,
        id: DeviceId,
        reason: &str,
    ) -> Result<(), CoreError> {
        let event = Event::KeyAsked {
            device: id,
            reason: reason.to_owned(),
        };
        self.change_device(by, id, event, async |tx| {
            devices::want_new_key(tx, id).await
        })
        .await
    }

    /// Lifts the quarantine of a release on a device that rolled back from it.
    pub async fn lift_quarantine(
        &self,
        by: &Operator,
        id: DeviceId,
        version: &Version,
        reason: &str,
    ) -> Result<(), CoreError> {
        let event = Event::QuarantineLifted {
            device: id,
            release: version.clone(),
            reason: reason.to_owned(),
        };
        self.change_device(by, id, event, async |tx| {
            quarantine::lift(tx, id, version).await
        })
        .await
    }

    async fn change_device(
        &self,
        by: &Operator,
        id: DeviceId,
        event: Event,
        change: impl AsyncFnOnce(&mut Tx) -> Result<bool, StoreError>,
    ) -> Result<(), CoreError> {
        self.change(&by.actor, async |tx| {
            if !change(tx).await? {
                let what = format!("device {id} in a state that allows this");
                return Err(CoreError::not_found(what));
            }
            Ok(((), vec![event]))
        })
        .await
    }

    /// Returns the actor of a device's events.
    pub(crate) fn device_actor(&self, device: DeviceId) -> Actor {
        let entry = self.fleet.device(device);
        let name = entry.map_or_else(|| device.to_string(), |e| e.lock().device.name.clone());
        Actor::Device { device, name }
    }

    /// Returns a device that a person asks for; loads it if it has just joined through another
    /// replica.
    pub async fn device(&self, id: DeviceId) -> Result<Arc<DeviceEntry>, CoreError> {
        if self.fleet.device(id).is_none() {
            self.fleet.reload_device(&self.db, id).await?;
        }
        self.fleet
            .device(id)
            .ok_or_else(|| CoreError::not_found(format!("device {id}")))
    }

    /// Explains why a device is told what it is told.
    pub async fn why_device(&self, id: DeviceId) -> Result<WhyDevice, CoreError> {
        let entry = self.device(id).await?;
        let plan = self.fleet.plan();
        let mut steps = Vec::new();
        let places = |rollout| self.fleet.permits_left(rollout);
        let state = entry.lock();
        let now = self.now();
        let mut decision = state.decide(&plan, &places, now, &mut steps);
        decision.reason = told(decision.reason, &state);
        let heard = state.device.last_seen;
        if heard < now.minus(self.settings.devices.offline_after()) {
            // The decision alone does not explain why nothing happens on an offline device.
            let found =
                format!("not heard from since {heard}: it gets its orders at its next check-in");
            let detail = [decision.reason.detail.as_str(), found.as_str()];
            let said: Vec<&str> = detail.into_iter().filter(|d| !d.is_empty()).collect();
            decision.reason = Explained::new(decision.reason.code, said.join("; "));
            let step = Step {
                rollout: None,
                check: "online",
                passed: false,
                found,
            };
            steps.insert(0, step);
        }
        if let Some(refused) = &state.refused {
            steps.push(Step {
                rollout: decision.rollout,
                check: "the device's own check",
                passed: false,
                found: refused.to_string(),
            });
        }
        if let Some(left) = &state.left {
            steps.push(Step {
                rollout: None,
                check: "data left in versions",
                passed: true,
                found: left.to_string(),
            });
        }
        drop(state);
        Ok(WhyDevice {
            reason: decision.reason,
            steps,
        })
    }
}

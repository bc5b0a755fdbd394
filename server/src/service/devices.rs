//! Devices: enrollment, revocation, isolation and lookup.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_domain::admission::Step;
use tidegate_domain::event::{Actor, Event};
use tidegate_domain::ring::Ring;
use tidegate_protocol::{
    Battery, Channel, DeviceId, Enroll, Enrolled, Explained, JoinTokenId, Label, ProblemCode,
    ProductName, Region, Sha256, Version,
};
use tidegate_trust::http_signature::Signer;
use tidegate_trust::{Backstop, JoinToken, Repository, RoleName};

use super::ServiceError;
use super::access::Operator;
use super::fleet::DeviceEntry;
use crate::app::App;
use crate::commit::Done;
use crate::random;
use crate::store::devices::{self, Device};
use crate::store::trust::{self, JoinRow};
use crate::store::{StoreError, Tx, products};

/// Join token to create.
#[derive(Debug, Clone)]
pub struct NewJoinToken {
    /// Product of the devices that join.
    pub product: ProductName,
    /// Region of the devices; `None` if each device names its own.
    pub region: Option<Region>,
    /// Channel of the devices; `None` if each device names its own.
    pub channel: Option<Channel>,
    /// Labels given to the devices.
    pub labels: BTreeMap<String, String>,
    /// Number of devices that may join.
    pub uses: u32,
    /// Validity.
    pub valid: Duration,
}

/// Explanation of what a device is told.
#[derive(Debug, Clone)]
pub struct WhyDevice {
    /// Reason it would be given now.
    pub reason: Explained,
    /// All steps of the decision.
    pub steps: Vec<Step>,
}

/// Current metadata versions when a token is created: a new device accepts nothing older.
fn backstop(repository: &Repository, product: &ProductName) -> Backstop {
    let role = |channel: &Channel| {
        let name = RoleName::new(product.clone(), *channel);
        repository.role(&name).map_or(0, |role| role.version)
    };
    Backstop {
        targets: repository.targets().map_or(0, |(version, _)| version),
        roles: [
            role(&Channel::Alpha),
            role(&Channel::Beta),
            role(&Channel::Stable),
        ],
    }
}

fn secret_hash(secret: &[u8; 32]) -> Sha256 {
    tidegate_delta::sha256(secret)
}

impl App {
    /// Creates a join token; the whole token is returned once.
    pub async fn create_join_token(
        &self,
        by: &Operator,
        new: NewJoinToken,
    ) -> Result<JoinToken, ServiceError> {
        let plan = self.fleet.plan();
        let (_, root) = plan.trust.root().ok_or_else(|| {
            ServiceError::refuse(
                ProblemCode::Conflict,
                "there is no trusted root yet: run `tidegate keys init` first",
            )
        })?;
        let now = self.now();
        let token = JoinToken {
            id: JoinTokenId::from_random(random::bytes()),
            secret: random::bytes(),
            root,
            backstop: backstop(&plan.trust.repository, &new.product),
        };
        self.change(&by.actor, async |tx| {
            if !products::product_exists(tx, &new.product).await? {
                return Err(ServiceError::not_found(format!("product {}", new.product)));
            }
            let row = JoinRow {
                id: token.id,
                secret_sha256: secret_hash(&token.secret),
                root_sha256: root,
                product: new.product.clone(),
                region: new.region,
                channel: new.channel,
                labels: new.labels,
                uses_left: i64::from(new.uses),
                expires_at: now.plus(new.valid),
            };
            trust::insert_join(tx, &row, &by.name, now).await?;
            let made = Event::JoinTokenMade {
                product: new.product,
                token: token.id,
                uses: new.uses.into(),
            };
            Ok(((), vec![made]))
        })
        .await?;
        Ok(token)
    }

    /// Enrolls a device. A device that repeats its request (because the answer was lost) gets the
    /// id it already has, and the token is not used twice.
    pub async fn enroll(
        &self,
        request: &Enroll,
        signer: &Signer,
    ) -> Result<Enrolled, ServiceError> {
        super::session::require_format(request.format)?;
        if request.public_key != signer.key.to_string() {
            return Err(ServiceError::refuse(
                ProblemCode::Unauthenticated,
                "the request is not signed by the key it contains",
            ));
        }
        let refused = |text: &str| ServiceError::refuse(ProblemCode::TokenRefused, text);
        let token: JoinToken = request
            .token
            .parse()
            .map_err(|e: tidegate_trust::JoinTokenError| refused(&e.to_string()))?;
        let now = self.now();
        self.change_or_leave(async |tx| {
            let row = trust::join_token(tx, token.id).await?;
            // The same text for an unknown id and a wrong secret.
            let row = row
                .filter(|row| row.secret_sha256 == secret_hash(&token.secret))
                .ok_or_else(|| refused("the token is not valid"))?;
            let root = trust::root_by_hash(tx, row.root_sha256)
                .await?
                .ok_or_else(|| {
                    refused("the root pinned by the token no longer exists; create a new token")
                })?;
            let root = String::from_utf8_lossy(&root.body).into_owned();
            if let Some(known) = devices::by_key(tx, &request.public_key).await? {
                return Ok(Done::Leave(Enrolled {
                    device: known.id,
                    region: known.region,
                    channel: known.channel,
                    root,
                }));
            }
            if row.expires_at <= now {
                return Err(refused("the token has expired; create a new one"));
            }
            let device = self.new_device(request, &row)?;
            if !trust::use_join(tx, token.id).await? {
                return Err(refused("the token is used up; create a new one"));
            }
            if !devices::insert(tx, &device).await? {
                let text = "the device is already enrolled";
                return Err(ServiceError::refuse(ProblemCode::Conflict, text));
            }
            let actor = Actor::Device {
                device: device.id,
                name: device.name.clone(),
            };
            let joined = Event::DeviceJoined {
                product: device.product,
                device: device.id,
                region: device.region.clone(),
                channel: device.channel,
                name: device.name,
            };
            let enrolled = Enrolled {
                device: device.id,
                region: device.region,
                channel: device.channel,
                root,
            };
            Ok(Done::by(&actor, enrolled, [joined]))
        })
        .await
    }

    fn new_device(&self, request: &Enroll, row: &JoinRow) -> Result<Device, ServiceError> {
        let refused = |text: String| ServiceError::refuse(ProblemCode::TokenRefused, text);
        if request.product != row.product {
            return Err(refused(format!("the token is for product {}", row.product)));
        }
        let region = row
            .region
            .clone()
            .or_else(|| request.region.clone())
            .ok_or_else(|| {
                ServiceError::invalid("neither the token nor the device names a region")
            })?;
        if request.region.as_ref().is_some_and(|r| *r != region) {
            return Err(refused(format!("the token is for region {region}")));
        }
        let channel = row.channel.or(request.channel).unwrap_or(Channel::Stable);
        if request.channel.is_some_and(|c| c != channel) {
            return Err(refused(format!("the token is for channel {channel}")));
        }
        let role = RoleName::new(row.product.clone(), channel);
        if !self.fleet.plan().trust.repository.delegates(&role) {
            return Err(refused(format!(
                "the signed targets have no delegation for role {role}"
            )));
        }
        if request.labels.len() > 32 {
            return Err(ServiceError::invalid("a device has at most 32 labels"));
        }
        for (key, value) in &request.labels {
            format!("{key}={value}")
                .parse::<Label>()
                .map_err(ServiceError::invalid)?;
        }
        let mut labels = request.labels.clone();
        // Labels of the token take precedence over those of the device.
        labels.extend(row.labels.clone());
        let now = self.now();
        Ok(Device {
            id: DeviceId::from_random(random::bytes()),
            name: request
                .name
                .chars()
                .filter(|c| !c.is_control())
                .take(80)
                .collect(),
            product: row.product.clone(),
            platform: request.platform.clone(),
            region,
            channel,
            labels,
            ring: Ring::from_random(random::bits()),
            public_key: request.public_key.clone(),
            active: true,
            isolated: String::new(),
            new_key: false,
            lifted: BTreeSet::new(),
            release: request.release.clone(),
            image: request.image,
            agent_version: String::new(),
            battery: Battery::default(),
            metered: false,
            low_since: None,
            unhealthy_at: None,
            report_seq: 0,
            enrolled_at: now,
            last_seen: now,
            flushed_at: now,
        })
    }

    /// Revokes a device, or readmits it.
    pub async fn set_device_active(
        &self,
        by: &Operator,
        id: DeviceId,
        active: bool,
        reason: &str,
    ) -> Result<(), ServiceError> {
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
                devices::set_active(tx, id, false).await
            }
        })
        .await
    }

    /// Isolates a device: it may only roll back until it is readmitted.
    pub async fn isolate_device(
        &self,
        by: &Operator,
        id: DeviceId,
        reason: &str,
    ) -> Result<(), ServiceError> {
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
    ) -> Result<(), ServiceError> {
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
    ) -> Result<(), ServiceError> {
        let event = Event::QuarantineLifted {
            device: id,
            release: version.clone(),
            reason: reason.to_owned(),
        };
        self.change_device(by, id, event, async |tx| {
            devices::lift(tx, id, version).await
        })
        .await
    }

    async fn change_device(
        &self,
        by: &Operator,
        id: DeviceId,
        event: Event,
        change: impl AsyncFnOnce(&mut Tx) -> Result<bool, StoreError>,
    ) -> Result<(), ServiceError> {
        self.change(&by.actor, async |tx| {
            if !change(tx).await? {
                let what = format!("device {id} in a state that allows this");
                return Err(ServiceError::not_found(what));
            }
            Ok(((), vec![event]))
        })
        .await
    }

    /// Returns the actor of a device's events.
    pub(super) fn device_actor(&self, device: DeviceId) -> Actor {
        let entry = self.fleet.device(device);
        let name = entry.map_or_else(|| device.to_string(), |e| e.lock().device.name.clone());
        Actor::Device { device, name }
    }

    /// Returns a device that a person asks for; loads it if it has just joined through another
    /// replica.
    pub async fn device(&self, id: DeviceId) -> Result<Arc<DeviceEntry>, ServiceError> {
        if self.fleet.device(id).is_none() {
            self.fleet.reload_device(&self.db, id).await?;
        }
        self.fleet
            .device(id)
            .ok_or_else(|| ServiceError::not_found(format!("device {id}")))
    }

    /// Explains why a device is told what it is told.
    pub async fn why_device(&self, id: DeviceId) -> Result<WhyDevice, ServiceError> {
        let entry = self.device(id).await?;
        let plan = self.fleet.plan();
        let mut steps = Vec::new();
        let places = |rollout| self.fleet.permits_left(rollout);
        let state = entry.lock();
        let now = self.now();
        let mut decision = state.decide(&plan, &places, now, &mut steps);
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
        drop(state);
        Ok(WhyDevice {
            reason: decision.reason,
            steps,
        })
    }
}

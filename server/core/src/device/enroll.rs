//! Enrollment of devices.

use std::collections::BTreeSet;

use tidegate_domain::admission::barred_later;
use tidegate_domain::event::{Actor, Event};
use tidegate_domain::ring::Ring;
use tidegate_protocol::{Battery, Channel, DeviceId, Enroll, Enrolled, Label, ProblemCode};
use tidegate_store::devices::{self, Device};
use tidegate_store::join::{self, JoinRow};
use tidegate_store::{Tx, trust};
use tidegate_trust::http_signature::Signer;
use tidegate_trust::{JoinToken, RoleName};

use crate::app::App;
use crate::commit::Done;
use crate::device::join::{is_guarded, secret_hash};
use crate::memory::device::new_state;
use crate::{CoreError, random};

/// Refusal of a token whose uses are gone.
const USED_UP: &str = "the token is used up; create a new one";

fn refused(text: impl Into<String>) -> CoreError {
    CoreError::refuse(ProblemCode::TokenRefused, text.into())
}

/// Outcome of looking up a join token.
enum Looked {
    /// The device has joined before.
    Known(Enrolled),
    /// The token is good for one more device; with the root that it pins.
    Good(Box<JoinRow>, String),
}

impl App {
    fn enrolled(&self, device: &Device, root: String) -> Enrolled {
        let plan = self.fleet.plan();
        let state = new_state(device.clone());
        Enrolled {
            device: device.id,
            region: device.region.clone(),
            channel: device.channel,
            root,
            awaiting: device.awaiting,
            no_way_back: barred_later(plan.product(&device.product), &state.facts()),
        }
    }

    /// Enrolls a device. A device that repeats its request (because the answer was lost) gets the
    /// id it already has, and the token is not used twice.
    pub async fn enroll(&self, request: &Enroll, signer: &Signer) -> Result<Enrolled, CoreError> {
        crate::device::require_format(request.format)?;
        if request.public_key != signer.key.to_string() {
            return Err(CoreError::refuse(
                ProblemCode::Unauthenticated,
                "the request is not signed by the key it contains",
            ));
        }
        let token: JoinToken = request
            .token
            .parse()
            .map_err(|e: tidegate_trust::JoinTokenError| refused(e.to_string()))?;
        // Whoever has no token that is good now ends here. Strangers must not take the write lock,
        // for which a halt would wait.
        let looked = {
            let _turn = self.joining.lock().await;
            let mut tx = self.db.read().await?;
            self.look_up(&mut tx, request, &token, signer).await?
        };
        if let Looked::Known(enrolled) = looked {
            return Ok(enrolled);
        }
        self.change_or_leave(async |tx| {
            // Again, as a person may have revoked the token meanwhile, or others used it up.
            let (row, root) = match self.look_up(tx, request, &token, signer).await? {
                Looked::Known(enrolled) => return Ok(Done::Leave(enrolled)),
                Looked::Good(row, root) => (row, root),
            };
            let device = self.new_device(request, &row)?;
            if !join::use_once(tx, token.id).await? {
                return Err(refused(USED_UP));
            }
            if !devices::insert(tx, &device).await? {
                let text = "the device is already enrolled";
                return Err(CoreError::refuse(ProblemCode::Conflict, text));
            }
            let actor = Actor::Device {
                device: device.id,
                name: device.name.clone(),
            };
            let enrolled = self.enrolled(&device, root);
            let joined = if device.awaiting {
                Event::DeviceWaits {
                    product: device.product,
                    device: device.id,
                    region: device.region,
                    channel: device.channel,
                    key: signer.key.fingerprint(),
                    name: device.name,
                }
            } else {
                Event::DeviceJoined {
                    product: device.product,
                    device: device.id,
                    region: device.region,
                    channel: device.channel,
                    name: device.name,
                }
            };
            Ok(Done::by(&actor, enrolled, [joined]))
        })
        .await
    }

    /// Reads a join token and the device that may know it already; refuses a token that lets nobody
    /// in now.
    async fn look_up(
        &self,
        tx: &mut Tx,
        request: &Enroll,
        token: &JoinToken,
        signer: &Signer,
    ) -> Result<Looked, CoreError> {
        let row = join::one(tx, token.id).await?;
        // The same text for an unknown id and a wrong secret.
        let row = row
            .filter(|row| row.secret_sha256 == secret_hash(&token.secret, is_guarded(row)))
            .ok_or_else(|| refused("the token is not valid"))?;
        let known = devices::by_key(tx, &request.public_key).await?;
        if known.is_none() {
            if row.revoked_at.is_some() {
                return Err(refused("the token was revoked; create a new one"));
            }
            if row.expires_at <= self.now() {
                return Err(refused("the token has expired; create a new one"));
            }
            if row.uses_left <= 0 {
                return Err(refused(USED_UP));
            }
            let key = signer.key.fingerprint();
            if !row.keys.is_empty() && !row.keys.contains(&key) {
                return Err(refused(format!(
                    "the token is for other keys than this device's, whose fingerprint is {key}"
                )));
            }
        }
        let root = trust::root_by_hash(tx, row.root_sha256)
            .await?
            .ok_or_else(|| {
                refused("the root pinned by the token no longer exists; create a new token")
            })?;
        let root = String::from_utf8_lossy(&root.body).into_owned();
        Ok(match known {
            Some(known) => Looked::Known(self.enrolled(&known, root)),
            None => Looked::Good(Box::new(row), root),
        })
    }

    fn new_device(&self, request: &Enroll, row: &JoinRow) -> Result<Device, CoreError> {
        if request.product != row.product {
            return Err(refused(format!("the token is for product {}", row.product)));
        }
        let region = row
            .region
            .clone()
            .or_else(|| request.region.clone())
            .ok_or_else(|| {
                CoreError::invalid(
                    "neither the token nor the device names a region: `tidegate-agent enroll --region`, or make \
                     the token with `--region`",
                )
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
            return Err(CoreError::invalid("a device has at most 32 labels"));
        }
        for (key, value) in &request.labels {
            format!("{key}={value}")
                .parse::<Label>()
                .map_err(CoreError::invalid)?;
        }
        let mut labels = request.labels.clone();
        // Labels of the token take precedence over those of the device.
        labels.extend(row.labels.clone());
        let name: String = request.name.chars().filter(|c| !c.is_control()).collect();
        let name: String = name.trim().chars().take(80).collect();
        if name.is_empty() || name.parse::<DeviceId>().is_ok() {
            let text = "name: people find the device by it, so it is neither empty nor like an id";
            return Err(CoreError::invalid(text));
        }
        let now = self.now();
        Ok(Device {
            id: DeviceId::from_random(random::bytes()),
            name,
            product: row.product.clone(),
            platform: request.platform.clone(),
            region,
            channel,
            labels,
            ring: Ring::from_random(random::bits()),
            public_key: request.public_key.clone(),
            active: !row.approve,
            awaiting: row.approve,
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
            claimed: false,
            contact: None,
        })
    }
}

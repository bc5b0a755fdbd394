//! Devices: enrollment, revocation, isolation and lookup.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_domain::event::{Actor, Event};
use tidegate_domain::ring::Ring;
use tidegate_protocol::{
    Battery, Channel, DeviceId, Enroll, Enrolled, JoinTokenId, Label, ProblemCode, ProductName,
    Region, Sha256,
};
use tidegate_store::devices::{self, Device};
use tidegate_store::products;
use tidegate_store::trust::{self, JoinRow};
use tidegate_trust::http_signature::Signer;
use tidegate_trust::{Backstop, JoinToken, Repository, RoleName};

use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::{CoreError, random};

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

/// Time for which a join token may be valid.
const VALID: std::ops::RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(365 * 24);

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
    ) -> Result<JoinToken, CoreError> {
        if !VALID.contains(&new.valid) {
            return Err(CoreError::invalid(
                "valid_s: must be 60 to 31536000 (one minute to one year)",
            ));
        }
        if new.uses == 0 {
            return Err(CoreError::invalid("uses: at least 1"));
        }
        for (key, value) in &new.labels {
            format!("{key}={value}")
                .parse::<Label>()
                .map_err(CoreError::invalid)?;
        }
        let plan = self.fleet.plan();
        let (_, root) = plan.trust.root().ok_or_else(|| {
            CoreError::refuse(
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
                return Err(CoreError::not_found(format!("product {}", new.product)));
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
    pub async fn enroll(&self, request: &Enroll, signer: &Signer) -> Result<Enrolled, CoreError> {
        crate::device::require_format(request.format)?;
        if request.public_key != signer.key.to_string() {
            return Err(CoreError::refuse(
                ProblemCode::Unauthenticated,
                "the request is not signed by the key it contains",
            ));
        }
        let refused = |text: &str| CoreError::refuse(ProblemCode::TokenRefused, text);
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
                return Err(CoreError::refuse(ProblemCode::Conflict, text));
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

    fn new_device(&self, request: &Enroll, row: &JoinRow) -> Result<Device, CoreError> {
        let refused = |text: String| CoreError::refuse(ProblemCode::TokenRefused, text);
        if request.product != row.product {
            return Err(refused(format!("the token is for product {}", row.product)));
        }
        let region = row
            .region
            .clone()
            .or_else(|| request.region.clone())
            .ok_or_else(|| CoreError::invalid("neither the token nor the device names a region"))?;
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
}

//! Join tokens: made, listed, revoked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_domain::event::Event;
use tidegate_protocol::{Channel, JoinTokenId, Label, ProblemCode, ProductName, Region, Sha256};
use tidegate_store::join::{self, JoinRow};
use tidegate_store::products;
use tidegate_trust::{Backstop, JoinToken, Repository, RoleName};

use crate::app::App;
use crate::memory::access::Operator;
use crate::{CoreError, random};

/// Maximum number of keys that a token names.
const KEYS: usize = 1_000;

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
    /// Whether a device that joins waits for a person to accept it.
    pub approve: bool,
    /// Fingerprints of the only keys that may join; empty for any.
    pub keys: BTreeSet<Sha256>,
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

/// Returns whether a version of this server that knows neither waiting devices nor named keys would
/// let in too many with this token.
pub(super) fn is_guarded(row: &JoinRow) -> bool {
    row.approve || !row.keys.is_empty()
}

/// Hash of a token's secret. That of a guarded token is another one, so that a replica of the
/// version before, which runs beside this one during an upgrade, finds no such token.
pub(super) fn secret_hash(secret: &[u8; 32], guarded: bool) -> Sha256 {
    if !guarded {
        return tidegate_delta::sha256(secret);
    }
    tidegate_delta::sha256(&[b"guarded ".as_slice(), secret].concat())
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
        if new.keys.len() > KEYS {
            let text = format!("keys: at most {KEYS}; create several tokens");
            return Err(CoreError::invalid(text));
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
                "there is no trusted root yet: make one with `tidegate keys ceremony` (`tidegate keys init` to try \
                 things out), then `tidegate keys push`",
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
            let keys = u64::try_from(new.keys.len()).unwrap_or(u64::MAX);
            let mut row = JoinRow {
                id: token.id,
                secret_sha256: root,
                root_sha256: root,
                product: new.product.clone(),
                region: new.region,
                channel: new.channel,
                labels: new.labels,
                uses_left: i64::from(new.uses),
                uses: None,
                approve: new.approve,
                keys: new.keys,
                expires_at: now.plus(new.valid),
                created_at: now,
                created_by: by.name.clone(),
                revoked_at: None,
            };
            row.secret_sha256 = secret_hash(&token.secret, is_guarded(&row));
            join::insert(tx, &row).await?;
            let made = Event::JoinTokenMade {
                product: new.product,
                token: token.id,
                uses: new.uses.into(),
                approve: new.approve,
                keys,
            };
            Ok(((), vec![made]))
        })
        .await?;
        Ok(token)
    }

    /// Returns the join tokens with which a device can join now, after a position, by id; an empty
    /// `product` selects all.
    pub async fn join_tokens(
        &self,
        product: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<JoinRow>, CoreError> {
        let mut tx = self.db.read().await?;
        Ok(join::live(&mut tx, self.now(), product, after, limit).await?)
    }

    /// Revokes a join token. Devices that joined with it stay.
    pub async fn revoke_join_token(
        &self,
        by: &Operator,
        token: JoinTokenId,
        reason: &str,
    ) -> Result<(), CoreError> {
        let now = self.now();
        self.change(&by.actor, async |tx| {
            if !join::revoke(tx, token, now).await? {
                let what = format!("join token {token} that is not revoked");
                return Err(CoreError::not_found(what));
            }
            let reason = reason.to_owned();
            Ok(((), vec![Event::JoinTokenRevoked { token, reason }]))
        })
        .await
    }

    /// Revokes every join token with which a device could join, of one product or of all; returns
    /// their number.
    pub async fn revoke_join_tokens(
        &self,
        by: &Operator,
        product: Option<ProductName>,
        reason: &str,
    ) -> Result<u64, CoreError> {
        let now = self.now();
        self.change(&by.actor, async |tx| {
            if let Some(product) = &product
                && !products::product_exists(tx, product).await?
            {
                return Err(CoreError::not_found(format!("product {product}")));
            }
            let of = product.as_ref().map_or("", ProductName::as_str);
            let count = join::revoke_all(tx, now, of).await?;
            let event = Event::JoinTokensRevoked {
                product: product.clone(),
                count,
                reason: reason.to_owned(),
            };
            // With none left there is nothing to tell.
            Ok((count, if count == 0 { vec![] } else { vec![event] }))
        })
        .await
    }
}

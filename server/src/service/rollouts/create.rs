//! Creation of rollouts.

use std::collections::BTreeMap;

use tidegate_domain::event::Event;
use tidegate_domain::ring::Ring;
use tidegate_domain::rollout::{RolloutState, Wave, WaveProgress};
use tidegate_protocol::{ProblemCode, ProductName, Reason, RolloutId, Sha256, Stage, Version};

use super::RolloutStanding;
use crate::app::App;
use crate::commit::Done;
use crate::random;
use crate::service::ServiceError;
use crate::service::access::Operator;
use crate::store::rollouts::{self, Rollout, WaveRow};
use crate::store::{Tx, operators, products};
use tidegate_domain::rollout::policy::Policy;

/// Rollout to create.
#[derive(Debug, Clone)]
pub struct NewRollout {
    /// Product of the release.
    pub product: ProductName,
    /// Release to roll out.
    pub version: Version,
    /// Its waves, in order; at least one.
    pub waves: Vec<Wave>,
    /// Rules by which it proceeds and stops.
    pub policy: Policy,
    /// The rollback window after a healthy start, in seconds.
    pub rollback_window_s: u32,
    /// Maximum number of attempts per device.
    pub max_attempts: u32,
    /// Time a device may be silent before its deployment times out, in seconds.
    pub timeout_s: u32,
}

/// Maximum number of waves in one rollout.
const MAX_WAVES: usize = 200;

impl App {
    /// Creates a rollout as a draft, or previews it. An idempotency key makes it safe to repeat.
    pub async fn create_rollout(
        &self,
        by: &Operator,
        new: NewRollout,
        key: Option<(&str, Sha256)>,
        dry_run: bool,
    ) -> Result<RolloutStanding, ServiceError> {
        check(&new)?;
        let now = self.now();
        let rollout = Rollout {
            id: RolloutId::from_random(random::bytes()),
            product: new.product,
            version: new.version,
            state: RolloutState::Draft,
            reason: Reason::RolloutNotStarted.into(),
            generation: 1,
            revision: 1,
            salt: Ring::from_random(random::bits()),
            policy: new.policy,
            released: 0,
            extended_s: 0,
            frozen: false,
            starts_at: None,
            excused: BTreeMap::new(),
            rollback_window_s: new.rollback_window_s,
            max_attempts: new.max_attempts,
            timeout_s: new.timeout_s,
            created_at: now,
            created_by: by.name.clone(),
            started_at: None,
            halted_at: None,
            ended_at: None,
        };
        let mut rows: Vec<WaveRow> = new.waves.into_iter().map(pending).collect();
        let preview = self.preview(&self.fleet.plan(), &rollout, &rows);
        // Sizes are estimates until each wave starts and is counted.
        for (row, quota) in rows.iter_mut().zip(&preview.waves) {
            row.progress.quota = *quota;
        }
        if dry_run {
            may_be_rolled_out(&mut self.db.read().await?, &rollout).await?;
            let mut standing = self.unread(rollout, rows);
            standing.preview = Some(preview);
            return Ok(standing);
        }
        // Rollout created before by the same request, if any.
        let before: Option<RolloutId> = self
            .change_or_leave(async |tx| {
                if let Some((key, fingerprint)) = key
                    && let Some(id) = made_before(tx, key, fingerprint).await?
                {
                    return Ok(Done::Leave(Some(id)));
                }
                may_be_rolled_out(tx, &rollout).await?;
                rollouts::insert(tx, &rollout, &rows).await?;
                if let Some((key, fingerprint)) = key {
                    let id = rollout.id.to_string();
                    operators::remember(tx, key, fingerprint, &id, now).await?;
                }
                let made = Event::RolloutMade {
                    product: rollout.product.clone(),
                    rollout: rollout.id,
                    release: rollout.version.clone(),
                    waves: u32::try_from(rows.len()).unwrap_or(u32::MAX),
                };
                Ok(Done::by(&by.actor, None, [made]))
            })
            .await?;
        match before {
            Some(id) => self.rollout(id).await,
            None => Ok(self.unread(rollout, rows)),
        }
    }
}

/// Returns the rollout created before by a request with this key.
async fn made_before(
    tx: &mut Tx,
    key: &str,
    fingerprint: Sha256,
) -> Result<Option<RolloutId>, ServiceError> {
    let Some((request, id)) = operators::idempotent(tx, key).await? else {
        return Ok(None);
    };
    if request != fingerprint {
        return Err(ServiceError::refuse(
            ProblemCode::IdempotencyMismatch,
            "this Idempotency-Key was already used for a different request",
        ));
    }
    Ok(Some(id.parse().map_err(ServiceError::invalid)?))
}

/// Refuses a rollout of a release that is in no channel.
async fn may_be_rolled_out(tx: &mut Tx, rollout: &Rollout) -> Result<(), ServiceError> {
    let (product, version) = (&rollout.product, &rollout.version);
    let release = products::release(tx, product, version)
        .await?
        .ok_or_else(|| ServiceError::not_found(format!("release {version} of {product}")))?;
    if matches!(release.stage, Stage::Alpha | Stage::Beta | Stage::Ga) {
        return Ok(());
    }
    Err(ServiceError::refuse(
        ProblemCode::Conflict,
        format!(
            "release {version} is {}: promote it to alpha, beta or ga first",
            release.stage
        ),
    ))
}

fn check(new: &NewRollout) -> Result<(), ServiceError> {
    if new.waves.is_empty() || new.waves.len() > MAX_WAVES {
        return Err(ServiceError::invalid(format!(
            "a rollout has 1 to {MAX_WAVES} waves"
        )));
    }
    if new
        .waves
        .iter()
        .any(|w| w.name.is_empty() || w.name.len() > 60)
    {
        return Err(ServiceError::invalid(
            "a wave's name has 1 to 60 characters",
        ));
    }
    if new.max_attempts == 0 || new.max_attempts > 100 {
        return Err(ServiceError::invalid("max_attempts: 1 to 100"));
    }
    if new.rollback_window_s > 30 * 86_400 {
        return Err(ServiceError::invalid("rollback_window_s: at most 30 days"));
    }
    if new.timeout_s < 60 {
        return Err(ServiceError::invalid("timeout_s: at least 60"));
    }
    Ok(())
}

fn pending(wave: Wave) -> WaveRow {
    WaveRow {
        wave,
        progress: WaveProgress::pending(0),
    }
}

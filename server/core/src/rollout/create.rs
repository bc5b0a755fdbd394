//! Creation of rollouts.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_api::{NewRollout, RolloutBody};
use tidegate_domain::event::Event;
use tidegate_domain::ring::Ring;
use tidegate_domain::rollout::{RolloutState, Wave, WaveProgress};
use tidegate_protocol::{ProblemCode, ProductName, Reason, RolloutId, Sha256, Stage, Version};
use tidegate_store::rollouts::{self, Rollout};
use tidegate_store::waves::WaveRow;
use tidegate_store::{Tx, operators, products};

use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::rollout::RolloutStanding;
use crate::rollout::approvals::approvals_of;
use crate::{CoreError, random};

/// Maximum number of waves in one rollout.
const MAX_WAVES: usize = 200;

impl App {
    /// Creates the draft rollout that a body asks for, or previews it (`dry_run`). An idempotency
    /// key, bound to its bearer and to exactly this request, makes it safe to repeat.
    pub async fn create_rollout(
        &self,
        by: &Operator,
        body: &RolloutBody,
        key: Option<&str>,
    ) -> Result<RolloutStanding, CoreError> {
        let new = self.new_rollout(body)?;
        // A failure to serialize is an error: an empty text would make all requests look the same.
        let text = serde_json::to_vec(body).map_err(CoreError::invalid)?;
        let fingerprint = tidegate_delta::sha256(&text);
        let key = key.map(|key| format!("{}/{key}", by.name));
        let key = key.as_deref().map(|key| (key, fingerprint));
        let dry_run = body.dry_run;
        check(&new)?;
        let now = self.now();
        let mut rollout = Rollout {
            id: RolloutId::from_random(random::bytes()),
            product: new.product,
            release: new.release,
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
            starts_by: None,
            approvals: 0,
            excused: BTreeMap::new(),
            rollback_window_s: new.rollback_window_s,
            max_attempts: new.max_attempts,
            accepted_no_way_back: None,
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
                rollout.approvals = approvals_of(tx, &rollout.product).await?;
                rollouts::insert(tx, &rollout, &rows).await?;
                if let Some((key, fingerprint)) = key {
                    let id = rollout.id.to_string();
                    operators::remember(tx, key, fingerprint, &id, now).await?;
                }
                let made = Event::RolloutMade {
                    product: rollout.product.clone(),
                    rollout: rollout.id,
                    release: rollout.release.clone(),
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

impl App {
    /// Reads a body: a preset needs the number of devices in each region, and the gate how often
    /// devices check in.
    fn new_rollout(&self, body: &RolloutBody) -> Result<NewRollout, CoreError> {
        let devices =
            |product: &ProductName, release: &Version| self.concerned_by_region(product, release);
        Ok(body.rollout(devices, self.settings.devices.offline_after())?)
    }
}

/// Returns the rollout created before by a request with this key.
async fn made_before(
    tx: &mut Tx,
    key: &str,
    fingerprint: Sha256,
) -> Result<Option<RolloutId>, CoreError> {
    let Some((request, id)) = operators::idempotent(tx, key).await? else {
        return Ok(None);
    };
    if request != fingerprint {
        return Err(CoreError::refuse(
            ProblemCode::IdempotencyMismatch,
            "this Idempotency-Key was already used for a different request",
        ));
    }
    Ok(Some(id.parse().map_err(CoreError::invalid)?))
}

/// Refuses a rollout of a release that is in no channel.
async fn may_be_rolled_out(tx: &mut Tx, rollout: &Rollout) -> Result<(), CoreError> {
    let (product, version) = (&rollout.product, &rollout.release);
    let release = products::release(tx, product, version)
        .await?
        .ok_or_else(|| CoreError::not_found(format!("release {version} of {product}")))?;
    if matches!(release.stage, Stage::Alpha | Stage::Beta | Stage::Ga) {
        return Ok(());
    }
    let remedy = match release.stage {
        // For good: a promotion would be refused, too.
        Stage::Withdrawn => {
            "it is never offered again; publish what is to be installed under a new version"
        }
        Stage::Eol => "it is offered no more, but as a stepping stone; roll out a newer release",
        _ => "promote it to alpha, beta or ga first",
    };
    Err(CoreError::refuse(
        ProblemCode::Conflict,
        format!("release {version} is {}: {remedy}", release.stage),
    ))
}

fn check(new: &NewRollout) -> Result<(), CoreError> {
    if new.waves.is_empty() || new.waves.len() > MAX_WAVES {
        return Err(CoreError::invalid(format!(
            "a rollout has 1 to {MAX_WAVES} waves"
        )));
    }
    if new
        .waves
        .iter()
        .any(|w| w.name.is_empty() || w.name.len() > 60)
    {
        return Err(CoreError::invalid("a wave's name has 1 to 60 characters"));
    }
    let names: BTreeSet<&str> = new.waves.iter().map(|w| w.name.as_str()).collect();
    if names.len() < new.waves.len() {
        let text =
            "two waves have one name: give each its own, events and views tell them apart by it";
        return Err(CoreError::invalid(text));
    }
    if new.max_attempts == 0 || new.max_attempts > 100 {
        return Err(CoreError::invalid("max_attempts: 1 to 100"));
    }
    if new.rollback_window_s > 30 * 86_400 {
        return Err(CoreError::invalid("rollback_window_s: at most 30 days"));
    }
    if new.timeout_s < 60 {
        return Err(CoreError::invalid("timeout_s: at least 60"));
    }
    Ok(())
}

fn pending(wave: Wave) -> WaveRow {
    WaveRow {
        wave,
        progress: WaveProgress::pending(0),
    }
}

//! Rollouts: made, started, stopped, taken back.

use std::collections::BTreeMap;

use tidegate_domain::ring::Ring;
use tidegate_domain::rollout::{
    Forecast, RolloutEvent, RolloutState, RolloutView, Wave, WaveProgress, WaveState, forecast,
    plan,
};
use tidegate_protocol::{
    Explained, ProblemCode, ProductName, Reason, RolloutId, Stage, Timestamp, Version,
};

use super::access::Operator;
use super::approvals::Waiting;
use super::population::Preview;
use super::{ServiceError, event};
use crate::app::App;
use crate::random;
use crate::store::events::{self, EventKind, NewEvent};
use crate::store::policy::Policy;
use crate::store::rollouts::{self, Rollout, WaveRow};
use crate::store::{Tx, products};

/// What a rollout is to be.
#[derive(Debug, Clone)]
pub struct NewRollout {
    /// Whose release.
    pub product: ProductName,
    /// Which release.
    pub version: Version,
    /// Its waves; at least one.
    pub waves: Vec<Wave>,
    /// How it goes on, and when it stops.
    pub policy: Policy,
    /// The rollback window after a healthy start, in seconds.
    pub window_s: u32,
    /// How often a device may try.
    pub max_attempts: u32,
    /// How long a device may be silent before its deployment times out, in seconds.
    pub timeout_s: u32,
}

/// A rollout with what is counted of it now.
#[derive(Debug, Clone)]
pub struct RolloutStanding {
    /// As stored.
    pub rollout: Rollout,
    /// Its waves.
    pub waves: Vec<WaveRow>,
    /// As the planner sees it.
    pub view: RolloutView,
    /// Why nothing more happens.
    pub waiting: Explained,
    /// When it will be finished.
    pub forecast: Forecast,
    /// What it would do, for those who asked for that.
    pub preview: Option<Preview>,
    /// What waits for approvals.
    pub asked: Option<Waiting>,
}

/// What an order did.
#[derive(Debug, Clone)]
pub struct Ordered {
    /// The rollout after it.
    pub standing: RolloutStanding,
    /// Whether it was only tried.
    pub dry_run: bool,
}

/// Most waves in one rollout.
const MAX_WAVES: usize = 200;

impl App {
    /// Makes a rollout as a draft, or shows what it would be. A key makes repeating it harmless.
    pub async fn create_rollout(
        &self,
        by: &Operator,
        new: NewRollout,
        key: Option<(&str, tidegate_protocol::Sha256)>,
        dry_run: bool,
    ) -> Result<RolloutStanding, ServiceError> {
        check(&new)?;
        let now = self.now();
        let mut tx = self.db.write().await?;
        if let Some((key, fingerprint)) = key
            && let Some((request, id)) = crate::store::operators::idempotent(&mut tx, key).await?
        {
            if request != fingerprint {
                return Err(ServiceError::refuse(
                    ProblemCode::IdempotencyMismatch,
                    "this Idempotency-Key came with another request before",
                ));
            }
            drop(tx);
            return self
                .rollout(id.parse().map_err(ServiceError::invalid)?)
                .await;
        }
        let release = products::release(&mut tx, &new.product, &new.version)
            .await?
            .ok_or_else(|| {
                ServiceError::not_found(format!("release {} of {}", new.version, new.product))
            })?;
        if !matches!(release.stage, Stage::Alpha | Stage::Beta | Stage::Ga) {
            return Err(ServiceError::refuse(
                ProblemCode::Conflict,
                format!(
                    "release {} is {}: promote it to alpha, beta or ga first",
                    new.version, release.stage
                ),
            ));
        }
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
            window_s: new.window_s,
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
        // The sizes are estimates until each wave starts and is counted.
        for (row, quota) in rows.iter_mut().zip(&preview.waves) {
            row.progress.quota = *quota;
        }
        if dry_run {
            drop(tx);
            let mut standing = self.unread(rollout, rows);
            standing.preview = Some(preview);
            return Ok(standing);
        }
        rollouts::insert(&mut tx, &rollout, &rows).await?;
        if let Some((key, fingerprint)) = key {
            let id = rollout.id.to_string();
            crate::store::operators::remember(&mut tx, key, fingerprint, &id, now).await?;
        }
        let text = format!(
            "rollout of {} made with {} waves",
            rollout.version,
            rows.len()
        );
        events::append(
            &mut tx,
            &self.origin,
            now,
            &rollout_event(&rollout, by.actor(), text),
        )
        .await?;
        tx.commit().await?;
        self.fleet.reload_plan(&self.db).await?;
        Ok(self.unread(rollout, rows))
    }

    /// A rollout with what is counted of it now.
    pub async fn rollout(&self, id: RolloutId) -> Result<RolloutStanding, ServiceError> {
        let mut tx = self.db.read().await?;
        let (rollout, rows) = read(&mut tx, id).await?;
        self.standing(&mut tx, rollout, rows).await
    }

    pub(super) async fn standing(
        &self,
        tx: &mut Tx,
        rollout: Rollout,
        waves: Vec<WaveRow>,
    ) -> Result<RolloutStanding, ServiceError> {
        let view = self.read_view(tx, &rollout, &waves).await?;
        let asked = self.asked(tx, &rollout, &waves).await?;
        Ok(self.with_view(rollout, waves, view, asked))
    }

    /// Of a rollout that is not stored, or has exposed nobody.
    fn unread(&self, rollout: Rollout, waves: Vec<WaveRow>) -> RolloutStanding {
        let nothing = tidegate_domain::rollout::Progress::default();
        let view = self.view(
            &rollout,
            &waves,
            &BTreeMap::new(),
            &Vec::new(),
            nothing,
            Vec::new(),
        );
        self.with_view(rollout, waves, view, None)
    }

    fn with_view(
        &self,
        rollout: Rollout,
        waves: Vec<WaveRow>,
        view: RolloutView,
        asked: Option<Waiting>,
    ) -> RolloutStanding {
        let now = self.now();
        let waiting = waiting(&rollout, &view, now);
        let forecast = forecast(&view, now);
        RolloutStanding {
            rollout,
            waves,
            view,
            waiting,
            forecast,
            preview: None,
            asked,
        }
    }

    /// Gives a rollout an order. `revision` is what the caller last saw, where it matters to
    /// them; halting and rolling back never ask for it.
    pub async fn order_rollout(
        &self,
        by: &Operator,
        id: RolloutId,
        order: RolloutEvent,
        reason: &str,
        revision: Option<i64>,
        dry_run: bool,
    ) -> Result<Ordered, ServiceError> {
        let now = self.now();
        let code = match order {
            RolloutEvent::Start
            | RolloutEvent::Resume
            | RolloutEvent::Edit
            | RolloutEvent::Complete
            | RolloutEvent::Returned => Reason::WaveInFlight,
            RolloutEvent::AskApproval => Reason::ApprovalNeeded,
            RolloutEvent::Schedule => Reason::RolloutNotStarted,
            RolloutEvent::Pause => Reason::RolloutPaused,
            RolloutEvent::Halt => Reason::RolloutHalted,
            RolloutEvent::RollBack => Reason::RollbackOrdered,
            RolloutEvent::Cancel => Reason::CancelOrdered,
        };
        // In an incident the planner may change the row under our hands: try again, never give up
        // on an order to stop.
        for _ in 0..20 {
            let mut tx = self.db.write().await?;
            let (rollout, waves) = read(&mut tx, id).await?;
            same_revision(&rollout, revision)?;
            let state = rollout.state.apply(order)?;
            let explained = Explained::new(code, format!("{}: {reason}", by.name));
            let mut after = Rollout {
                state,
                reason: explained.clone(),
                ..rollout.clone()
            };
            if dry_run || state == rollout.state {
                if !dry_run {
                    after = rollout;
                }
                let mut standing = self.standing(&mut tx, after, waves).await?;
                drop(tx);
                if dry_run && matches!(order, RolloutEvent::Start | RolloutEvent::Schedule) {
                    let plan = self.fleet.plan();
                    standing.preview =
                        Some(self.preview(&plan, &standing.rollout, &standing.waves));
                }
                return Ok(Ordered { standing, dry_run });
            }
            if !rollouts::set_state(&mut tx, &rollout, state, &explained, now).await? {
                continue;
            }
            if order == RolloutEvent::Resume {
                reopen_failed_waves(&mut tx, &rollout, &waves).await?;
                if rollout.state == RolloutState::Halted {
                    // Whoever resumes has seen what failed: the gate judges what comes now.
                    let view = self.read_view(&mut tx, &rollout, &waves).await?;
                    let seen = (0u32..)
                        .zip(&view.waves)
                        .map(|(i, w)| (i, (w.tally.failed(), w.tally.silent())))
                        .collect();
                    rollouts::excuse(&mut tx, rollout.id, &seen).await?;
                }
            }
            let why = if reason.is_empty() {
                String::new()
            } else {
                format!(": {reason}")
            };
            let text = format!("{order}: {} -> {state}{why}", rollout.state);
            let event = rollout_event(&rollout, by.actor(), text);
            events::append(&mut tx, &self.origin, now, &event).await?;
            tx.commit().await?;
            self.fleet.reload_plan(&self.db).await?;
            self.wake_planner();
            return Ok(Ordered {
                standing: self.rollout(id).await?,
                dry_run: false,
            });
        }
        Err(ServiceError::refuse(
            ProblemCode::Conflict,
            "the rollout keeps changing; try again",
        ))
    }
}

/// Why a rollout does no more: its own reason where it stands still, else what it waits for.
fn waiting(rollout: &Rollout, view: &RolloutView, now: Timestamp) -> Explained {
    // A rollout that stands still stands still for the reason that was given.
    let stopped = matches!(
        rollout.state,
        RolloutState::Halted
            | RolloutState::Paused
            | RolloutState::RolledBack
            | RolloutState::Cancelled
    );
    if stopped {
        rollout.reason.clone()
    } else {
        plan(view, now).waiting
    }
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
    if new.window_s > 30 * 86_400 {
        return Err(ServiceError::invalid("window_s: at most 30 days"));
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

/// Refuses an order of somebody who looked at an older rollout.
pub(super) fn same_revision(rollout: &Rollout, seen: Option<i64>) -> Result<(), ServiceError> {
    if seen.is_some_and(|seen| seen != rollout.revision) {
        return Err(ServiceError::refuse(
            ProblemCode::PreconditionFailed,
            format!(
                "the rollout is at revision {} by now; look at it again",
                rollout.revision
            ),
        ));
    }
    Ok(())
}

/// A person who resumes a halted rollout reopens the wave that failed.
async fn reopen_failed_waves(
    tx: &mut Tx,
    rollout: &Rollout,
    waves: &[WaveRow],
) -> Result<(), ServiceError> {
    for (index, wave) in waves.iter().enumerate() {
        if wave.progress.state == WaveState::Failed {
            let wave = WaveProgress {
                state: WaveState::Running,
                ended_at: None,
                ..wave.progress
            };
            rollouts::set_wave(tx, rollout.id, index, &wave).await?;
        }
    }
    Ok(())
}

pub(super) async fn read(
    tx: &mut Tx,
    id: RolloutId,
) -> Result<(Rollout, Vec<WaveRow>), ServiceError> {
    let rollout = rollouts::one(tx, id)
        .await?
        .ok_or_else(|| ServiceError::not_found(format!("rollout {id}")))?;
    let waves = rollouts::waves(tx, id).await?;
    Ok((rollout, waves))
}

pub(super) fn rollout_event(rollout: &Rollout, actor: String, text: String) -> NewEvent {
    NewEvent {
        product: Some(rollout.product.clone()),
        rollout: Some(rollout.id),
        ..event(EventKind::Rollout, actor, text)
    }
}

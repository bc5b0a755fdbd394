//! The planner's hands: each action in a transaction of its own, refused when the rollout has
//! changed since it was looked at.

use std::time::Duration;

use tidegate_domain::rollout::{
    Action, Lag, Population, RolloutState, RolloutView, Stratum, Tally, plan,
};
use tidegate_protocol::{Explained, Reason, RolloutId, Timestamp};

use super::ServiceError;
use super::aggregate::{Quiet, by_rollout, read_strata};
use super::plan::PlanSnapshot;
use super::rollouts::rollout_event;
use crate::app::App;
use crate::store::aggregates;
use crate::store::events::{self, EventKind, NewEvent};
use crate::store::rollouts::{self, Rollout, WaveRow};

/// Most rounds at once: a rollout that wants more gets them in the next.
const MAX_STEPS: usize = 64;
/// How often the silent are counted, and old and new compared.
const LOOK: Duration = Duration::from_secs(5);

/// What the leader keeps between two rounds; another leader begins with nothing.
#[derive(Debug, Default)]
pub struct Watch {
    quiet: std::collections::BTreeMap<RolloutId, Quiet>,
    looked: Option<Timestamp>,
    lags: std::collections::BTreeMap<RolloutId, Lag>,
}

/// What one action did.
enum Did {
    /// Someone changed the rollout since it was looked at.
    Nothing,
    /// More or fewer devices may be exposed.
    Granted,
    /// The rollout or one of its waves changed.
    Changed,
}

fn acts(state: RolloutState) -> bool {
    matches!(
        state,
        RolloutState::Running | RolloutState::RollingBack | RolloutState::Completed
    )
}

impl App {
    /// Plans every rollout in which something may happen by itself and acts, until nothing more
    /// is to be done now. Reads aggregates, never devices. Only the leader calls it; a stale
    /// leader's writes are refused by the revision.
    pub async fn plan_rollouts(&self) -> Result<(), ServiceError> {
        let mut watch = self.watch.lock().await;
        self.look(&mut watch).await?;
        for _ in 0..MAX_STEPS {
            let snapshot = self.fleet.plan();
            let (mut granted, mut changed) = (false, false);
            for (id, view) in self.views(&snapshot, &mut watch).await? {
                let Some((rollout, waves)) = snapshot.rollouts.get(&id) else {
                    continue;
                };
                for action in plan(&view, self.now()).actions {
                    match self
                        .execute(&snapshot, rollout, waves, &view, &action)
                        .await?
                    {
                        Did::Nothing => {}
                        Did::Granted => granted = true,
                        Did::Changed => changed = true,
                    }
                }
            }
            if changed {
                self.fleet.reload_plan(&self.db).await?;
            } else if granted {
                self.fleet.reload_rooms(&self.db).await?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// The views of all rollouts in which something may happen by itself: a handful of queries
    /// for all of them together.
    pub async fn views(
        &self,
        snapshot: &PlanSnapshot,
        watch: &mut Watch,
    ) -> Result<Vec<(RolloutId, RolloutView)>, ServiceError> {
        let mut tx = self.db.read().await?;
        let mut tallies = by_rollout(&aggregates::tallies(&mut tx).await?);
        let progress = aggregates::progress(&mut tx).await?;
        let mut views = Vec::new();
        for (id, (rollout, waves)) in &snapshot.rollouts {
            if !acts(rollout.state) {
                continue;
            }
            let tallies = tallies.remove(id).unwrap_or_default();
            let quiet = watch.quiet.get(id).cloned().unwrap_or_default();
            let progress = progress.get(id).copied().unwrap_or_default();
            let strata = read_strata(&mut tx, rollout).await?;
            let mut view = self.view(rollout, waves, &tallies, &quiet, progress, strata);
            let mut marked: Vec<&mut Tally> = view.waves.iter_mut().map(|w| &mut w.tally).collect();
            let silent_after = rollout.policy.gate.silent_after;
            let lag = watch.lags.entry(*id).or_default();
            lag.mark(&mut marked, silent_after, self.now());
            views.push((*id, view));
        }
        Ok(views)
    }

    /// Now and then: counts the silent, and who turned bad on the new and on the old release.
    pub async fn look(&self, watch: &mut Watch) -> Result<(), ServiceError> {
        let now = self.now();
        let last = watch.looked;
        if last.is_some_and(|at| now.since(at) < LOOK && at <= now) {
            return Ok(());
        }
        let snapshot = self.fleet.plan();
        let before = snapshot
            .rollouts
            .iter()
            .filter(|(_, (rollout, _))| acts(rollout.state))
            .map(|(id, (rollout, _))| (*id, self.silent_before(rollout)))
            .collect();
        watch.quiet = self.fleet.quiet(&before);
        for (id, (rollout, waves)) in &snapshot.rollouts {
            let comparing = rollout.policy.gate.compare && rollout.state == RolloutState::Running;
            let mut tx = match last {
                Some(_) if comparing => self.db.read().await?,
                _ => continue,
            };
            if let Some(since) = last.filter(|at| comparing && *at < now) {
                let (bad_new, bad_old) =
                    aggregates::turned_bad(&mut tx, &rollout.product, *id, since, now).await?;
                if bad_new + bad_old > 0 {
                    let tally = self.read_view(&mut tx, rollout, waves).await?.tally();
                    let population: u64 = waves.iter().map(|w| w.progress.quota).sum();
                    drop(tx);
                    let stratum = Stratum {
                        // Who turned bad just now was at risk just before.
                        risk_new: tally.healthy().max(bad_new),
                        risk_old: population.saturating_sub(tally.exposed()).max(bad_old),
                        bad_new,
                        bad_old,
                    };
                    let mut tx = self.db.write().await?;
                    aggregates::add_stratum(&mut tx, *id, now, stratum).await?;
                    tx.commit().await?;
                }
            }
        }
        watch.looked = Some(now);
        Ok(())
    }

    /// Does one thing.
    async fn execute(
        &self,
        snapshot: &PlanSnapshot,
        rollout: &Rollout,
        waves: &[WaveRow],
        view: &RolloutView,
        action: &Action,
    ) -> Result<Did, ServiceError> {
        let now = self.now();
        if let Action::Grant { granted, at } = action {
            return self.grant(rollout, view, *granted, *at).await;
        }
        let found: Option<Population> = match action {
            Action::StartWave(i) => Some(self.population(snapshot, rollout, waves, *i).await?),
            _ => None,
        };
        let mut reason = rollout.reason.clone();
        let mut tx = self.db.write().await?;
        let text = match action {
            Action::StartWave(i) | Action::Soak(i) | Action::Pass(i) => {
                let after = action.on_wave(&waves[*i].progress, found, now);
                rollouts::set_wave(&mut tx, rollout.id, *i, &after).await?;
                let name = &waves[*i].wave.name;
                match action {
                    Action::StartWave(_) => match after.quota {
                        0 => format!("wave {name} selects nobody: skipped"),
                        quota => format!("wave {name} starts with {quota} devices"),
                    },
                    Action::Soak(_) => format!("wave {name} soaks"),
                    _ => format!("wave {name} passed"),
                }
            }
            Action::Breach {
                wave,
                reason: breach,
                ..
            } => {
                let after = action.on_wave(&waves[*wave].progress, None, now);
                rollouts::set_wave(&mut tx, rollout.id, *wave, &after).await?;
                reason = breach.clone();
                format!("stopped by the gate: {breach}")
            }
            Action::Complete => {
                reason = Explained::from(Reason::RolloutEnded);
                "completed".into()
            }
            Action::Returned => "rolled back: the last device is back".into(),
            Action::Grant { .. } => return Ok(Did::Nothing),
        };
        let state = match action.on_rollout() {
            Some(event) => rollout.state.apply(event)?,
            None => rollout.state,
        };
        let fresh = if state == rollout.state {
            rollouts::set_reason(&mut tx, rollout, &reason).await?
        } else {
            rollouts::set_state(&mut tx, rollout, state, &reason, now).await?
        };
        if !fresh {
            // Nothing of this is written.
            return Ok(Did::Nothing);
        }
        if state == RolloutState::RollingBack && rollout.state != state {
            let whole = tidegate_domain::selector::Selector::default();
            self.open_incident(&mut tx, rollout, &whole, "planner", &reason.to_string())
                .await?;
        }
        let event = rollout_event(rollout, "planner".into(), text);
        events::append(&mut tx, &self.origin, now, &event).await?;
        tx.commit().await?;
        Ok(Did::Changed)
    }

    async fn grant(
        &self,
        rollout: &Rollout,
        view: &RolloutView,
        granted: u64,
        at: Timestamp,
    ) -> Result<Did, ServiceError> {
        let mut tx = self.db.write().await?;
        if !aggregates::grant(&mut tx, rollout.id, view.progress.granted, granted, at).await? {
            return Ok(Did::Nothing);
        }
        let room = granted.saturating_sub(view.progress.exposed);
        let text = if room > 1_000_000_000 {
            "devices may be exposed without a limit".into()
        } else {
            format!("{room} more devices may be exposed")
        };
        let event = NewEvent {
            kind: EventKind::Pace,
            ..rollout_event(rollout, "planner".into(), text)
        };
        events::append(&mut tx, &self.origin, self.now(), &event).await?;
        tx.commit().await?;
        Ok(Did::Granted)
    }
}

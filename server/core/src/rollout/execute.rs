//! Executes the planner's actions: each in a transaction of its own, refused if the rollout has
//! changed since it was read.

use std::time::Duration;

use tidegate_domain::event::{Actor, Event};
use tidegate_domain::rollout::{
    Action, Population, RolloutEvent, RolloutState, RolloutView, Stratum, Tally, plan,
};
use tidegate_protocol::{ProductName, RolloutId};
use tidegate_store::aggregates;
use tidegate_store::rollouts::{self, Rollout};
use tidegate_store::waves::{self, WaveRow};

use crate::CoreError;
use crate::app::App;
use crate::commit::{Committed, Done};
use crate::memory::plan::PlanSnapshot;
use crate::memory::watch::Watch;
use crate::rollout::aggregate::{by_rollout, read_strata};

/// Maximum number of planning rounds in a row: a rollout that needs more continues at the next
/// call.
const MAX_STEPS: usize = 64;
/// Interval between counts of silent devices and comparisons of old and new.
const LOOK: Duration = Duration::from_secs(5);

fn acts(state: RolloutState) -> bool {
    state.offers() || state == RolloutState::RollingBack
}

impl App {
    /// Plans every rollout that may proceed on its own and acts, until there is nothing more to do
    /// now. Reads aggregates, never devices. Only the leader calls it; a stale leader's writes are
    /// refused by the revision.
    pub async fn plan_rollouts(&self) -> Result<(), CoreError> {
        let mut watch = self.watch.lock().await;
        self.look(&mut watch).await?;
        for _ in 0..MAX_STEPS {
            let snapshot = self.fleet.plan();
            let mut done = Vec::new();
            for (id, view) in self.views(&snapshot, &mut watch).await? {
                let Some((rollout, waves)) = snapshot.rollouts.get(&id) else {
                    continue;
                };
                for action in plan(&view, self.now()).actions {
                    let committed = self
                        .execute(&snapshot, rollout, waves, &view, &action)
                        .await;
                    match committed {
                        Ok(committed) => done.extend(committed),
                        Err(error) => {
                            self.take_over_all(done).await;
                            return Err(error);
                        }
                    }
                }
            }
            if done.is_empty() {
                break;
            }
            // Once per round: reloading the plan is expensive.
            self.take_over_all(done).await;
        }
        Ok(())
    }

    /// Views of all rollouts that may proceed on their own: a handful of queries for all of them
    /// together.
    pub async fn views(
        &self,
        snapshot: &PlanSnapshot,
        watch: &mut Watch,
    ) -> Result<Vec<(RolloutId, RolloutView)>, CoreError> {
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

    /// Periodically counts silent devices, and those that turned unhealthy on the new and on the
    /// old release.
    pub async fn look(&self, watch: &mut Watch) -> Result<(), CoreError> {
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
                        // A device that has just turned unhealthy was at risk just before.
                        risk_new: tally.healthy().max(bad_new),
                        risk_old: population.saturating_sub(tally.exposed()).max(bad_old),
                        bad_new,
                        bad_old,
                    };
                    self.remember_comparison(*id, now, stratum).await?;
                }
            }
        }
        watch.looked = Some(now);
        Ok(())
    }

    /// Executes one action, unless the rollout has changed since it was read. The caller applies
    /// the commit to memory.
    async fn execute(
        &self,
        snapshot: &PlanSnapshot,
        rollout: &Rollout,
        waves: &[WaveRow],
        view: &RolloutView,
        action: &Action,
    ) -> Result<Option<Committed>, CoreError> {
        let now = self.now();
        let found: Option<Population> = match action {
            Action::StartWave(i) => Some(self.population(snapshot, rollout, waves, *i).await?),
            _ => None,
        };
        self.change_later(async |tx| {
            let (product, id) = (rollout.product.clone(), rollout.id);
            let mut reason = rollout.reason.clone();
            let state = match action.on_rollout() {
                Some(event) => rollout.state.apply(event)?,
                None => rollout.state,
            };
            let event = match action {
                Action::Grant { granted, at } => {
                    let before = view.progress.granted;
                    if !aggregates::grant(tx, id, before, *granted, *at).await? {
                        return Ok(Done::Leave(()));
                    }
                    let event = Event::Granted {
                        product,
                        rollout: id,
                        granted: *granted,
                        permits: granted.saturating_sub(view.progress.exposed),
                    };
                    return Ok(Done::by(&Actor::Planner, (), [event]));
                }
                Action::StartWave(i) | Action::Soak(i) | Action::Pass(i) => {
                    let after = action.on_wave(&waves[*i].progress, found, now);
                    waves::set_wave(tx, id, *i, &after).await?;
                    let name = waves[*i].wave.name.clone();
                    wave_event(action, after.quota, product, id, number(*i), name)
                }
                Action::Breach {
                    wave,
                    reason: breach,
                    ..
                } => {
                    let after = action.on_wave(&waves[*wave].progress, None, now);
                    waves::set_wave(tx, id, *wave, &after).await?;
                    reason = breach.clone();
                    Event::GateDecided {
                        product,
                        rollout: id,
                        wave: number(*wave),
                        from: rollout.state,
                        to: state,
                        code: breach.code,
                        detail: breach.detail.clone(),
                    }
                }
                Action::Complete { .. } | Action::Returned | Action::ReturnedPartly => {
                    let mut why = String::new();
                    let order = match action {
                        Action::Complete {
                            ending,
                            reason: end,
                        } => {
                            reason = end.clone();
                            why.clone_from(&end.detail);
                            *ending
                        }
                        Action::ReturnedPartly => RolloutEvent::ReturnedPartly,
                        _ => RolloutEvent::Returned,
                    };
                    Event::RolloutMoved {
                        product,
                        rollout: id,
                        order,
                        from: rollout.state,
                        to: state,
                        change: None,
                        reason: why,
                    }
                }
            };
            let fresh = if state == rollout.state {
                rollouts::set_reason(tx, rollout, &reason).await?
            } else {
                rollouts::set_state(tx, rollout, state, &reason, now).await?
            };
            if !fresh {
                // Nothing of this is committed.
                return Ok(Done::Leave(()));
            }
            let mut events = vec![event];
            if state == RolloutState::RollingBack && rollout.state != state {
                let why = reason.to_string();
                events.extend(self.open_incident(tx, rollout, &why).await?);
            }
            Ok(Done::by(&Actor::Planner, (), events))
        })
        .await
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Event for a wave that starts, soaks or passes.
fn wave_event(
    action: &Action,
    quota: u64,
    product: ProductName,
    rollout: RolloutId,
    wave: u32,
    name: String,
) -> Event {
    match action {
        Action::StartWave(_) if quota == 0 => Event::WaveSkipped {
            product,
            rollout,
            wave,
            name,
        },
        Action::StartWave(_) => Event::WaveStarted {
            product,
            rollout,
            wave,
            devices: quota,
            name,
        },
        Action::Soak(_) => Event::WaveSoaks {
            product,
            rollout,
            wave,
            name,
        },
        _ => Event::WavePassed {
            product,
            rollout,
            wave,
            name,
        },
    }
}

//! The planner's hands: each action in a transaction of its own, refused when the rollout has
//! changed since it was counted.

use tidegate_domain::rollout::{Action, OnBreach, RolloutEvent, RolloutState, WaveState, plan};
use tidegate_protocol::{Explained, Reason};

use super::ServiceError;
use super::census::Counted;
use super::rollouts::rollout_event;
use crate::app::App;
use crate::store::events;
use crate::store::rollouts::{self, Rollout, WaveRow};

/// Most actions in one planning round: a rollout that wants more gets them in the next.
const MAX_STEPS: usize = 64;

impl App {
    /// Plans every live rollout and acts, until nothing more is to be done now. Only the leader
    /// calls it; a stale leader's writes are refused by the revision.
    pub async fn plan_rollouts(&self) -> Result<(), ServiceError> {
        for _ in 0..MAX_STEPS {
            let snapshot = self.fleet.plan();
            let mut acted = false;
            for (rollout, waves) in snapshot.rollouts.values() {
                if matches!(
                    rollout.state,
                    RolloutState::Running | RolloutState::RollingBack
                ) {
                    let mut counted = self.count(&snapshot, rollout, waves, self.now());
                    let plan = plan(&counted.view, self.now());
                    for action in &plan.actions {
                        acted |= self.execute(rollout, waves, &mut counted, action).await?;
                    }
                }
            }
            if !acted {
                return Ok(());
            }
            self.fleet.reload_plan(&self.db).await?;
        }
        Ok(())
    }

    /// Does one thing; false when the rollout has changed meanwhile.
    async fn execute(
        &self,
        rollout: &Rollout,
        waves: &[WaveRow],
        counted: &mut Counted,
        action: &Action,
    ) -> Result<bool, ServiceError> {
        let now = self.now();
        let mut tx = self.db.write().await?;
        let mut reason = Explained::from(Reason::WaveInFlight);
        let mut state = rollout.state;
        let text = match action {
            Action::StartWave(i) => {
                let wave = WaveRow {
                    state: WaveState::Running,
                    started_at: Some(now),
                    ..waves[*i].clone()
                };
                rollouts::set_wave(&mut tx, rollout.id, *i, &wave).await?;
                format!("wave {} starts", wave.wave.name)
            }
            Action::Admit { wave: i, members } => {
                let frontier = counted.frontier(*i, *members, waves[*i].frontier);
                let wave = WaveRow {
                    frontier,
                    ..waves[*i].clone()
                };
                rollouts::set_wave(&mut tx, rollout.id, *i, &wave).await?;
                let whom = members.map_or_else(|| "everybody".into(), |m| format!("{m} devices"));
                format!("wave {} admits {whom}", wave.wave.name)
            }
            Action::Soak(i) => {
                let wave = WaveRow {
                    state: WaveState::Soaking,
                    soak_started: Some(now),
                    ..waves[*i].clone()
                };
                rollouts::set_wave(&mut tx, rollout.id, *i, &wave).await?;
                format!("wave {} soaks", wave.wave.name)
            }
            Action::Pass(i) | Action::Skip(i) => {
                let passed = matches!(action, Action::Pass(_));
                let to = if passed {
                    WaveState::Passed
                } else {
                    WaveState::Skipped
                };
                let wave = WaveRow {
                    state: to,
                    ended_at: Some(now),
                    ..waves[*i].clone()
                };
                rollouts::set_wave(&mut tx, rollout.id, *i, &wave).await?;
                format!("wave {} {to}", wave.wave.name)
            }
            Action::Breach {
                wave: i,
                reason: breach,
                then,
            } => {
                let wave = WaveRow {
                    state: WaveState::Failed,
                    ended_at: Some(now),
                    ..waves[*i].clone()
                };
                rollouts::set_wave(&mut tx, rollout.id, *i, &wave).await?;
                let order = match then {
                    OnBreach::Halt => RolloutEvent::Halt,
                    OnBreach::HaltAndRollBack => RolloutEvent::RollBack,
                };
                state = state.apply(order)?;
                reason = breach.clone();
                format!("{state} by the gate: {breach}")
            }
            Action::Complete => {
                state = state.apply(RolloutEvent::Complete)?;
                reason = Reason::RolloutEnded.into();
                "completed".into()
            }
            Action::Returned => {
                state = state.apply(RolloutEvent::Returned)?;
                reason = rollout.reason.clone();
                "rolled back: the last device is back".into()
            }
        };
        let fresh = if state == rollout.state {
            rollouts::set_reason(&mut tx, rollout, &rollout.reason).await?
        } else {
            rollouts::set_state(&mut tx, rollout, state, &reason, now).await?
        };
        if !fresh {
            // Someone changed it since it was counted: nothing of this is written.
            return Ok(false);
        }
        events::append(
            &mut tx,
            &self.origin,
            now,
            &rollout_event(rollout, "planner".into(), text),
        )
        .await?;
        tx.commit().await?;
        Ok(true)
    }
}

//! Acting on plans and on people's orders.

use tidegate_domain::admission::{Candidate, not_concerned};
use tidegate_domain::ring::{Frontier, Place};
use tidegate_domain::rollout::{
    Action, Plan, Population, RolloutEvent, RolloutState, WaveSize, WaveState, check, plan,
};
use tidegate_protocol::Timestamp;

use super::Control;
use crate::device::Device;
use crate::scenario::{Group, ScenarioError};

impl Control {
    /// Plans and acts until there is nothing more to do; returns what was done, in words. The plan
    /// checker checks every plan.
    pub(crate) fn tick(
        &mut self,
        index: usize,
        devices: &[Device],
        groups: &[Group],
        now: Timestamp,
    ) -> Result<Vec<String>, ScenarioError> {
        let mut said = Vec::new();
        loop {
            let view = self.view(index);
            let step: Plan = plan(&view, now);
            let wrong = check(&view, &step);
            if let Some(wrong) = wrong.first() {
                return Err(ScenarioError(format!(
                    "the plan checker rejected the plan: {wrong}"
                )));
            }
            if step.actions.is_empty() {
                self.rollouts[index].reason = step.waiting;
                return Ok(said);
            }
            for action in &step.actions {
                said.extend(self.act(index, action, devices, groups, now)?);
            }
        }
    }

    fn act(
        &mut self,
        index: usize,
        action: &Action,
        devices: &[Device],
        groups: &[Group],
        now: Timestamp,
    ) -> Result<Option<String>, ScenarioError> {
        let refused = |e: tidegate_domain::rollout::RolloutRefusal| ScenarioError(e.to_string());
        let state = match action.on_rollout() {
            Some(event) => self.rollouts[index].state.apply(event).map_err(refused)?,
            None => self.rollouts[index].state,
        };
        let found = match action {
            Action::StartWave(i) => Some(self.population(index, *i, devices, groups)),
            _ => None,
        };
        let rollout = &mut self.rollouts[index];
        rollout.state = state;
        let text = match action {
            Action::Grant { granted, at } => {
                rollout.progress.granted = *granted;
                rollout.progress.granted_at = Some(*at);
                return Ok(None);
            }
            Action::StartWave(i) | Action::Soak(i) | Action::Pass(i) => {
                let (wave, progress) = &mut rollout.waves[*i];
                *progress = action.on_wave(progress, found, now);
                let tally = &rollout.tallies[*i];
                match action {
                    Action::StartWave(_) => {
                        format!("wave {} starts with {} devices", wave.name, progress.quota)
                    }
                    Action::Soak(_) => format!(
                        "wave {} soaks: {} healthy, {} failed, {} not reached",
                        wave.name,
                        tally.healthy(),
                        tally.failed(),
                        progress.quota.saturating_sub(tally.exposed())
                    ),
                    _ => format!("wave {} passed", wave.name),
                }
            }
            Action::Breach { wave, reason, .. } => {
                rollout.breached.get_or_insert(*wave);
                let progress = &mut rollout.waves[*wave].1;
                *progress = action.on_wave(progress, None, now);
                format!("{state}: {}", reason.detail)
            }
            Action::Complete { reason, .. } => match state {
                RolloutState::CompletedPartly => format!("completed partly: {}", reason.detail),
                RolloutState::NothingToDo => format!("nothing to do: {}", reason.detail),
                _ => "completed".into(),
            },
            Action::Returned => "rolled back: the last device is back".into(),
            Action::ReturnedPartly => "rolled back partly: the other devices cannot go back".into(),
        };
        self.publish();
        Ok(Some(text))
    }

    /// Population of a wave, by the same rule as the server's walk along the ring.
    fn population(
        &self,
        index: usize,
        wave: usize,
        devices: &[Device],
        groups: &[Group],
    ) -> Population {
        let r = &self.rollouts[index];
        let (mine, _) = &r.waves[wave];
        let earlier: Vec<_> = r.waves[..wave]
            .iter()
            .filter(|(_, p)| p.state != WaveState::Pending)
            .collect();
        let mut selected = 0;
        let mut places: Vec<Place> = Vec::new();
        for device in devices {
            let spec = &groups[usize::from(device.group)];
            let facts = device.facts(spec, 0);
            if !mine.selector.matches(facts.selectable()) {
                continue;
            }
            let place = device.ring.place(r.salt);
            let taken = earlier
                .iter()
                .any(|(w, p)| w.selector.matches(facts.selectable()) && p.frontier.admits(place));
            let candidate = Candidate {
                active: true,
                platform: facts.platform,
                channel: facts.channel,
                release: facts.release,
                quarantined: device.quarantine.contains(&r.release),
            };
            if !taken && not_concerned(&self.plan, &r.release, candidate).is_some() {
                continue;
            }
            selected += 1;
            if !taken {
                places.push(place);
            }
        }
        let quota = mine.size.quota(selected, places.len() as u64);
        let frontier = if mine.size == WaveSize::All {
            Frontier::ALL
        } else {
            Frontier::admitting(&mut places, quota)
        };
        Population { quota, frontier }
    }

    /// Applies a person's order.
    pub(crate) fn order(&mut self, index: usize, event: RolloutEvent) -> Result<(), ScenarioError> {
        let rollout = &mut self.rollouts[index];
        rollout.state = rollout
            .state
            .apply(event)
            .map_err(|e| ScenarioError(e.to_string()))?;
        if event == RolloutEvent::Resume {
            rollout.excused = rollout
                .tallies
                .iter()
                .map(|t| (t.failed(), t.silent()))
                .collect();
            for (_, progress) in &mut rollout.waves {
                if progress.state == WaveState::Failed {
                    progress.state = WaveState::Running;
                    progress.ended_at = None;
                }
            }
        }
        self.publish();
        Ok(())
    }
}

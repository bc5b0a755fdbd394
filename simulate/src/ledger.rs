//! Records of the control plane: offers, their outcomes, and the counts of both.

use std::collections::BTreeMap;

use tidegate_domain::admission::{DeploymentFacts, Offer};
use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::rollout::{Outcome, Sample};
use tidegate_protocol::{DeploymentId, DeploymentState, Explained, Report, Timestamp};

use crate::control::Control;
use crate::device::Device;
use crate::scenario::Group;

impl Control {
    /// Records an offer if there is room, as the database does.
    pub(crate) fn offer(
        &mut self,
        device: &mut Device,
        offer: &Offer,
        now: Timestamp,
        second: u64,
    ) -> Option<DeploymentId> {
        let rollout = self.rollouts.iter_mut().find(|r| r.id == offer.rollout)?;
        let previous = device.deployments.get(&offer.rollout);
        let (was, facts) = if let Some(previous) = previous {
            let was = Outcome::of(previous, rollout.max_attempts);
            (Some(was), previous.again(offer.leg.clone(), now))
        } else {
            if rollout.progress.permits() == 0 {
                return None;
            }
            rollout.progress.exposed += 1;
            device.offered_at = second;
            rollout.progress.last_offer = Some(now);
            self.next_deployment += 1;
            let facts = DeploymentFacts {
                id: DeploymentId::from_random(self.next_deployment.to_be_bytes()),
                wave: offer.wave,
                state: DeploymentState::Offered,
                from: device.release.clone(),
                leg: offer.leg.clone(),
                reason: None,
                attempts: 1,
                took: false,
                failures: BTreeMap::new(),
                updated_at: now,
            };
            (None, facts)
        };
        rollout.tallies[facts.wave as usize].moved(was, Outcome::Waiting);
        let id = facts.id;
        device.deployments.insert(offer.rollout, facts);
        Some(id)
    }

    /// Moves a deployment; returns whether it accepted the event.
    pub(crate) fn happen(
        &mut self,
        device: &mut Device,
        id: DeploymentId,
        event: DeploymentEvent,
        reason: Option<Explained>,
        now: Timestamp,
        second: u64,
    ) -> bool {
        let found = device.deployments.iter().find(|(_, d)| d.id == id);
        let Some((rollout_id, was)) = found.map(|(r, d)| (*r, d.clone())) else {
            return false;
        };
        let Some(rollout) = self.rollouts.iter_mut().find(|r| r.id == rollout_id) else {
            return false;
        };
        let Ok(is) = was.after(event, reason, now) else {
            return false;
        };
        let (before, after) = (
            Outcome::of(&was, rollout.max_attempts),
            Outcome::of(&is, rollout.max_attempts),
        );
        rollout.tallies[is.wave as usize].moved(Some(before), after);
        if after.is_known() && !before.is_known() {
            rollout.progress.done += 1;
            rollout.progress.done_s += second.saturating_sub(device.offered_at);
        }
        let failed = after == Outcome::Failed;
        if failed && before != after {
            rollout.first_failure[is.wave as usize].get_or_insert(second);
        }
        if after.is_known() || before.is_known() {
            let key = |outcome, facts: &DeploymentFacts| match outcome {
                Outcome::Failed => facts.reason.as_ref().map(|r| r.code),
                _ => None,
            };
            if before.is_known() {
                let count = rollout
                    .samples
                    .entry((device.group, key(before, &was)))
                    .or_default();
                *count = count.saturating_sub(1);
            }
            if after.is_known() {
                *rollout
                    .samples
                    .entry((device.group, key(after, &is)))
                    .or_default() += 1;
            }
        }
        if is.state == DeploymentState::RolledBack {
            device.quarantine.insert(is.leg.clone());
        }
        device.deployments.insert(rollout_id, is);
        true
    }

    /// Processes a report, as the server does.
    pub(crate) fn report(
        &mut self,
        device: &mut Device,
        report: &Report,
        now: Timestamp,
        second: u64,
    ) {
        device.release.clone_from(&report.release);
        device.image = report.image;
        let goal = device
            .deployments
            .iter()
            .find(|(_, d)| d.id == report.deployment)
            .and_then(|(id, _)| self.rollout(*id))
            .map(|r| r.release.clone());
        let leg_done = report.state == DeploymentState::Succeeded
            && report.release.is_some()
            && report.release != goal;
        let event = if leg_done {
            DeploymentEvent::LegDone
        } else {
            DeploymentEvent::Reported(report.state)
        };
        self.happen(
            device,
            report.deployment,
            event,
            report.reason.clone(),
            now,
            second,
        );
    }

    /// Counts of known outcomes, by the properties that devices have in common.
    pub(crate) fn samples(&self, index: usize, groups: &[Group]) -> Vec<Sample> {
        self.rollouts[index]
            .samples
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|((group, reason), count)| {
                let spec = &groups[usize::from(*group)];
                Sample {
                    region: spec.region.clone(),
                    platform: spec.platform.to_string(),
                    model: spec.labels.get("model").cloned().unwrap_or_default(),
                    from: Some(spec.release.clone()),
                    reason: *reason,
                    count: *count,
                }
            })
            .collect()
    }
}

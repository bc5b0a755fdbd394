//! Counts that the control plane takes at intervals.

use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::rollout::Stratum;
use tidegate_protocol::{DeploymentState, Explained, Reason};

use super::World;

impl World<'_> {
    /// Counts silent devices, gives up those not heard from for too long, and compares old and new.
    pub(super) fn look(&mut self) {
        let now = self.at();
        for index in 0..self.control.rollouts.len() {
            let rollout = &mut self.control.rollouts[index];
            let (id, timeout) = (rollout.id, rollout.timeout);
            let silent_after = rollout.policy.gate.silent_after.as_secs();
            for tally in &mut rollout.tallies {
                tally.quiet_taking = 0;
                tally.quiet_probation = 0;
            }
            if self.naive {
                continue;
            }
            let mut given_up = Vec::new();
            for (number, device) in self.devices.iter().enumerate() {
                let Some(deployment) = device.deployments.get(&id) else {
                    continue;
                };
                let unheard = self.now.saturating_sub(device.last_seen);
                if unheard <= silent_after {
                    continue;
                }
                let tally = &mut rollout.tallies[deployment.wave as usize];
                match deployment.state {
                    DeploymentState::Installing | DeploymentState::Verifying => {
                        tally.quiet_taking += 1;
                    }
                    DeploymentState::Probation => tally.quiet_probation += 1,
                    _ => {}
                }
                if unheard > timeout && !deployment.state.is_final() {
                    given_up.push((number, deployment.id));
                }
            }
            for (number, deployment) in given_up {
                let device = &mut self.devices[number];
                let reason = Some(Explained::from(Reason::TimedOut));
                let event = DeploymentEvent::TimedOut;
                self.control
                    .happen(device, deployment, event, reason, now, self.now);
            }
            let (bad_new, bad_old) = self.turned_bad.get(index).copied().unwrap_or_default();
            if bad_new + bad_old > 0 {
                let rollout = &mut self.control.rollouts[index];
                let exposed: u64 = rollout
                    .tallies
                    .iter()
                    .map(tidegate_domain::rollout::Tally::exposed)
                    .sum();
                let healthy: u64 = rollout
                    .tallies
                    .iter()
                    .map(tidegate_domain::rollout::Tally::healthy)
                    .sum();
                rollout.strata.push(Stratum {
                    risk_new: healthy.max(bad_new),
                    risk_old: (self.devices.len() as u64)
                        .saturating_sub(exposed)
                        .max(bad_old),
                    bad_new,
                    bad_old,
                });
                self.turned_bad[index] = (0, 0);
                self.dirty = true;
            }
        }
    }
}

//! Writes that a decision about a device requires.

use std::time::Duration;

use tidegate_domain::admission::{Decision, Verdict};
use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::event::Actor;
use tidegate_domain::rollout::kept_for;
use tidegate_protocol::{DeploymentId, DeploymentState, DeviceId};
use tidegate_trust::assignment::Action;

use crate::CoreError;
use crate::app::App;
use crate::device::assign::Task;
use crate::memory::permits::Permit;
use crate::queue::{Write, Written};

/// Origin of an order: a check-in, or a person who carries it to the device.
pub(super) struct Giver<'a> {
    pub(super) actor: &'a Actor,
    /// Validity of an order that is carried; `None` for a check-in.
    pub(super) carried: Option<Duration>,
}

/// Next step of a device, once what it needs is written.
pub(super) enum Next {
    Nothing,
    NoPermit,
    Cancel(DeploymentId),
    Task(Task),
}

impl App {
    /// Writes what a decision requires; `None` if the decision turned out to be outdated.
    pub(super) async fn act(
        &self,
        by: &Giver<'_>,
        device: DeviceId,
        decision: Decision,
    ) -> Result<Option<Next>, CoreError> {
        let reason = decision.reason;
        Ok(match decision.verdict {
            Verdict::Nothing => Some(Next::Nothing),
            Verdict::Repeat {
                deployment,
                leg,
                rollback_window_s,
                switch_within_s,
                ..
            } => Some(Next::Task(Task {
                deployment,
                release: leg,
                action: Action::Install,
                rollback_window_s: self.kept_for(rollback_window_s),
                switch_within_s,
            })),
            Verdict::Offer(offer) => {
                let mut permit = None;
                if offer.retry_of.is_none() {
                    let permits = self.fleet.permits(offer.rollout);
                    permit = permits.and_then(|permits| permits.take());
                    if permit.is_none() {
                        return Ok(Some(Next::NoPermit));
                    }
                }
                let task = Task {
                    deployment: DeploymentId::from_random([0; 16]),
                    release: offer.leg.clone(),
                    action: Action::Install,
                    rollback_window_s: self.kept_for(offer.rollback_window_s),
                    switch_within_s: offer.switch_within_s,
                };
                let offer = Write::Offer(Box::new(offer));
                let written = self.write(by, device, offer).await?;
                // The permit is used up: the write was counted, or the permits are reloaded.
                permit.into_iter().for_each(Permit::keep);
                match written {
                    Written::Offered(deployment) => Some(Next::Task(Task { deployment, ..task })),
                    Written::NoPermit => {
                        self.fleet.reload_permits(&self.db).await?;
                        Some(Next::NoPermit)
                    }
                    Written::Outdated | Written::Acknowledged(_) | Written::Done => {
                        // Another replica was faster: catch up before deciding again.
                        self.follow_events().await?;
                        self.fleet.reload_permits(&self.db).await?;
                        self.fleet.reload_device(&self.db, device).await?;
                        None
                    }
                }
            }
            Verdict::Left { deployment } => {
                let order = Write::Order(deployment, DeploymentEvent::Superseded, reason);
                self.write(by, device, order).await?;
                // Decide again what else the device should do.
                None
            }
            Verdict::Stuck { deployment } => {
                let order = Write::Order(deployment, DeploymentEvent::CannotReturn, reason);
                self.write(by, device, order).await?;
                Some(Next::Nothing)
            }
            Verdict::Cancel { deployment, .. } => {
                let order = Write::Order(deployment, DeploymentEvent::Cancelled, reason);
                self.write(by, device, order).await?;
                Some(Next::Cancel(deployment))
            }
            Verdict::Return { deployment, to, .. } => {
                // Repeating the order is harmless; only the first one changes the state.
                let order = Write::Order(deployment, DeploymentEvent::ReturnOrdered, reason);
                let first = self.fleet.device(device).is_some_and(|entry| {
                    let state = entry.lock();
                    state
                        .deployments
                        .values()
                        .any(|d| d.id == deployment && d.state != DeploymentState::RollingBack)
                });
                if first {
                    self.write(by, device, order).await?;
                }
                let action = Action::Rollback;
                Some(Next::Task(Task {
                    deployment,
                    release: to,
                    action,
                    rollback_window_s: 0,
                    switch_within_s: None,
                }))
            }
        })
    }

    /// Time for which a device keeps the old version for a rollback window: longer than people can give an
    /// order in it, by the time in which the device hears of it.
    pub(crate) fn kept_for(&self, rollback_window_s: u32) -> u32 {
        let devices = &self.settings.devices;
        kept_for(rollback_window_s, devices.poll, devices.wake_ramp)
    }

    async fn write(
        &self,
        by: &Giver<'_>,
        device: DeviceId,
        write: Write,
    ) -> Result<Written, CoreError> {
        self.writer.write(by.actor.clone(), device, write).await
    }
}

//! Contacts of the device with its server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_machine::fsm::{Event, Record};
use tidegate_machine::orders::{self, Asked, NotTaken};
use tidegate_protocol::{DeploymentId, DeploymentState as State, Timestamp};
use tidegate_trust::TrustError;
use tidegate_trust::assignment::{Action, Clock, Terms};

use super::World;
use crate::power_loss::model::server::Deployment;
use crate::power_loss::model::{COUNTS, VERSIONS};

impl World {
    pub(super) fn contact(&mut self, answer: bool, acknowledged: bool) {
        self.now = self.now.plus(Duration::from_mins(5));
        if self.core.is_none() {
            self.live(None);
        }
        let record = self.record();
        for report in &record.outbox {
            self.server.hear(report, &self.versions);
        }
        if let Some(last) = record.outbox.last().filter(|_| acknowledged) {
            self.live(Some(Event::Acknowledged(last.seq)));
        }
        let record = self.record();
        if record.outbox.is_empty()
            && let Some(installed) = record.running()
        {
            self.server.runs = self.versions.which(installed.image);
        }
        self.offer();
        let event = self.decides(&record);
        if answer && event.is_some() {
            self.live(event);
        }
    }

    /// Starts a deployment when the device checks in, from the version that it says it runs.
    fn offer(&mut self) {
        let server = &mut self.server;
        if server.open().is_some() {
            return;
        }
        let newer = server.wanted.take().map(|step| server.runs + step);
        if let Some(target) = newer.filter(|target| *target < VERSIONS) {
            let number = u8::try_from(server.deployments.len()).unwrap();
            server.deployments.push(Deployment {
                id: DeploymentId::from_random([number + 1; 16]),
                state: State::Offered,
                target,
                from: server.runs,
            });
        }
    }

    /// Returns what the server tells a device with this record.
    fn decides(&mut self, record: &Record) -> Option<Event> {
        let deployment = self.server.deployments.last()?;
        let (action, to) = match deployment.state {
            State::Cancelled | State::Superseded => {
                let busy = record.status().is_some_and(|(id, ..)| id == deployment.id);
                return busy.then_some(Event::CalledOff(deployment.id));
            }
            State::Offered | State::Deferred => (Action::Install, deployment.target),
            State::RollingBack => (Action::Rollback, deployment.from),
            _ => return None,
        };
        let running = self.versions.which(record.running()?.image);
        let nonce = "00112233";
        let terms = Terms {
            device: self.orders.device,
            nonce: nonce.into(),
            action,
            deployment: deployment.id,
            rollback_window_s: if action == Action::Install { 60 } else { 0 },
            again: false,
            switch_within_s: None,
            payloads: self.versions.payloads(running, to),
        };
        let signed = self.orders.assign(to, record.counter + 1, self.now, terms);
        let clock = Clock {
            shows: Timestamp::from_secs(self.now.as_secs() + self.ahead),
            floor: record.time_floor,
            strict: false,
        };
        let orders = self.orders.clone();
        let core = self.core.as_mut()?;
        let asked = Asked {
            device: orders.device,
            platform: &orders.platform,
            nonce: Some(nonce),
            clock,
            agent: None,
            formats: core.backend.formats(),
        };
        match orders::check(&mut core.journal, &orders.trusted, &signed, &asked) {
            Ok((job, counter)) => {
                if self.ahead.abs() > 3_600 {
                    COUNTS.misled.fetch_add(1, Ordering::Relaxed);
                }
                Some(Event::Assigned(Box::new(job), counter))
            }
            Err(NotTaken::Trust(TrustError::AlreadyInstalled(_))) => None,
            Err(NotTaken::Trust(error)) => panic!("an honest order is refused: {error}"),
            // The power failed.
            Err(NotTaken::Journal(_)) => {
                self.lose_power();
                None
            }
        }
    }
}

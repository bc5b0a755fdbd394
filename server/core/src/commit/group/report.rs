//! Reports of a device on its deployments; each number is taken once.

use tidegate_domain::deployment::report::{Told, hear};
use tidegate_domain::event::{Actor, Event};
use tidegate_domain::rollout::Outcome;
use tidegate_protocol::{DeviceId, Explained, Report};
use tidegate_store::deployments::{self, Deployment};
use tidegate_store::{StoreError, devices, quarantine, rollouts, to_json};

use crate::commit::group::Batch;
use crate::queue::Written;

impl Batch<'_> {
    /// Takes reports in order and returns the highest number held.
    pub(crate) async fn reports(
        &mut self,
        actor: &Actor,
        device: DeviceId,
        reports: &[Report],
    ) -> Result<Written, StoreError> {
        for report in reports {
            // Take each number once: a report whose acknowledgement was lost is sent again.
            if devices::take_report(&mut self.tx, device, report.seq).await? {
                let event = self.report(device, report).await?;
                self.gathered.events.push((actor.clone(), event));
                let statement = to_json("statement", report)?;
                let id = report.deployment;
                deployments::set_statement(&mut self.tx, id, device, &statement).await?;
            }
        }
        let held = devices::report_seq(&mut self.tx, device).await?;
        Ok(Written::Acknowledged(held.unwrap_or(0)))
    }

    async fn report(&mut self, device: DeviceId, report: &Report) -> Result<Event, StoreError> {
        let release = report.release.as_ref();
        devices::set_runs(&mut self.tx, device, release, report.image, false).await?;
        let found = deployments::one(&mut self.tx, report.deployment)
            .await?
            .filter(|d| d.device == device);
        let Some(was) = found else {
            // The running release has changed all the same, and other replicas must know.
            return Ok(Event::ReportUnknown {
                device,
                deployment: report.deployment,
                report: report.seq,
            });
        };
        // The plan has every rollout except those that ended long ago.
        let rollout = match self.plan.rollouts.get(&was.rollout) {
            Some((rollout, _)) => Some(rollout.clone()),
            None => rollouts::one(&mut self.tx, was.rollout).await?,
        };
        let reason = report.reason.clone().map(Explained::bounded);
        let heard = hear(
            &was.facts,
            &Told {
                state: report.state,
                runs: release,
                release: rollout.as_ref().map(|r| &r.release),
                reason: reason.clone(),
            },
            self.now,
        );
        let reported = Event::DeploymentReported {
            rollout: was.rollout,
            device,
            deployment: report.deployment,
            report: report.seq,
            leg: was.facts.leg.clone(),
            state: report.state,
            was: was.facts.state,
            taken: heard.is_some(),
            code: reason.as_ref().map(|r| r.code),
            detail: reason.map(|r| r.detail).unwrap_or_default(),
        };
        let Some(heard) = heard else {
            return Ok(reported);
        };
        let is = Deployment {
            outcome: Outcome::of(&heard.facts, rollout.map_or(1, |r| r.max_attempts)),
            bytes_downloaded: was.bytes_downloaded.max(report.bytes_downloaded),
            downtime_ms: report.downtime_ms.or(was.downtime_ms),
            facts: heard.facts,
            ..was.clone()
        };
        if !deployments::update(&mut self.tx, &is, was.facts.state).await? {
            return Err(StoreError::RowCount {
                operation: "change a deployment",
                count: 0,
            });
        }
        self.gathered.count(Some(&was), &is, self.now);
        if heard.switched {
            let leg = is.facts.leg.clone();
            let bytes = report.bytes_downloaded;
            self.gathered.switched.push((device, leg, bytes));
        }
        if let Some(why) = heard.quarantined {
            // Quarantine the leg the device rolled back from: that is the bad one.
            quarantine::quarantine(&mut self.tx, device, &is.facts.leg, why, self.now).await?;
        }
        Ok(reported)
    }
}

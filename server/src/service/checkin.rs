//! The check-in: facts up, orders down. Costs no statement when nothing changes.

use std::time::Duration;

use tidegate_domain::admission::{Decision, Verdict};
use tidegate_domain::deployment::DeploymentEvent;
use tidegate_protocol::{
    CheckIn, CheckInAnswer, DeploymentId, DeploymentState, DeviceId, Explained, MAX_WAIT_S,
    ProblemCode, Reason, ReportBatch, ReportsAccepted, Version,
};
use tidegate_trust::ImagePath;
use tidegate_trust::assignment::{Action, Draft, Payload, Terms};

use super::ServiceError;
use super::fleet::{DeviceEntry, DeviceState};
use super::plan::PlanSnapshot;
use super::writer::{Write, Written};
use crate::app::App;

/// What a device is to do, before it is signed.
struct Task {
    deployment: DeploymentId,
    release: Version,
    action: Action,
    window_s: u32,
}

/// How often a decision is made anew when a write finds it outdated.
const TRIES: u32 = 4;

impl App {
    /// Takes a check-in; may hold it until there is something to say.
    pub async fn check_in(
        &self,
        device: DeviceId,
        request: &CheckIn,
    ) -> Result<CheckInAnswer, ServiceError> {
        if request.nonce.len() != 64 || !request.nonce.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ServiceError::invalid("nonce: 32 bytes in hexadecimal"));
        }
        let entry = self
            .fleet
            .device(device)
            .ok_or_else(|| ServiceError::not_found("such device"))?;
        let hold = Duration::from_secs(u64::from(request.wait.min(MAX_WAIT_S)));
        let deadline = tokio::time::Instant::now() + hold;
        let mut watch = self.fleet.watch();
        self.note_heartbeat(&entry, request).await?;
        loop {
            watch.mark_unchanged();
            let (answer, news) = self.answer(device, &entry, request).await?;
            if news || self.stopping.is_cancelled() {
                return Ok(answer);
            }
            let changed = tokio::select! {
                changed = watch.changed() => changed.is_ok(),
                () = tokio::time::sleep_until(deadline) => false,
                () = self.stopping.cancelled() => false,
            };
            if !changed {
                self.metrics.check_ins.inc();
                entry.lock().device.last_seen = self.now();
                return Ok(answer);
            }
        }
    }

    /// Takes over the facts in memory; they are written behind. Only what runs is written at
    /// once, when it is not what the reports said.
    async fn note_heartbeat(
        &self,
        entry: &DeviceEntry,
        request: &CheckIn,
    ) -> Result<(), ServiceError> {
        let (id, runs_other) = {
            let mut state = entry.lock();
            state.device.last_seen = self.now();
            state.device.agent_version = request.agent_version.chars().take(40).collect();
            state.device.battery = request.battery;
            state.status = request.deployment;
            state.dirty = true;
            let runs_other =
                state.device.release != request.release || state.device.image != request.image;
            (state.device.id, runs_other)
        };
        if runs_other {
            let write = Write::Runs(request.release.clone(), request.image);
            self.writer.write(id, write).await?;
        }
        Ok(())
    }

    /// One answer, and whether it says something new.
    async fn answer(
        &self,
        device: DeviceId,
        entry: &DeviceEntry,
        request: &CheckIn,
    ) -> Result<(CheckInAnswer, bool), ServiceError> {
        let mut reason = Explained::from(Reason::NoRollout);
        for _ in 0..TRIES {
            let plan = self.fleet.plan();
            let decision = entry.lock().decide(&plan, self.now(), &mut ());
            reason = decision.reason.clone();
            let Some(task) = self.act(device, decision).await? else {
                continue;
            };
            let (task, cancel) = match task {
                Next::Nothing => return Ok((self.plain(reason), false)),
                Next::Cancel(deployment) => (None, Some(deployment)),
                Next::Task(task) => (Some(task), None),
            };
            // The device has it already.
            let knows = request.deployment.is_some_and(|status| {
                task.as_ref()
                    .is_some_and(|t| t.deployment == status.id && t.action == Action::Install)
            });
            if knows {
                return Ok((self.plain(reason), false));
            }
            let assignment = match &task {
                Some(task) => Some(self.assign(&plan, &entry.lock(), request, task)?),
                None => None,
            };
            self.metrics.check_ins.inc();
            let answer = CheckInAnswer {
                assignment,
                cancel,
                ..self.plain(reason)
            };
            return Ok((answer, true));
        }
        Ok((self.plain(reason), false))
    }

    fn plain(&self, reason: Explained) -> CheckInAnswer {
        let poll = self.settings.devices.poll.as_secs();
        CheckInAnswer {
            time: self.now(),
            reason,
            poll_after_s: u32::try_from(poll).unwrap_or(u32::MAX).max(1),
            assignment: None,
            cancel: None,
        }
    }

    /// Writes what a decision needs written; `None` when it turned out outdated.
    async fn act(
        &self,
        device: DeviceId,
        decision: Decision,
    ) -> Result<Option<Next>, ServiceError> {
        let reason = decision.reason;
        Ok(match decision.verdict {
            Verdict::Nothing => Some(Next::Nothing),
            Verdict::Repeat {
                deployment,
                leg,
                window_s,
                ..
            } => Some(Next::Task(Task {
                deployment,
                release: leg,
                action: Action::Install,
                window_s,
            })),
            Verdict::Offer(offer) => {
                let task = (offer.leg.clone(), offer.window_s);
                if let Written::Offered(deployment) = self
                    .writer
                    .write(device, Write::Offer(Box::new(offer)))
                    .await?
                {
                    Some(Next::Task(Task {
                        deployment,
                        release: task.0,
                        action: Action::Install,
                        window_s: task.1,
                    }))
                } else {
                    // Another replica moved on: catch up before looking again.
                    self.follow_events().await?;
                    self.fleet.reload_device(&self.db, device).await?;
                    None
                }
            }
            Verdict::Cancel { deployment, .. } => {
                let order = Write::Order(deployment, DeploymentEvent::Cancelled, reason);
                self.writer.write(device, order).await?;
                Some(Next::Cancel(deployment))
            }
            Verdict::Return { deployment, to, .. } => {
                // Repeating an order is harmless; only the first one changes the state.
                let order = Write::Order(deployment, DeploymentEvent::ReturnOrdered, reason);
                let first = self.fleet.device(device).is_some_and(|entry| {
                    let state = entry.lock();
                    state
                        .deployments
                        .values()
                        .any(|d| d.id == deployment && d.state != DeploymentState::RollingBack)
                });
                if first {
                    self.writer.write(device, order).await?;
                }
                let action = Action::Rollback;
                Some(Next::Task(Task {
                    deployment,
                    release: to,
                    action,
                    window_s: 0,
                }))
            }
        })
    }

    /// Signs an assignment: one image of the offline-signed role, for this device and nonce.
    fn assign(
        &self,
        plan: &PlanSnapshot,
        state: &DeviceState,
        request: &CheckIn,
        task: &Task,
    ) -> Result<String, ServiceError> {
        let device = &state.device;
        let missing = || {
            ServiceError::refuse(
                ProblemCode::Conflict,
                format!(
                    "release {} has no artifact for {}",
                    task.release, device.platform
                ),
            )
        };
        let artifact = plan
            .artifact(&device.product, &task.release, &device.platform)
            .ok_or_else(missing)?;
        let draft = Draft {
            counter: request.counter.saturating_add(1),
            time: self.now(),
            path: ImagePath {
                role: tidegate_trust::RoleName::new(device.product.clone(), device.channel),
                release: task.release.clone(),
                platform: device.platform.clone(),
            },
            image: artifact.image,
            terms: Terms {
                device: device.id,
                nonce: request.nonce.clone(),
                action: task.action,
                deployment: task.deployment,
                window_s: task.window_s,
                payloads: payloads(plan, artifact.image.sha256, request.image),
            },
        };
        let signed = draft.sign(&self.keys.director)?;
        Ok(String::from_utf8_lossy(&signed.to_bytes()).into_owned())
    }

    /// Takes reports; they are acknowledged after their commit.
    pub async fn take_reports(
        &self,
        device: DeviceId,
        batch: ReportBatch,
    ) -> Result<ReportsAccepted, ServiceError> {
        if batch.reports.len() > ReportBatch::MAX {
            let text = format!("at most {} reports at once", ReportBatch::MAX);
            return Err(ServiceError::invalid(text));
        }
        self.metrics.reports.inc_by(batch.reports.len() as u64);
        match self
            .writer
            .write(device, Write::Reports(batch.reports))
            .await?
        {
            Written::Acknowledged(acknowledged) => Ok(ReportsAccepted { acknowledged }),
            Written::Offered(_) | Written::Outdated | Written::Done => {
                Err(ServiceError::invalid("reports were not taken"))
            }
        }
    }
}

enum Next {
    Nothing,
    Cancel(DeploymentId),
    Task(Task),
}

/// The ways to fetch an image, best first: a delta from what is installed if it is the smallest,
/// then the full payloads, smallest first.
fn payloads(
    plan: &PlanSnapshot,
    image: tidegate_protocol::Sha256,
    installed: Option<tidegate_protocol::Sha256>,
) -> Vec<Payload> {
    let mut list: Vec<Payload> = plan
        .payloads
        .get(&image)
        .into_iter()
        .flatten()
        .filter(|p| p.from.is_none() || p.from == installed)
        .map(|p| Payload {
            manifest: p.manifest.sha256,
            manifest_length: p.manifest.length,
            from: p.from,
            bytes: p.bytes,
        })
        .collect();
    list.sort_by_key(|p| p.bytes);
    // What is larger than a full payload is of no use, and the last one needs no old image.
    if let Some(first_full) = list.iter().position(|p| p.from.is_none()) {
        let mut index = 0;
        list.retain(|p| {
            let keep = index <= first_full || p.from.is_none();
            index += 1;
            keep
        });
    }
    list.truncate(4);
    list
}

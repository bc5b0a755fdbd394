//! Heartbeats: the facts that a device sends with a check-in.

use std::time::Duration;

use tidegate_domain::contact::{Contact, later};
use tidegate_domain::deployment::DeploymentEvent;
use tidegate_domain::event::{Actor, Event};
use tidegate_protocol::{
    CheckIn, DeploymentId, DeploymentState, DeviceId, Explained, Left, ProblemCode, Reason,
};

use crate::CoreError;
use crate::app::App;
use crate::memory::device::{DeviceEntry, DeviceState};
use crate::queue::Write;

/// Minimum interval between two diagnoses taken from a device.
const BETWEEN_DIAGNOSES: Duration = Duration::from_mins(10);

/// Takes the place of a check-in among the others of its device. One that was overtaken by another
/// session, or whose number was used before, is refused: a request that is merely late has nobody
/// waiting for it, and a second machine has to sign a new request, whose number gives it away.
pub(crate) fn take_contact(entry: &DeviceEntry, contact: Contact) -> Result<(), CoreError> {
    let mut state = entry.lock();
    if !state.device.isolated.is_empty() {
        // Both may check in now, and readmission starts over.
        state.device.contact = None;
        return Ok(());
    }
    let overtakes = match &state.device.contact {
        Some(latest) if contact.is_behind(latest) => {
            return Err(CoreError::refuse(
                ProblemCode::Unauthenticated,
                "another check-in of this device has come after this session; open a new one",
            ));
        }
        latest => latest.as_ref().is_some_and(|l| l.session < contact.session),
    };
    state.device.contact = later(state.device.contact.take(), Some(contact));
    drop(state);
    if overtakes {
        // Whoever is held in the older session asks again, and is refused: it may be a copy.
        entry.changed.notify_waiters();
    }
    Ok(())
}

impl App {
    /// Updates the facts in memory; they are written later. Only the running release is written at
    /// once, if it differs from what the reports said.
    pub(crate) async fn note_heartbeat(
        &self,
        entry: &DeviceEntry,
        request: &CheckIn,
    ) -> Result<(), CoreError> {
        let (id, runs_other, news, back, told) = {
            let mut state = entry.lock();
            state.device.last_seen = self.now();
            state.device.agent_version = request.agent_version.chars().take(40).collect();
            let now = state.device.last_seen;
            state.device.battery = request.battery;
            state.device.metered = request.metered;
            state.device.low_since = if request.battery.is_low() {
                state.device.low_since.or(Some(now))
            } else {
                None
            };
            // Turning unhealthy is noted once; during a deployment the reports say it.
            if request.healthy == Some(false) && state.healthy != Some(false) {
                state.device.unhealthy_at = Some(now);
            }
            state.healthy = request.healthy;
            let refused = request.refused.clone().map(Explained::bounded);
            let news = refused.clone().filter(|_| refused != state.refused);
            state.refused = refused;
            let left = request.left.as_ref().map(Left::bounded);
            // It comes with an update. What a device had before this server started was told then.
            let is_new = left != state.left && (state.heard || request.deployment.is_some());
            let left_data = left.clone().filter(|_| is_new).map(|left| Event::DataLeft {
                device: state.device.id,
                files: left.files,
                bytes: left.bytes,
                folder: left.folder,
            });
            state.left = left;
            state.status = request.deployment;
            state.kept.clone_from(&request.kept);
            state.heard = true;
            state.dirty = true;
            let runs_other =
                state.device.release != request.release || state.device.image != request.image;
            let back = request
                .deployment
                .is_none()
                .then(|| put_back(&state, request));
            // Rate limit: a device that sends a diagnosis with each request must not fill a table.
            let due = state
                .diagnosis
                .as_ref()
                .is_none_or(|(at, _)| now.since(*at) >= BETWEEN_DIAGNOSES);
            let diagnosis = request.diagnosis.as_ref().filter(|_| due);
            let diagnosis = diagnosis.map(|found| Event::DeviceDiagnosed {
                device: state.device.id,
                cut_off_s: found.cut_off_s,
                summary: found.summary(),
            });
            if let Some(event) = &diagnosis {
                state.diagnosis = Some((now, event.to_string()));
            }
            let told = [diagnosis, left_data];
            (state.device.id, runs_other, news, back.flatten(), told)
        };
        if let Some(deployment) = back {
            let reason = Explained::new(
                Reason::DeviceIsolated,
                "it runs the previous release and has no record of this deployment: its disk was restored to an older state",
            );
            let event = DeploymentEvent::Reported(DeploymentState::RolledBack);
            let write = Write::Order(deployment, event, reason);
            self.writer.write(Actor::CheckIn, id, write).await?;
        }
        if let Some(refused) = news {
            // Record a refusal for people to see, once per reason.
            self.metrics.refusals.inc();
            let event = Event::DeviceRefused {
                device: id,
                code: refused.code,
                detail: refused.detail,
            };
            self.note_of_device(id, event).await?;
        }
        for event in told.into_iter().flatten() {
            self.note_of_device(id, event).await?;
        }
        if runs_other {
            let write = Write::Runs(request.release.clone(), request.image);
            self.writer.write(self.device_actor(id), id, write).await?;
        }
        Ok(())
    }

    async fn note_of_device(&self, device: DeviceId, event: Event) -> Result<(), CoreError> {
        self.change(&self.device_actor(device), async |_| Ok(((), vec![event])))
            .await
    }
}

/// Returns a deployment that, as far as is known here, has switched this device, while the device
/// itself is idle and runs the previous release. Reports come before check-ins, so this is not a
/// race: its disk was restored to an older state.
fn put_back(state: &DeviceState, request: &CheckIn) -> Option<DeploymentId> {
    let open = state
        .deployments
        .values()
        .find(|d| !d.state.is_final() && d.state.has_switched())?;
    (request.release.is_some() && request.release == open.from && state.device.isolated.is_empty())
        .then_some(open.id)
}

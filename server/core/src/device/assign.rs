//! Assignments: orders to a device, signed for it and for this moment.

use std::time::Duration;

use tidegate_domain::admission::Metered;
use tidegate_domain::transport::{self, Way};
use tidegate_protocol::{CheckIn, DeploymentId, ProblemCode, Sha256, Version};
use tidegate_trust::ImagePath;
use tidegate_trust::assignment::{Action, Draft, Payload, Terms};

use crate::CoreError;
use crate::app::App;
use crate::memory::device::DeviceState;
use crate::memory::plan::PlanSnapshot;

/// Order to a device, before it is signed.
pub(crate) struct Task {
    pub(crate) deployment: DeploymentId,
    pub(crate) release: Version,
    pub(crate) action: Action,
    pub(crate) rollback_window_s: u32,
    pub(crate) switch_within_s: Option<u32>,
}

impl App {
    /// Signs an assignment: one image of the offline-signed role, for this device and nonce.
    pub(crate) fn assign(
        &self,
        plan: &PlanSnapshot,
        state: &DeviceState,
        request: &CheckIn,
        task: &Task,
        carried: Option<Duration>,
    ) -> Result<String, CoreError> {
        let device = &state.device;
        let missing = || {
            CoreError::refuse(
                ProblemCode::Conflict,
                format!(
                    "release {} has no artifact for {}",
                    task.release, device.platform
                ),
            )
        };
        // Back to what the device keeps, byte for byte, whether it was published or not: it needs no
        // download, and no listing.
        let kept = request
            .kept
            .as_ref()
            .filter(|kept| task.action == Action::Rollback && kept.release == task.release);
        let image = match kept {
            Some(kept) => kept.image,
            None => {
                plan.artifact(&device.product, &task.release, &device.platform)
                    .ok_or_else(missing)?
                    .image
            }
        };
        // A damaged delta must not lead to a download that the rollout does not allow on a metered
        // link.
        let deltas_only = request.metered
            && task.action == Action::Install
            && state.deployments.iter().any(|(rollout, d)| {
                d.id == task.deployment
                    && plan
                        .rollouts
                        .get(rollout)
                        .is_some_and(|(r, _)| r.policy.metered == Metered::DeltasOnly)
            });
        let draft = Draft {
            counter: request.counter.saturating_add(1),
            time: self.now(),
            path: ImagePath {
                role: tidegate_trust::RoleName::new(device.product.clone(), device.channel),
                release: task.release.clone(),
                platform: device.platform.clone(),
            },
            image,
            terms: Terms {
                device: device.id,
                nonce: request.nonce.clone(),
                action: task.action,
                deployment: task.deployment,
                rollback_window_s: task.rollback_window_s,
                switch_within_s: task.switch_within_s,
                again: device.lifted.contains(&task.release),
                payloads: payloads(plan, image.sha256, request, deltas_only),
            },
        };
        let director = &plan.trust.keys.director;
        let signed = match carried {
            None => draft.sign(director)?,
            Some(lives) => draft.sign_carried(director, lives)?,
        };
        Ok(String::from_utf8_lossy(&signed.to_bytes()).into_owned())
    }
}

/// Payloads for fetching an image, the fastest for this device first.
pub(crate) fn payloads(
    plan: &PlanSnapshot,
    image: Sha256,
    request: &CheckIn,
    deltas_only: bool,
) -> Vec<Payload> {
    let ways = plan.payloads.get(&image).into_iter().flatten().map(|p| {
        let way = Way {
            encoding: p.encoding,
            from: p.from,
            bytes: p.bytes,
            memory: p.memory,
            work: p.work,
        };
        let payload = Payload {
            manifest: p.manifest.sha256,
            manifest_length: p.manifest.length,
            from: p.from,
            bytes: p.bytes,
        };
        (way, payload)
    });
    let mut list = transport::order(
        ways,
        &request.abilities,
        request.image,
        request.metered,
        deltas_only,
    );
    list.truncate(4);
    list
}

//! Devices.

use tidegate_api::{DeviceView, ReasonView, StepView, WhyView, time};
use tidegate_core::device::{DeviceStanding, WhyDevice, fingerprint};

use super::View;

impl View<DeviceStanding> for DeviceView {
    fn view(standing: DeviceStanding) -> Self {
        let DeviceStanding {
            state,
            reason,
            online,
            no_way_back,
        } = standing;
        let device = &state.device;
        let open = state.deployments.values().find(|d| !d.state.is_final());
        DeviceView {
            id: device.id.to_string(),
            name: device.name.clone(),
            product: device.product.to_string(),
            platform: device.platform.to_string(),
            region: device.region.to_string(),
            channel: device.channel.to_string(),
            labels: device.labels.clone(),
            active: device.active,
            awaiting: device.awaiting,
            key_sha256: fingerprint(&device.public_key)
                .map_or_else(|_| String::new(), |f| f.to_string()),
            refused: state.refused.as_ref().map(ReasonView::from),
            diagnosis: state
                .diagnosis
                .as_ref()
                .map(|(at, text)| format!("{}: {text}", time(*at))),
            isolated: Some(device.isolated.clone()).filter(|why| !why.is_empty()),
            online,
            release: device.release.as_ref().map(ToString::to_string),
            image: device.image.map(|i| i.to_string()),
            claimed: claimed(device.claimed),
            agent_version: device.agent_version.clone(),
            battery_percent: device.battery.percent,
            power: device.battery.power.to_string(),
            enrolled_at: time(device.enrolled_at),
            last_seen: time(device.last_seen),
            state: open.map(|d| d.state.to_string()),
            rollback_window_left_s: state.status.and_then(|s| s.rollback_window_left_s),
            quarantine: state.quarantine.iter().map(ToString::to_string).collect(),
            no_way_back: no_way_back.as_ref().map(ReasonView::from),
            reason: (&reason).into(),
        }
    }
}

/// Names the fields that no signature of the device vouches for.
fn claimed(runs: bool) -> Vec<String> {
    let runs = ["release", "image"].into_iter().filter(|_| runs);
    let always = ["agent_version", "battery_percent", "power"];
    runs.chain(always).map(str::to_owned).collect()
}

impl View<WhyDevice> for WhyView {
    fn view(why: WhyDevice) -> Self {
        let steps = why.steps.into_iter().map(|s| StepView {
            rollout: s.rollout.map(|r| r.to_string()),
            check: s.check.into(),
            passed: s.passed,
            found: s.found,
        });
        Self {
            reason: (&why.reason).into(),
            steps: steps.collect(),
        }
    }
}

//! Devices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_protocol::Explained;
use utoipa::ToSchema;

use super::{ReasonView, time};
use crate::service::devices::WhyDevice;
use crate::service::fleet::DeviceState;

/// A join token to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenBody {
    /// The product of those who join.
    pub product: String,
    /// Their region, where the token is to fix it.
    pub region: Option<String>,
    /// Their channel, where the token is to fix it.
    pub channel: Option<String>,
    /// Labels that they get.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many may join; 1 by default.
    pub uses: Option<u32>,
    /// For how many seconds; a day by default.
    pub valid_s: Option<u64>,
}

/// A join token, shown once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenView {
    /// The whole token.
    pub token: String,
}

/// A device.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its product.
    pub product: String,
    /// Its platform.
    pub platform: String,
    /// Its region.
    pub region: String,
    /// Its channel.
    pub channel: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it may take part.
    pub active: bool,
    /// Why it is kept from everything but the way back; absent when it is not.
    pub isolated: Option<String>,
    /// Why it refused what it was told last; absent once it has accepted something.
    pub refused: Option<ReasonView>,
    /// What it found when it was last cut off from the server.
    pub diagnosis: Option<String>,
    /// Whether it was heard of lately.
    pub online: bool,
    /// What runs on it.
    pub release: Option<String>,
    /// The image of what runs on it.
    pub image: Option<String>,
    /// The agent's version.
    pub agent_version: String,
    /// Charge in percent.
    pub battery_percent: Option<u8>,
    /// Where its power comes from.
    pub power: String,
    /// When it joined.
    pub enrolled_at: String,
    /// When it was last heard of.
    pub last_seen: String,
    /// What it does in its present deployment, if it has one.
    pub state: Option<String>,
    /// Seconds of rollback window left, in probation.
    pub window_left_s: Option<u32>,
    /// Releases that it is kept from.
    pub quarantine: Vec<String>,
    /// Why it does what it does.
    pub reason: ReasonView,
}

impl DeviceView {
    pub(crate) fn new(state: &DeviceState, reason: &Explained, online: bool) -> Self {
        let device = &state.device;
        let open = state.deployments.values().find(|d| !d.state.is_final());
        Self {
            id: device.id.to_string(),
            name: device.name.clone(),
            product: device.product.to_string(),
            platform: device.platform.to_string(),
            region: device.region.to_string(),
            channel: device.channel.to_string(),
            labels: device.labels.clone(),
            active: device.active,
            refused: state.refused.as_ref().map(ReasonView::from),
            diagnosis: state
                .diagnosis
                .as_ref()
                .map(|(at, text)| format!("{}: {text}", time(*at))),
            isolated: Some(device.isolated.clone()).filter(|why| !why.is_empty()),
            online,
            release: device.release.as_ref().map(ToString::to_string),
            image: device.image.map(|i| i.to_string()),
            agent_version: device.agent_version.clone(),
            battery_percent: device.battery.percent,
            power: device.battery.power.to_string(),
            enrolled_at: time(device.enrolled_at),
            last_seen: time(device.last_seen),
            state: open.map(|d| d.state.to_string()),
            window_left_s: state.status.and_then(|s| s.window_left_s),
            quarantine: state.quarantine.iter().map(ToString::to_string).collect(),
            reason: reason.into(),
        }
    }
}

/// One link of the chain behind a decision.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// The rollout that was looked at; absent for the device itself.
    pub rollout: Option<String>,
    /// What was looked at.
    pub check: String,
    /// Whether the device got past it.
    pub passed: bool,
    /// What was found.
    pub found: String,
}

/// Why a device is told what it is told.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WhyView {
    /// The answer.
    pub reason: ReasonView,
    /// How it came about.
    pub steps: Vec<StepView>,
}

impl From<WhyDevice> for WhyView {
    fn from(why: WhyDevice) -> Self {
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

/// A change that needs a reason.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReasonBody {
    /// Why.
    #[schema(min_length = 1, max_length = 300)]
    pub reason: String,
}

/// A quarantine to be lifted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LiftBody {
    /// The release.
    pub version: String,
    /// Why.
    #[schema(min_length = 1, max_length = 300)]
    pub reason: String,
}

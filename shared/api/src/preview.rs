//! Previews of a rollout, explanations of its state, and pending approvals.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_domain::rollout::Forecast;
use tidegate_domain::rollout::policy::Policy;
use utoipa::ToSchema;

use crate::{Invalid, NothingElse, PolicyBody, ReasonView, RolloutView, time};

/// A forecast.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ForecastView {
    /// Time the last rollback window will have closed; absent if that cannot be foreseen.
    pub finish: Option<String>,
    /// Time an attempt takes from offer to outcome, in seconds.
    pub attempt_s: u64,
    /// Whether `attempt_s` was measured; otherwise it is the guess for a rollout without results.
    pub measured: bool,
    /// Whether the deadline will be met; absent without a deadline.
    pub on_time: Option<bool>,
}

impl From<Forecast> for ForecastView {
    fn from(f: Forecast) -> Self {
        Self {
            finish: f.finish.map(time),
            attempt_s: f.attempt.as_secs(),
            measured: f.measured,
            on_time: f.on_time,
        }
    }
}

/// Update path of devices that are alike.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PathView {
    /// Release they run; absent for bare devices.
    pub from: Option<String>,
    /// Their platform.
    pub platform: String,
    /// Releases to install, in order.
    pub legs: Vec<String>,
    /// Bytes that each device downloads.
    pub bytes: u64,
    /// Number of devices.
    pub devices: u64,
}

/// Preview of a rollout.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PreviewView {
    /// Devices of each wave, by region.
    pub waves: Vec<BTreeMap<String, u64>>,
    /// Devices it applies to, by region.
    pub by_region: BTreeMap<String, u64>,
    /// Devices it selects but will not update, by reason.
    pub blocked: BTreeMap<String, u64>,
    /// Devices that would have to wait now, by reason.
    pub waiting: BTreeMap<String, u64>,
    /// Update paths, most devices first.
    pub paths: Vec<PathView>,
    /// Bytes to download in all.
    pub bytes: u64,
    /// Devices that it would update and that could not be ordered back afterwards: the start has to
    /// accept them (`accept_no_way_back`).
    #[serde(default)]
    pub no_way_back: u64,
    /// Devices that it would update and whose way back would be limited, the worst limit first.
    #[serde(default)]
    pub limited: Vec<LimitedView>,
}

/// Devices whose way back would be limited, alike.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LimitedView {
    /// `never`: cannot be ordered back. `after_window`: only within the rollback window.
    /// `turned_away`: can go back, to a version that the version gate turns away.
    /// `first_install`: nothing runs on them now.
    pub limit: String,
    /// Reason for it.
    pub reason: ReasonView,
    /// Number of devices.
    pub devices: u64,
    /// Names of some of them.
    pub examples: Vec<String>,
}

/// Change that waits for approvals.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AskedView {
    /// `start`, `advance`, `edit` or `resume`.
    pub kind: String,
    /// Operator who asked for it.
    pub asked_by: String,
    /// Hash of the plan, which approvers must name.
    pub plan: String,
    /// Number of other people who must approve.
    pub needed: u32,
    /// Number of approvals still missing.
    pub missing: u32,
    /// Names of those who have approved.
    pub given_by: Vec<String>,
}

/// An approval.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveBody {
    /// Hash of the plan being approved, as shown in `asked.plan`.
    pub plan: String,
}

/// Request to edit the rules of a rollout.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct EditBody {
    /// Rules to change; those left out stay as they are.
    #[serde(flatten)]
    pub policy: PolicyBody,
    /// Unknown fields: refused, so that nobody believes to have set them.
    #[serde(flatten, skip_serializing)]
    #[schema(ignore)]
    pub rest: NothingElse,
    /// The reason.
    #[serde(default)]
    pub reason: String,
    /// Only preview the result.
    #[serde(default)]
    pub dry_run: bool,
}

impl EditBody {
    /// Applies the edit to the present rules.
    pub fn edited(self, present: &Policy) -> Result<Policy, Invalid> {
        self.policy.or(PolicyBody::from(present)).policy()
    }
}

/// A preset.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PresetView {
    /// Its name.
    pub name: String,
    /// Its purpose.
    pub intent: String,
    /// Its rules.
    pub policy: PolicyBody,
}

/// Group of devices in which the failures concentrate.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// Selector of the group, to be used in a hold.
    pub selector: String,
    /// Its most frequent reason.
    pub reason: String,
    /// Failed devices in it.
    pub failed: u64,
    /// Finished devices in it.
    pub finished: u64,
    /// Failed devices outside of it.
    pub others_failed: u64,
    /// Finished devices outside of it.
    pub others_finished: u64,
}

/// Explanation of a rollout's state.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WhyRolloutView {
    /// The rollout.
    pub rollout: RolloutView,
    /// Failures grouped by what the devices have in common: reason, model, platform, from, region,
    /// count.
    pub failures: Vec<FailureView>,
    /// Hold that would spare the devices in which the failures concentrate.
    pub suggested_hold: Option<ClusterView>,
}

/// Failures of devices that are alike.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FailureView {
    /// Reason for the failures.
    pub reason: String,
    /// Value of their label `model`.
    pub model: String,
    /// Their platform.
    pub platform: String,
    /// Release they ran before.
    pub from: Option<String>,
    /// Their region.
    pub region: String,
    /// Number of devices.
    pub count: u64,
}

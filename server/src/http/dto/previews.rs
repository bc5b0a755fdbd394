//! What a rollout would do, why it does what it does, and who must agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_domain::rollout::Forecast;
use utoipa::ToSchema;

use super::{PolicyBody, RolloutView, time};
use crate::service::approvals::Waiting;
use crate::service::population::Preview;
use crate::service::schedule::RolloutWhy;

/// A forecast.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ForecastView {
    /// When the last rollback window will have closed; absent when that is not in sight.
    pub finish: Option<String>,
    /// How long an attempt takes from offer to outcome, in seconds.
    pub attempt_s: u64,
    /// Whether that was measured; otherwise it is the guess for a rollout without results.
    pub measured: bool,
    /// Whether the deadline will be kept; absent without a deadline.
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

/// The way of alike devices.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PathView {
    /// What they run; absent for bare devices.
    pub from: Option<String>,
    /// What they are.
    pub platform: String,
    /// The releases to install in order.
    pub legs: Vec<String>,
    /// Bytes that each of them fetches.
    pub bytes: u64,
    /// How many there are.
    pub devices: u64,
}

/// What a rollout would do.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PreviewView {
    /// Devices of each wave, by region.
    pub waves: Vec<BTreeMap<String, u64>>,
    /// Devices that it concerns, by region.
    pub by_region: BTreeMap<String, u64>,
    /// Devices that it selects and will not update, by reason.
    pub blocked: BTreeMap<String, u64>,
    /// Devices that would wait now, by reason.
    pub waiting: BTreeMap<String, u64>,
    /// The ways that devices go, most devices first.
    pub paths: Vec<PathView>,
    /// Bytes to fetch in all.
    pub bytes: u64,
}

/// Keys as text.
fn texts<K: ToString>(map: BTreeMap<K, u64>) -> BTreeMap<String, u64> {
    map.into_iter().map(|(k, n)| (k.to_string(), n)).collect()
}

impl From<Preview> for PreviewView {
    fn from(p: Preview) -> Self {
        Self {
            waves: p.waves_by_region.into_iter().map(texts).collect(),
            by_region: texts(p.by_region),
            blocked: texts(p.blocked),
            waiting: texts(p.waiting),
            paths: p
                .paths
                .into_iter()
                .map(|path| PathView {
                    from: path.from.map(|v| v.to_string()),
                    platform: path.platform.to_string(),
                    legs: path.legs.iter().map(ToString::to_string).collect(),
                    bytes: path.bytes,
                    devices: path.devices,
                })
                .collect(),
            bytes: p.bytes,
        }
    }
}

/// What waits for approvals.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AskedView {
    /// `start`, `advance`, `edit` or `resume`.
    pub kind: String,
    /// Who asked.
    pub asked_by: String,
    /// The hash of the plan: whoever approves names it.
    pub plan: String,
    /// How many other people must agree.
    pub needed: u32,
    /// How many more must.
    pub missing: u32,
    /// Who agreed.
    pub given_by: Vec<String>,
}

impl From<Waiting> for AskedView {
    fn from(w: Waiting) -> Self {
        Self {
            kind: w.change.kind.to_string(),
            asked_by: w.change.asked_by,
            plan: w.change.plan,
            needed: w.needed,
            missing: w.missing,
            given_by: w.given_by.into_iter().collect(),
        }
    }
}

/// An approval.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ApproveBody {
    /// The hash of the plan that is approved, as `asked.plan` shows it.
    pub plan: String,
}

/// An edit.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct EditBody {
    /// What is to be different; what is left out stays.
    #[serde(flatten)]
    pub policy: PolicyBody,
    /// What no rule is called: refused, so that nobody believes to have set it.
    #[serde(flatten, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(ignore)]
    pub unknown: BTreeMap<String, serde_json::Value>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Only show what it would be.
    #[serde(default)]
    pub dry_run: bool,
}

/// A preset.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PresetView {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub intent: String,
    /// Its rules.
    pub policy: PolicyBody,
}

/// A group of devices that carries the failures.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// Whom it selects: what a hold should name.
    pub selector: String,
    /// Its most frequent reason.
    pub reason: String,
    /// Failed devices in it.
    pub failed: u64,
    /// Finished devices in it.
    pub finished: u64,
    /// Failed devices outside.
    pub others_failed: u64,
    /// Finished devices outside.
    pub others_finished: u64,
}

/// Why a rollout does what it does.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WhyRolloutView {
    /// The rollout.
    pub rollout: RolloutView,
    /// Failures by what the devices have in common: reason, model, platform, from, region, count.
    pub failures: Vec<FailureView>,
    /// The hold that would spare the devices that carry the failures.
    pub suggested_hold: Option<ClusterView>,
}

/// Failures of alike devices.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FailureView {
    /// Why they failed.
    pub reason: String,
    /// Their label `model`.
    pub model: String,
    /// What they are.
    pub platform: String,
    /// What they ran before.
    pub from: Option<String>,
    /// Where they stand.
    pub region: String,
    /// How many.
    pub count: u64,
}

impl From<RolloutWhy> for WhyRolloutView {
    fn from(why: RolloutWhy) -> Self {
        let mut standing = why.standing;
        standing.preview = Some(why.preview);
        Self {
            rollout: RolloutView::new(standing, false),
            failures: why
                .samples
                .into_iter()
                .filter_map(|s| {
                    Some(FailureView {
                        reason: s.reason?.to_string(),
                        model: s.model,
                        platform: s.platform,
                        from: s.from.map(|v| v.to_string()),
                        region: s.region.to_string(),
                        count: s.count,
                    })
                })
                .collect(),
            suggested_hold: why.cluster.map(|c| ClusterView {
                selector: c.selector.to_string(),
                reason: c.reason.to_string(),
                failed: c.failed,
                finished: c.finished,
                others_failed: c.others_failed,
                others_finished: c.others_finished,
            }),
        }
    }
}

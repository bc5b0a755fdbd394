//! Incidents and holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_domain::incident::Sheet;
use utoipa::ToSchema;

use crate::{RolloutView, time};

/// Request for a rollback.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    /// The reason; shown to others.
    #[serde(default)]
    #[schema(max_length = 300)]
    pub reason: String,
    /// Devices to send back; all of them if empty. With a selector the rollout is halted, and the
    /// other devices stay on the release.
    #[serde(default)]
    pub selector: String,
    /// Only preview the effect.
    #[serde(default)]
    pub dry_run: bool,
}

/// The blast-radius sheet.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct SheetView {
    /// Devices that were ever offered the release.
    pub exposed: u64,
    /// In flight, before the point of no return: called off at their next check-in.
    pub before_switch: u64,
    /// In flight, past the point of no return.
    pub switching: u64,
    /// On the release, with the old version kept: they return without a download.
    pub inside_window: u64,
    /// On the release, with the old version gone: they return by the rollback path.
    pub outside_window: u64,
    /// Rolling back.
    pub returning: u64,
    /// Rolled back by order.
    pub returned: u64,
    /// Rolled back on their own, or never completed the update.
    pub failed_by_themselves: u64,
    /// Called off before they switched.
    pub called_off: u64,
    /// Running another release by now.
    #[serde(default)]
    pub moved_on: u64,
    /// Devices that cannot go back, by reason.
    pub cannot_return: BTreeMap<String, u64>,
    /// Devices that run or may run the release and have missed their check-in.
    pub silent: u64,
    /// Time the first kept version is dropped, unless windows are extended.
    pub first_window_ends: Option<String>,
    /// Time the last kept version is dropped.
    pub last_window_ends: Option<String>,
    /// Devices that run or may run the release.
    pub still_on_it: u64,
}

impl From<&Sheet> for SheetView {
    fn from(s: &Sheet) -> Self {
        Self {
            exposed: s.exposed,
            before_switch: s.before_switch,
            switching: s.switching,
            inside_window: s.inside_window,
            outside_window: s.outside_window,
            returning: s.returning,
            returned: s.returned,
            failed_by_themselves: s.failed_by_themselves,
            called_off: s.called_off,
            moved_on: s.moved_on,
            cannot_return: s
                .cannot_return
                .iter()
                .map(|(reason, n)| (reason.to_string(), *n))
                .collect(),
            silent: s.silent,
            first_window_ends: s.first_window_ends.map(time),
            last_window_ends: s.last_window_ends.map(time),
            still_on_it: s.still_on_it(),
        }
    }
}

/// Device that is not back yet.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WorstView {
    /// Its id.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Its position in the rollback.
    pub standing: String,
    /// Whether it has missed its usual check-in.
    pub silent: bool,
}

/// Incident: the release being rolled back, and the progress.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct IncidentView {
    /// Its id.
    pub id: String,
    /// Product of the release.
    pub product: String,
    /// Release being rolled back.
    pub release: String,
    /// Selected devices; all of them if empty.
    pub selector: String,
    /// The reason.
    pub reason: String,
    /// Time it was opened.
    pub opened_at: String,
    /// Name of the actor.
    pub opened_by: String,
    /// Time it was closed; absent while it is open.
    pub closed_at: Option<String>,
    /// Counts of its devices by position.
    pub sheet: SheetView,
    /// Devices that are not back yet, worst first; at most 100.
    pub worst: Vec<WorstView>,
    /// Its rollouts.
    pub rollouts: Vec<RolloutView>,
    /// Rollouts that did not take the order just given, and the reason.
    #[serde(default)]
    pub failed: Vec<FailedView>,
    /// Whether this is only a preview.
    pub dry_run: bool,
}

/// Rollout that did not take the order to roll back.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FailedView {
    /// The rollout.
    pub rollout: String,
    /// The reason.
    pub why: String,
}

/// Incident, in a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct IncidentSummary {
    /// Its id.
    pub id: String,
    /// Product of the release.
    pub product: String,
    /// Release being rolled back.
    pub release: String,
    /// Selected devices; all of them if empty.
    pub selector: String,
    /// Ids of its rollouts.
    pub rollouts: Vec<String>,
    /// The reason.
    pub reason: String,
    /// Time it was opened.
    pub opened_at: String,
    /// Name of the actor.
    pub opened_by: String,
    /// Time it was closed; absent while it is open.
    pub closed_at: Option<String>,
}

/// Order to keep previous versions longer.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepBody {
    /// Seconds to extend the window by; 0 to leave it.
    #[serde(default)]
    pub seconds: u32,
    /// Whether previous versions are kept until unfrozen; absent to leave it unchanged.
    pub frozen: Option<bool>,
    /// The reason; shown to others.
    #[serde(default)]
    pub reason: String,
}

/// Request to create a hold.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldBody {
    /// Product the hold applies to.
    pub product: String,
    /// Release that is held back; absent for every release.
    pub release: Option<String>,
    /// Selected devices: conditions like `model=x2,region=EU`; `release=1.8.0` selects those that
    /// run it.
    #[serde(default)]
    pub selector: String,
    /// The reason; shown to whoever asks.
    #[schema(max_length = 300)]
    pub reason: String,
    /// Link to more information.
    #[serde(default)]
    #[schema(max_length = 300)]
    pub link: String,
    /// Only preview the number of devices.
    #[serde(default)]
    pub dry_run: bool,
}

/// A hold.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct HoldView {
    /// Its id.
    pub id: String,
    /// Product the hold applies to.
    pub product: String,
    /// Release that is held back; absent for every release.
    pub release: Option<String>,
    /// Selected devices.
    pub selector: String,
    /// The reason.
    pub reason: String,
    /// Link to more information.
    pub link: String,
    /// Time it was created.
    pub created_at: String,
    /// Name of the actor.
    pub created_by: String,
    /// Number of devices it selects; only in the answer that creates it.
    pub devices: Option<u64>,
    /// Whether this is only a preview.
    pub dry_run: bool,
}

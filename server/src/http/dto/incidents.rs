//! Incidents and holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_domain::incident::Sheet;
use utoipa::ToSchema;

use super::{RolloutView, time};
use crate::service::incidents::{IncidentStanding, standing_word};
use crate::store::holds::HoldRow;
use crate::store::incidents::Incident;

/// A rollback.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RollbackBody {
    /// Why: others will want to know.
    #[serde(default)]
    #[schema(max_length = 300)]
    pub reason: String,
    /// Which devices are sent back; everybody if empty. With a selector the rollout is halted, and
    /// the other devices stay where they are.
    #[serde(default)]
    pub selector: String,
    /// Only show what it would do.
    #[serde(default)]
    pub dry_run: bool,
}

/// The blast-radius sheet.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct SheetView {
    /// Devices that were ever offered the release.
    pub exposed: u64,
    /// In flight, before the point of no return: called off with the next word to them.
    pub before_switch: u64,
    /// In flight, past the point of no return.
    pub switching: u64,
    /// On the release, the old version kept: return without a download.
    pub inside_window: u64,
    /// On the release, the old version gone: return by the path back.
    pub outside_window: u64,
    /// On their way back.
    pub returning: u64,
    /// Back by order.
    pub returned: u64,
    /// Back by themselves, or never through.
    pub failed_by_themselves: u64,
    /// Called off before they switched.
    pub called_off: u64,
    /// Run another release by now.
    #[serde(default)]
    pub moved_on: u64,
    /// Cannot go back, by reason.
    pub cannot_return: BTreeMap<String, u64>,
    /// Of those that run the release or may, how many have missed their check-in.
    pub silent: u64,
    /// When the first kept version will be dropped, unless windows are extended.
    pub first_window_ends: Option<String>,
    /// When the last one will be.
    pub last_window_ends: Option<String>,
    /// Devices that run the release or may.
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

/// A device that is not back.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WorstView {
    /// Its id.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub standing: String,
    /// Whether it has missed its usual check-in.
    pub silent: bool,
}

/// An incident: what is being taken back, and how far that is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct IncidentView {
    /// Its id.
    pub id: String,
    /// Whose release.
    pub product: String,
    /// Which release.
    pub release: String,
    /// Which devices; everybody if empty.
    pub selector: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub opened_at: String,
    /// By whom.
    pub opened_by: String,
    /// When it was over.
    pub closed_at: Option<String>,
    /// Where its devices stand.
    pub sheet: SheetView,
    /// Devices that are not back, worst first; at most 100.
    pub worst: Vec<WorstView>,
    /// Its rollouts.
    pub rollouts: Vec<RolloutView>,
    /// Rollouts that did not take the order just given, and why.
    #[serde(default)]
    pub failed: Vec<FailedView>,
    /// Whether this is only what would be.
    pub dry_run: bool,
}

/// A rollout that did not take the order to come back.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FailedView {
    /// The rollout.
    pub rollout: String,
    /// Why.
    pub why: String,
}

impl From<IncidentStanding> for IncidentView {
    fn from(standing: IncidentStanding) -> Self {
        let incident = IncidentSummary::from(standing.incident);
        Self {
            id: incident.id,
            product: incident.product,
            release: incident.release,
            selector: incident.selector,
            reason: incident.reason,
            opened_at: incident.opened_at,
            opened_by: incident.opened_by,
            closed_at: incident.closed_at,
            sheet: (&standing.sheet).into(),
            worst: standing
                .worst
                .into_iter()
                .map(|w| WorstView {
                    device: w.device.to_string(),
                    name: w.name,
                    standing: standing_word(w.standing),
                    silent: w.silent,
                })
                .collect(),
            rollouts: standing
                .rollouts
                .into_iter()
                .map(RolloutView::from)
                .collect(),
            failed: standing
                .failed
                .into_iter()
                .map(|(rollout, why)| FailedView {
                    rollout: rollout.to_string(),
                    why,
                })
                .collect(),
            dry_run: standing.dry_run,
        }
    }
}

/// An incident in a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct IncidentSummary {
    /// Its id.
    pub id: String,
    /// Whose release.
    pub product: String,
    /// Which release.
    pub release: String,
    /// Which devices; everybody if empty.
    pub selector: String,
    /// The ids of its rollouts.
    pub rollouts: Vec<String>,
    /// Why.
    pub reason: String,
    /// Since when.
    pub opened_at: String,
    /// By whom.
    pub opened_by: String,
    /// When it was over.
    pub closed_at: Option<String>,
}

impl From<Incident> for IncidentSummary {
    fn from(i: Incident) -> Self {
        Self {
            id: i.id.to_string(),
            product: i.product.to_string(),
            release: i.version.to_string(),
            selector: i.selector.to_string(),
            rollouts: i.rollouts.iter().map(ToString::to_string).collect(),
            reason: i.reason,
            opened_at: time(i.opened_at),
            opened_by: i.opened_by,
            closed_at: i.closed_at.map(time),
        }
    }
}

/// An order to keep previous versions longer.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct KeepBody {
    /// How many seconds longer; 0 for no longer.
    #[serde(default)]
    pub seconds: u32,
    /// Whether previous versions are kept until they are unfrozen; absent: as it is.
    pub frozen: Option<bool>,
    /// Why: others will want to know.
    #[serde(default)]
    pub reason: String,
}

/// A hold to be made.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HoldBody {
    /// Of which product.
    pub product: String,
    /// From which release; absent: from every one.
    pub release: Option<String>,
    /// Which devices: conditions like `model=x2,region=EU`; `release=1.8.0` means those that run it.
    #[serde(default)]
    pub selector: String,
    /// Why: it is shown to whoever asks.
    #[schema(max_length = 300)]
    pub reason: String,
    /// Where to read more.
    #[serde(default)]
    #[schema(max_length = 300)]
    pub link: String,
    /// Only show how many devices it concerns.
    #[serde(default)]
    pub dry_run: bool,
}

/// A hold.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct HoldView {
    /// Its id.
    pub id: String,
    /// Of which product.
    pub product: String,
    /// From which release; absent: from every one.
    pub release: Option<String>,
    /// Which devices.
    pub selector: String,
    /// Why.
    pub reason: String,
    /// Where to read more.
    pub link: String,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// How many devices it selects; only when it is made.
    pub devices: Option<u64>,
    /// Whether this is only what would be.
    pub dry_run: bool,
}

impl HoldView {
    pub(crate) fn new(row: HoldRow, devices: Option<u64>, dry_run: bool) -> Self {
        Self {
            id: row.hold.id.to_string(),
            product: row.product.to_string(),
            release: row.hold.release.map(|v| v.to_string()),
            selector: row.hold.selector.to_string(),
            reason: row.hold.reason,
            link: row.hold.link,
            created_at: time(row.created_at),
            created_by: row.created_by,
            devices,
            dry_run,
        }
    }
}

//! Incidents and holds.

use tidegate_api::{
    FailedView, HoldView, IncidentSummary, IncidentView, RolloutView, WorstView, time,
};
use tidegate_core::incident::{IncidentStanding, standing_word};
use tidegate_core::rows::{HoldRow, Incident};

use super::View;

impl View<IncidentStanding> for IncidentView {
    fn view(standing: IncidentStanding) -> Self {
        let incident = IncidentSummary::view(standing.incident);
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
                .map(RolloutView::view)
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

impl View<Incident> for IncidentSummary {
    fn view(i: Incident) -> Self {
        Self {
            id: i.id.to_string(),
            product: i.product.to_string(),
            release: i.release.to_string(),
            selector: i.selector.to_string(),
            rollouts: i.rollouts.iter().map(ToString::to_string).collect(),
            reason: i.reason,
            opened_at: time(i.opened_at),
            opened_by: i.opened_by,
            closed_at: i.closed_at.map(time),
        }
    }
}

/// Shows it.
pub(crate) fn hold_view(row: HoldRow, devices: Option<u64>, dry_run: bool) -> HoldView {
    HoldView {
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

//! Rollouts, deployments and events.

use tidegate_api::{
    AskedView, DeploymentView, EventView, PreviewView, ReasonView, RolloutView, WaveView, time,
};
use tidegate_core::rollout::{Ordered, RolloutStanding};
use tidegate_core::rows::{Deployment, StoredEvent};

use super::View;

/// Shows it.
pub(crate) fn rollout_view(standing: RolloutStanding, dry_run: bool) -> RolloutView {
    let RolloutStanding {
        rollout,
        view,
        waiting,
        forecast,
        preview,
        asked,
        ..
    } = standing;
    let waves = view
        .waves
        .iter()
        .map(|wave| WaveView {
            name: wave.wave.name.clone(),
            selector: wave.wave.selector.to_string(),
            size: wave.wave.size.to_string(),
            state: wave.progress.state.to_string(),
            members: wave.progress.quota,
            tally: wave.tally.into(),
            started_at: wave.progress.started_at.map(time),
            ended_at: wave.progress.ended_at.map(time),
        })
        .collect();
    RolloutView {
        id: rollout.id.to_string(),
        product: rollout.product.to_string(),
        release: rollout.release.to_string(),
        state: rollout.state.to_string(),
        reason: (&waiting).into(),
        revision: rollout.revision,
        waves,
        tally: view.tally().into(),
        permits: view.progress.permits(),
        forecast: forecast.into(),
        preview: preview.map(PreviewView::view),
        asked: asked.map(AskedView::view),
        policy: (&rollout.policy).into(),
        rollback_window_s: rollout.rollback_window_s,
        extended_s: rollout.extended_s,
        frozen: rollout.frozen,
        max_attempts: rollout.max_attempts,
        accepted_no_way_back: rollout.accepted_no_way_back,
        starts_at: rollout.starts_at.map(time),
        created_at: time(rollout.created_at),
        created_by: rollout.created_by,
        started_at: rollout.started_at.map(time),
        halted_at: rollout.halted_at.map(time),
        ended_at: rollout.ended_at.map(time),
        dry_run,
    }
}

impl View<Ordered> for RolloutView {
    fn view(ordered: Ordered) -> Self {
        rollout_view(ordered.standing, ordered.dry_run)
    }
}

impl View<Deployment> for DeploymentView {
    fn view(d: Deployment) -> Self {
        Self {
            id: d.facts.id.to_string(),
            rollout: d.rollout.to_string(),
            device: d.device.to_string(),
            wave: d.facts.wave,
            state: d.facts.state.to_string(),
            from: d.facts.from.map(|v| v.to_string()),
            leg: d.facts.leg.to_string(),
            reason: d.facts.reason.as_ref().map(ReasonView::from),
            attempts: d.facts.attempts,
            bytes_downloaded: d.bytes_downloaded,
            downtime_ms: d.downtime_ms,
            created_at: time(d.created_at),
            updated_at: time(d.facts.updated_at),
        }
    }
}

impl View<StoredEvent> for EventView {
    fn view(e: StoredEvent) -> Self {
        Self {
            seq: e.seq,
            at: time(e.at),
            topic: e.topic.map_or_else(String::new, |t| t.to_string()),
            kind: e.kind,
            version: e.version,
            actor: e.actor,
            actor_kind: e.actor_kind,
            actor_id: e.actor_id,
            product: e.product,
            rollout: e.rollout,
            device: e.device.map(|d| d.to_string()),
            body: e.body,
            said: e.said,
            text: e.text,
        }
    }
}

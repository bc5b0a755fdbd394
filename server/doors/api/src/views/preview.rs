//! Previews, explanations and pending approvals.

use std::collections::BTreeMap;

use tidegate_api::{
    AskedView, ClusterView, FailureView, LimitedView, PathView, PreviewView, ReasonView,
    WhyRolloutView,
};
use tidegate_core::rollout::approvals::Waiting;
use tidegate_core::rollout::preview::Preview;
use tidegate_core::rollout::schedule::RolloutWhy;

use super::{View, rollout_view};

/// Converts the keys to text.
fn texts<K: ToString>(map: BTreeMap<K, u64>) -> BTreeMap<String, u64> {
    map.into_iter().map(|(k, n)| (k.to_string(), n)).collect()
}

impl View<Preview> for PreviewView {
    fn view(p: Preview) -> Self {
        Self {
            no_way_back: p.no_way_back(),
            limited: p
                .limited
                .iter()
                .map(|l| LimitedView {
                    limit: l.limit.to_string(),
                    reason: ReasonView::from(&l.reason),
                    devices: l.devices,
                    examples: l.examples.clone(),
                })
                .collect(),
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

impl View<Waiting> for AskedView {
    fn view(w: Waiting) -> Self {
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

impl View<RolloutWhy> for WhyRolloutView {
    fn view(why: RolloutWhy) -> Self {
        let mut standing = why.standing;
        standing.preview = Some(why.preview);
        Self {
            rollout: rollout_view(standing, false),
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

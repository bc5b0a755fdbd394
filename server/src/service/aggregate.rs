//! A rollout as the planner sees it, put together from what is kept counted.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_domain::rollout::{Outcome, Progress, RolloutView, Stratum, Tally, WaveView};
use tidegate_protocol::{RolloutId, Timestamp};

use super::ServiceError;
use crate::app::App;
use crate::store::aggregates::{self, Counted};
use crate::store::rollouts::{Rollout, WaveRow};
use crate::store::{StoreError, Tx};

/// Who took the update and has missed the usual check-in, by wave.
pub type Quiet = Vec<(u32, Outcome, u64)>;

/// The tallies of one rollout, by wave.
pub type Tallies = BTreeMap<u32, Tally>;

/// Sorts counts by rollout and wave.
pub fn by_rollout(counts: &[Counted]) -> BTreeMap<RolloutId, Tallies> {
    let mut all: BTreeMap<RolloutId, Tallies> = BTreeMap::new();
    for count in counts {
        all.entry(count.rollout)
            .or_default()
            .entry(count.wave)
            .or_default()
            .add(count.outcome, count.count);
    }
    all
}

impl App {
    /// How long nobody takes what is granted before the rest of a wave is out of reach: two poll
    /// intervals, so that everybody online has asked.
    fn reach(&self) -> Duration {
        self.settings.devices.poll * 2
    }

    /// The view of a rollout from its parts.
    pub(super) fn view(
        &self,
        rollout: &Rollout,
        waves: &[WaveRow],
        tallies: &Tallies,
        quiet: &Quiet,
        progress: Progress,
        strata: Vec<Stratum>,
    ) -> RolloutView {
        let policy = &rollout.policy;
        let waves = (0u32..)
            .zip(waves)
            .map(|(index, row)| {
                let mut tally = tallies.get(&index).copied().unwrap_or_default();
                for (_, outcome, count) in quiet.iter().filter(|(wave, ..)| *wave == index) {
                    match outcome {
                        Outcome::Taking => tally.quiet_taking += count,
                        Outcome::Probation => tally.quiet_probation += count,
                        _ => {}
                    }
                }
                WaveView {
                    wave: row.wave.clone(),
                    progress: row.progress,
                    tally,
                    excused: rollout.excused.get(&index).copied().unwrap_or_default(),
                }
            })
            .collect();
        RolloutView {
            state: rollout.state,
            waves,
            gate: policy.gate.clone(),
            pace: policy.pace,
            limits: policy.limits,
            windows: policy.windows.clone(),
            progress,
            strata,
            by_hand: policy.by_hand,
            released: rollout.released as usize,
            reach: self.reach(),
            rollback_window: Duration::from_secs(u64::from(rollout.window_s)),
            deadline: policy.deadline,
        }
    }

    /// The view of one rollout, read now.
    pub(super) async fn read_view(
        &self,
        tx: &mut Tx,
        rollout: &Rollout,
        waves: &[WaveRow],
    ) -> Result<RolloutView, ServiceError> {
        let counts = aggregates::tallies_of(tx, rollout.id).await?;
        let tallies = by_rollout(&counts).remove(&rollout.id).unwrap_or_default();
        let before = BTreeMap::from([(rollout.id, self.silent_before(rollout))]);
        let quiet = self
            .fleet
            .quiet(&before)
            .remove(&rollout.id)
            .unwrap_or_default();
        let progress = aggregates::progress_of(tx, rollout.id).await?;
        let strata = read_strata(tx, rollout).await?;
        Ok(self.view(rollout, waves, &tallies, &quiet, progress, strata))
    }

    /// Since when somebody of a rollout must have been unheard of to be silent now.
    pub(super) fn silent_before(&self, rollout: &Rollout) -> Timestamp {
        self.now().minus(rollout.policy.gate.silent_after)
    }
}

/// What the comparison saw, where there is one.
pub(super) async fn read_strata(
    tx: &mut Tx,
    rollout: &Rollout,
) -> Result<Vec<Stratum>, StoreError> {
    if rollout.policy.gate.compare {
        aggregates::strata(tx, rollout.id).await
    } else {
        Ok(Vec::new())
    }
}

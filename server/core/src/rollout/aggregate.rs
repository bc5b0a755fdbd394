//! View of a rollout for the planner, built from aggregates.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_domain::rollout::{Outcome, Progress, RolloutView, Stratum, Tally, WaveView};
use tidegate_protocol::{RolloutId, Timestamp};
use tidegate_store::aggregates::{self, Counted};
use tidegate_store::rollouts::Rollout;
use tidegate_store::waves::WaveRow;
use tidegate_store::{StoreError, Tx};

use crate::CoreError;
use crate::app::App;
use crate::memory::fleet::Quiet;

/// The tallies of one rollout, by wave.
pub(super) type Tallies = BTreeMap<u32, Tally>;

/// Groups counts by rollout and wave.
pub(super) fn by_rollout(counts: &[Counted]) -> BTreeMap<RolloutId, Tallies> {
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
    /// Time without a taken grant after which the rest of a wave counts as out of reach: two poll
    /// intervals, so that every online device has asked.
    fn reach(&self) -> Duration {
        self.settings.devices.poll * 2
    }

    /// Builds the view of a rollout from its parts.
    pub(crate) fn view(
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
            rollback_window: Duration::from_secs(self.kept_for(rollout.rollback_window_s).into()),
            deadline: policy.deadline,
        }
    }

    /// Reads the current view of one rollout.
    pub(crate) async fn read_view(
        &self,
        tx: &mut Tx,
        rollout: &Rollout,
        waves: &[WaveRow],
    ) -> Result<RolloutView, CoreError> {
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

    /// Time before which a device of the rollout must have been last heard from to count as silent
    /// now.
    pub(crate) fn silent_before(&self, rollout: &Rollout) -> Timestamp {
        self.now().minus(rollout.policy.gate.silent_after)
    }
}

/// Reads the strata of the comparison; empty if the rollout does not compare.
pub(crate) async fn read_strata(
    tx: &mut Tx,
    rollout: &Rollout,
) -> Result<Vec<Stratum>, StoreError> {
    if rollout.policy.gate.compare {
        aggregates::strata(tx, rollout.id).await
    } else {
        Ok(Vec::new())
    }
}

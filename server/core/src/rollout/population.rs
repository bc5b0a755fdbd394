//! Membership of waves: counted exactly, once, when a wave starts, by a walk along the ring through
//! an index.

use tidegate_domain::admission::{Candidate, ProductPlan, not_concerned};
use tidegate_domain::ring::{Frontier, Place, Ring};
use tidegate_domain::rollout::{Population, WaveSize, WaveState};
use tidegate_domain::selector;
use tidegate_protocol::Version;
use tidegate_store::devices;
use tidegate_store::rollouts::Rollout;
use tidegate_store::waves::WaveRow;

use crate::CoreError;
use crate::app::App;
use crate::memory::plan::PlanSnapshot;

/// Number of devices read at once on the walk.
const PAGE: i64 = 2_000;
/// Last position of the ring.
const LAST: u64 = (1 << 63) - 1;

/// Stretches of the ring that start at a place, in order of places.
fn stretches(from: u64, salt: Ring) -> Vec<(u64, u64)> {
    let first = Ring::at_place(from, salt).get();
    if first >= salt.get() {
        let mut list = vec![(first, LAST)];
        if salt.get() > 0 {
            list.push((0, salt.get() - 1));
        }
        list
    } else {
        vec![(first, salt.get() - 1)]
    }
}

impl App {
    /// Counts the devices that a wave takes, and finds the frontier that admits them.
    pub async fn population(
        &self,
        plan: &PlanSnapshot,
        rollout: &Rollout,
        waves: &[WaveRow],
        index: usize,
    ) -> Result<Population, CoreError> {
        let product = plan.product(&rollout.product);
        let wave = &waves[index].wave;
        let region = wave.selector.pinned_region();
        let earlier: Vec<&WaveRow> = waves[..index]
            .iter()
            .filter(|w| w.progress.state != WaveState::Pending)
            .collect();
        // A share refers to all devices that the selector matches; a count can skip those that
        // earlier waves with the same selector have taken.
        let from = match wave.size {
            WaveSize::Share(_) => 0,
            WaveSize::All | WaveSize::Count(_) => earlier
                .iter()
                .filter(|w| w.wave.selector == wave.selector)
                .map(|w| w.progress.frontier.get())
                .max()
                .unwrap_or(0),
        };
        let mut found = Walk::default();
        if from <= LAST {
            let wanted = match wave.size {
                WaveSize::Count(count) => count,
                WaveSize::All | WaveSize::Share(_) => u64::MAX,
            };
            let mut tx = self.db.read().await?;
            'walk: for (first, last) in stretches(from, rollout.salt) {
                let mut next = first;
                loop {
                    let stretch = (next, last);
                    let page = devices::along_ring(
                        &mut tx,
                        &rollout.product,
                        region.as_ref(),
                        stretch,
                        &rollout.release,
                        PAGE,
                    )
                    .await?;
                    let full = i64::try_from(page.len()).is_ok_and(|n| n >= PAGE);
                    for device in &page {
                        next = device.ring.get().saturating_add(1);
                        found.see(product, rollout, waves, index, &earlier, device);
                        if found.places.len() as u64 >= wanted {
                            break 'walk;
                        }
                    }
                    if !full || next > last {
                        break;
                    }
                }
            }
        }
        let left = found.places.len() as u64;
        let quota = wave.size.quota(found.selected, left);
        let frontier = match (wave.size, quota.checked_sub(1)) {
            (WaveSize::All, _) => Frontier::ALL,
            (_, Some(last)) => usize::try_from(last)
                .ok()
                .and_then(|last| found.places.get(last))
                .map_or(Frontier::NONE, |place| Frontier::beyond(*place)),
            (_, None) => Frontier::NONE,
        };
        Ok(Population { quota, frontier })
    }
}

/// Results of a walk.
#[derive(Default)]
struct Walk {
    /// Devices that the selector matches and the rollout applies to.
    selected: u64,
    /// Places of those that no earlier wave has taken, in order.
    places: Vec<Place>,
}

impl Walk {
    fn see(
        &mut self,
        product: &ProductPlan,
        rollout: &Rollout,
        waves: &[WaveRow],
        index: usize,
        earlier: &[&WaveRow],
        device: &devices::Candidate,
    ) {
        let facts = selector::Facts {
            region: &device.region,
            platform: &device.platform,
            labels: &device.labels,
            release: device.release.as_ref(),
        };
        if !waves[index].wave.selector.matches(facts) {
            return;
        }
        // A mere claim to run the release takes nobody out of a wave: otherwise each would lower the sample
        // that its gate needs.
        let signed = |r: &&Version| !device.claimed || **r < rollout.release;
        let candidate = Candidate {
            active: device.active,
            platform: &device.platform,
            channel: device.channel,
            release: device.release.as_ref().filter(signed),
            quarantined: device.barred,
        };
        let place = device.ring.place(rollout.salt);
        let taken = earlier
            .iter()
            .any(|w| w.wave.selector.matches(facts) && w.progress.frontier.admits(place));
        // A device taken by an earlier wave may already run the release, and still counts towards
        // the total.
        if !taken && not_concerned(product, &rollout.release, candidate).is_some() {
            return;
        }
        self.selected += 1;
        if !taken {
            self.places.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stretches_of_the_ring_cover_every_place_once_and_in_order() {
        for salt in [0, 1, 77, LAST] {
            let salt = Ring::from_random(salt);
            for from in [0, 5, LAST / 2, LAST] {
                let list = stretches(from, salt);
                let length: u128 = list.iter().map(|(a, b)| u128::from(b - a) + 1).sum();
                assert_eq!(length, u128::from(LAST - from) + 1, "{salt:?} {from}");
                let places: Vec<u64> = list
                    .iter()
                    .flat_map(|(a, b)| [*a, *b])
                    .map(|ring| Ring::from_random(ring).place(salt).get())
                    .collect();
                assert_eq!(places.first(), Some(&from));
                assert_eq!(places.last(), Some(&LAST));
                assert!(places.is_sorted());
            }
        }
    }
}

//! Tests of [`super::plan`] over whole rollouts: what many runs have in common.

use proptest::prelude::*;

use super::*;
use crate::rollout::WaveSize;

/// A small world that does what the planner says: devices take what is granted, and answer. Returns
/// the rollout as it ended.
fn world(
    sizes: &[(u64, WaveSize)],
    mut fails: impl FnMut() -> bool,
    pace: Pace,
    mut pick: impl FnMut(u64) -> u64,
) -> RolloutView {
    let mut waves: Vec<WaveView> = Vec::new();
    for (i, (members, size)) in sizes.iter().enumerate() {
        let mut w = wave(&format!("r{i}"), "all", *members);
        w.wave.size = *size;
        w.progress.quota = size.quota(*members, *members);
        waves.push(w);
    }
    let mut r = rollout(waves);
    r.pace = pace;
    let mut now = NOW;
    for _ in 0..200_000 {
        settle(&mut r, now);
        if r.state != RolloutState::Running {
            break;
        }
        let open = r.waves.iter().position(|w| {
            w.progress.state == WaveState::Running && w.tally.exposed() < w.progress.quota
        });
        if let Some(i) = open
            && r.progress.permits() > 0
        {
            let left = r.waves[i].progress.quota - r.waves[i].tally.exposed();
            let count = r.progress.permits().min(left);
            expose(&mut r, i, count, now);
            continue;
        }
        now = now.plus(Duration::from_secs(30));
        let flying: Vec<usize> = (0..r.waves.len())
            .filter(|i| r.waves[*i].tally.get(Outcome::Waiting) > 0)
            .collect();
        if flying.is_empty() {
            // The rollback windows close.
            for w in &mut r.waves {
                let open = w.tally.get(Outcome::Probation);
                let done = w.tally.get(Outcome::Succeeded);
                w.tally = w
                    .tally
                    .with(Outcome::Probation, 0)
                    .with(Outcome::Succeeded, done + open);
            }
            continue;
        }
        let i = flying[usize::try_from(pick(flying.len() as u64)).unwrap()];
        let outcome = if fails() {
            Outcome::Failed
        } else {
            Outcome::Probation
        };
        finish(&mut r, i, 1, outcome);
    }
    r
}

/// Random generator for tests that need the same coin flips each time.
struct Coins(u64);

impl Coins {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[test]
fn a_release_that_breaks_half_of_its_devices_exposes_few() {
    let mut exposed: Vec<u64> = (0..1_000)
        .map(|seed| {
            let mut coins = Coins(seed);
            let r = world(
                &[(500, WaveSize::All)],
                || coins.below(2) == 0,
                Pace::Evidence { start: 8 },
                |_| 0,
            );
            assert_eq!(r.state, RolloutState::Halted);
            r.tally().exposed()
        })
        .collect();
    exposed.sort_unstable();
    assert!(exposed[500] <= 14, "median {}", exposed[500]);
    assert!(exposed[950] <= 24, "95 % {}", exposed[950]);
}

#[test]
fn a_release_at_its_limit_is_halted_in_at_most_one_rollout_of_twenty() {
    let halted = (0..200)
        .filter(|seed| {
            let mut coins = Coins(*seed + 10_000);
            let size = [
                (300, WaveSize::All),
                (300, WaveSize::All),
                (300, WaveSize::All),
            ];
            let mut r = world(
                &size,
                || coins.below(10_000) < 200,
                Pace::Evidence { start: 8 },
                |_| 0,
            );
            // Too few healthy devices at a wave's end is another rule.
            r.gate.min_success = crate::BasisPoints::new(0).unwrap();
            r.state == RolloutState::Halted
        })
        .count();
    assert!(halted <= 10, "{halted} of 200");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_good_rollout_completes(
        members in prop::collection::vec(0u64..40, 1..5),
        start in 1u64..8,
    ) {
        let sizes: Vec<_> = members.iter().map(|m| (*m, WaveSize::All)).collect();
        let r = world(&sizes, || false, Pace::Evidence { start }, |n| n - 1);
        let empty = members.iter().all(|m| *m == 0);
        let ended = if empty { RolloutState::NothingToDo } else { RolloutState::Completed };
        prop_assert_eq!(r.state, ended);
        prop_assert!(r.waves.iter().all(|w| w.tally.healthy() == w.progress.quota));
    }

    #[test]
    fn a_release_that_breaks_every_device_exposes_the_starting_size_and_one_more(
        members in 4u64..1_000, start in 2u64..9,
    ) {
        let r = world(&[(members, WaveSize::All)], || true, Pace::Evidence { start }, |_| 0);
        prop_assert_eq!(r.state, RolloutState::Halted);
        prop_assert!(r.tally().exposed() <= start + 1);
    }

    #[test]
    fn whatever_devices_do_a_rollout_comes_to_an_end(
        members in prop::collection::vec((0u64..30, 1u64..30), 1..4),
        failing in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let sizes: Vec<_> = members.iter().map(|(m, n)| (*m, WaveSize::Count(*n))).collect();
        let mut outcomes = failing.into_iter().cycle();
        let r = world(&sizes, || outcomes.next().unwrap_or(false), Pace::AtOnce, |n| n - 1);
        let halted = r.state == RolloutState::Halted;
        prop_assert!(halted || r.state.is_complete());
        let all = r.waves.iter().all(|w| w.tally.get(Outcome::Succeeded) == w.progress.quota);
        prop_assert!(halted || (r.state != RolloutState::CompletedPartly) == all, "{:?}", r.state);
    }
}

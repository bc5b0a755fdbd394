//! Tests of [`super::plan`].

mod fleet;

use super::*;
use crate::ring::{Frontier, Ring};
use crate::rollout::gate::tests::gate;
use crate::rollout::{Limits, Outcome, Pace, Progress, Wave, WaveProgress, check};
use crate::window::Windows;

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_000_000);

pub(crate) fn wave(name: &str, size: &str, members: u64) -> WaveView {
    WaveView {
        wave: Wave {
            name: name.into(),
            selector: format!("region={name}").parse().unwrap(),
            size: size.parse().unwrap(),
        },
        progress: WaveProgress::pending(members),
        tally: Tally::default(),
        excused: (0, 0),
    }
}

pub(crate) fn rollout(waves: Vec<WaveView>) -> RolloutView {
    RolloutView {
        state: RolloutState::Running,
        waves,
        gate: gate(),
        pace: Pace::Evidence { start: 4 },
        limits: Limits::default(),
        windows: Windows::default(),
        progress: Progress::default(),
        strata: Vec::new(),
        by_hand: false,
        released: 0,
        reach: Duration::from_mins(2),
        rollback_window: Duration::ZERO,
        deadline: None,
    }
}

/// Applies a plan as an executor does; returns whether it did something.
fn apply(r: &mut RolloutView, plan: &Plan, now: Timestamp) -> bool {
    for action in &plan.actions {
        if let Some(event) = action.on_rollout() {
            r.state = r.state.apply(event).unwrap();
        }
        match action {
            Action::StartWave(i) => {
                let view = &mut r.waves[*i];
                let found = Population {
                    quota: view.progress.quota,
                    frontier: Frontier::beyond(Ring::from_random(7).place(Ring::from_random(0))),
                };
                view.progress = action.on_wave(&view.progress, Some(found), now);
            }
            Action::Soak(i) | Action::Pass(i) | Action::Breach { wave: i, .. } => {
                let view = &mut r.waves[*i];
                view.progress = action.on_wave(&view.progress, None, now);
            }
            Action::Grant { granted, at } => {
                r.progress.granted = *granted;
                r.progress.granted_at = Some(*at);
            }
            Action::Complete { .. } | Action::Returned | Action::ReturnedPartly => {}
        }
    }
    !plan.actions.is_empty()
}

/// Plans and applies until nothing is left to do; returns what the rollout then waits for.
fn settle(r: &mut RolloutView, now: Timestamp) -> Explained {
    for _ in 0..50 {
        let step = plan(r, now);
        assert_eq!(step, plan(r, now), "planning is repeatable");
        assert_eq!(check(r, &step), Vec::<String>::new());
        if !apply(r, &step, now) {
            return step.waiting;
        }
    }
    panic!("no fixpoint: {:?}", plan(r, now));
}

/// Exposes `count` devices of a wave.
fn expose(r: &mut RolloutView, wave: usize, count: u64, now: Timestamp) {
    r.waves[wave].tally.add(Outcome::Waiting, count);
    r.progress.exposed += count;
    r.progress.last_offer = Some(now);
}

fn finish(r: &mut RolloutView, wave: usize, count: u64, outcome: Outcome) {
    for _ in 0..count {
        r.waves[wave].tally.moved(Some(Outcome::Waiting), outcome);
    }
}

#[test]
fn a_wave_starts_exposes_soaks_and_passes() {
    let mut r = rollout(vec![wave("NA", "all", 3)]);
    assert_eq!(settle(&mut r, NOW).code, Reason::WaveReachesOut);
    assert_eq!(r.progress.granted, 4);
    expose(&mut r, 0, 3, NOW);
    let waiting = settle(&mut r, NOW);
    assert_eq!(waiting.detail, "wave NA: 3 in flight, 0 of 3 done");
    finish(&mut r, 0, 3, Outcome::Probation);
    assert_eq!(settle(&mut r, NOW).code, Reason::WaveSoaking);
    let soaking = settle(&mut r, NOW.plus(Duration::from_secs(4)));
    assert_eq!(soaking.detail, "wave NA soaks 4 of 60 s");
    let waiting = settle(&mut r, NOW.plus(Duration::from_mins(1)));
    assert_eq!(waiting.code, Reason::ProbationOpen);
    r.waves[0].tally = Tally::default().with(Outcome::Succeeded, 3);
    settle(&mut r, NOW.plus(Duration::from_mins(1)));
    assert_eq!(r.state, RolloutState::Completed);
}

#[test]
fn devices_out_of_reach_hold_up_a_wave_only_for_a_while() {
    let mut r = rollout(vec![wave("NA", "all", 10)]);
    settle(&mut r, NOW);
    expose(&mut r, 0, 3, NOW);
    finish(&mut r, 0, 3, Outcome::Probation);
    let waiting = settle(&mut r, NOW);
    assert_eq!(waiting.detail, "wave NA: 7 of 10 may ask now");
    assert_eq!(
        settle(&mut r, NOW.plus(Duration::from_secs(119))).code,
        Reason::WaveReachesOut
    );
    assert_eq!(
        settle(&mut r, NOW.plus(Duration::from_secs(121))).code,
        Reason::WaveSoaking
    );
}

#[test]
fn a_wave_of_silent_devices_does_not_pass_without_evidence() {
    let mut r = rollout(vec![wave("NA", "all", 4)]);
    settle(&mut r, NOW);
    let waiting = settle(&mut r, NOW.plus(Duration::from_hours(100)));
    assert_eq!(waiting.code, Reason::SampleTooSmall);
    r.gate.min_sample = 3;
    expose(&mut r, 0, 2, NOW);
    finish(&mut r, 0, 2, Outcome::Probation);
    settle(&mut r, NOW);
    assert_eq!(
        settle(&mut r, NOW.plus(Duration::from_hours(100))).code,
        Reason::SampleTooSmall
    );
}

#[test]
fn a_closed_window_proves_nothing() {
    let mut r = rollout(vec![wave("NA", "all", 10)]);
    // 1970-01-12, 13:46:40: closed until 20:00.
    r.windows.general = Some("daily 20:00-04:00 UTC".parse().unwrap());
    let later = NOW.plus(Duration::from_hours(6));
    assert_eq!(settle(&mut r, NOW).code, Reason::WindowClosed);
    let waiting = settle(&mut r, later);
    assert_eq!(
        waiting.detail,
        "wave NA: 10 of 10 to go, opens 1970-01-12T20:00:00Z"
    );
    // A minute after the window opened the wave has not had its chance yet.
    let opened = NOW.plus(Duration::from_secs(6 * 3_600 + 14 * 60 + 20));
    assert_eq!(settle(&mut r, opened).code, Reason::WaveReachesOut);
    assert_eq!(
        settle(&mut r, opened.plus(Duration::from_mins(2))).code,
        Reason::SampleTooSmall
    );
}

#[test]
fn proof_of_one_region_counts_for_its_own_waves_alone() {
    let mut r = rollout(vec![
        wave("NA", "5", 5),
        wave("NA", "all", 50),
        wave("EU", "all", 50),
    ]);
    r.waves[0].progress.state = WaveState::Passed;
    r.waves[0].tally = Tally::default().with(Outcome::Succeeded, 5);
    r.progress.exposed = 5;
    settle(&mut r, NOW);
    assert_eq!(r.progress.granted, 15, "ten more: twice the healthy ones");
    r.waves[1].progress.state = WaveState::Passed;
    r.progress.granted = 5;
    settle(&mut r, NOW);
    assert_eq!(r.progress.granted, 9, "EU starts with the starting size");
}

#[test]
fn a_breach_late_in_a_passed_or_completed_rollout_halts_too() {
    for completed in [false, true] {
        let mut r = rollout(vec![wave("NA", "all", 4), wave("EU", "all", 4)]);
        r.waves[0].progress.state = WaveState::Passed;
        r.waves[0].tally = Tally::default()
            .with(Outcome::Succeeded, 2)
            .with(Outcome::Failed, 2);
        r.waves[1].progress.state = WaveState::Passed;
        if completed {
            r.state = RolloutState::Completed;
        }
        assert!(matches!(
            plan(&r, NOW).actions[..],
            [Action::Breach { wave: 0, .. }]
        ));
        settle(&mut r, NOW);
        assert_eq!(r.state, RolloutState::Halted);
    }
}

#[test]
fn what_a_person_has_seen_and_let_pass_does_not_halt_again_and_what_comes_then_does() {
    let mut r = rollout(vec![wave("NA", "all", 50)]);
    r.waves[0].progress.state = WaveState::Running;
    r.waves[0].tally = Tally::default()
        .with(Outcome::Succeeded, 2)
        .with(Outcome::Failed, 2);
    r.progress.exposed = 4;
    settle(&mut r, NOW);
    assert_eq!(r.state, RolloutState::Halted);
    r.state = RolloutState::Running;
    r.waves[0].progress.state = WaveState::Running;
    r.waves[0].excused = (2, 0);
    settle(&mut r, NOW);
    assert_eq!(r.state, RolloutState::Running);
    r.waves[0].tally.add(Outcome::Failed, 2);
    settle(&mut r, NOW);
    assert_eq!(r.state, RolloutState::Halted);
}

#[test]
fn two_gates_that_fail_at_once_halt_once() {
    let mut r = rollout(vec![wave("NA", "all", 9), wave("EU", "all", 9)]);
    for w in &mut r.waves {
        w.progress.state = WaveState::Running;
        w.tally = Tally::default()
            .with(Outcome::Failed, 5)
            .with(Outcome::Silent, 5);
    }
    r.waves[0].progress.state = WaveState::Passed;
    let step = plan(&r, NOW);
    assert_eq!(step.actions.len(), 1);
    apply(&mut r, &step, NOW);
    assert_eq!(r.state, RolloutState::Halted);
    assert!(plan(&r, NOW).actions.is_empty());
    // A pause by a person is not undone by a gate either.
    r.state = RolloutState::Paused;
    assert!(plan(&r, NOW).actions.is_empty());
}

#[test]
fn the_next_wave_waits_for_the_one_before_and_for_a_word_where_that_is_wanted() {
    let mut r = rollout(vec![wave("NA", "all", 4), wave("EU", "all", 4)]);
    r.by_hand = true;
    r.waves[0].progress.state = WaveState::Passed;
    r.waves[0].tally = Tally::default().with(Outcome::Succeeded, 4);
    r.progress.exposed = 4;
    assert_eq!(settle(&mut r, NOW).code, Reason::WaitsForWord);
    assert_eq!(r.waves[1].progress.state, WaveState::Pending);
    r.released = 1;
    settle(&mut r, NOW);
    assert_eq!(r.waves[1].progress.state, WaveState::Running);
}

#[test]
fn a_rollback_is_over_when_the_last_device_is_back_or_cannot_go_back() {
    let mut r = rollout(vec![wave("NA", "all", 4)]);
    r.state = RolloutState::RollingBack;
    r.waves[0].progress.state = WaveState::Failed;
    r.waves[0].tally = Tally::default()
        .with(Outcome::Returned, 2)
        .with(Outcome::Silent, 1)
        .with(Outcome::Stuck, 1);
    let waiting = settle(&mut r, NOW);
    assert_eq!(
        waiting.detail,
        "1 devices are still to roll back, 1 of them silent"
    );
    r.waves[0]
        .tally
        .moved(Some(Outcome::Silent), Outcome::Returned);
    // Whoever cannot go back is said in the state, for this is no rollback that is done.
    let mut whole = r.clone();
    settle(&mut r, NOW);
    assert_eq!(r.state, RolloutState::RolledBackPartly);
    whole.waves[0]
        .tally
        .moved(Some(Outcome::Stuck), Outcome::Returned);
    settle(&mut whole, NOW);
    assert_eq!(whole.state, RolloutState::RolledBack);
}

#[test]
fn a_rollout_that_stands_still_does_nothing_by_itself() {
    for state in RolloutState::ALL {
        let acts = *state == RolloutState::RollingBack || state.offers();
        let mut r = rollout(vec![wave("NA", "all", 4)]);
        r.state = *state;
        r.waves[0].progress.state = WaveState::Running;
        r.waves[0].tally = Tally::default().with(Outcome::Failed, 4);
        assert_eq!(!plan(&r, NOW).actions.is_empty(), acts, "{state}");
    }
}

#[test]
fn a_rollout_that_left_devices_out_says_so_until_late_ones_have_made_up_for_it() {
    let mut r = rollout(vec![wave("NA", "all", 4), wave("EU", "all", 0)]);
    r.waves[0].progress.state = WaveState::Passed;
    r.waves[1].progress.state = WaveState::Skipped;
    let with = |succeeded, failed, waiting| {
        Tally::default()
            .with(Outcome::Succeeded, succeeded)
            .with(Outcome::Failed, failed)
            .with(Outcome::Waiting, waiting)
    };
    // Failures that a person has let pass are failures all the same.
    r.waves[0].excused = (1, 0);
    r.waves[0].tally = with(2, 1, 0);
    let why = settle(&mut r, NOW);
    assert_eq!(r.state, RolloutState::CompletedPartly);
    assert_eq!(
        why.detail,
        "2 of 4 devices run the release; 1 failed, 0 are silent, 1 were left out"
    );
    // One that is under way decides nothing yet.
    r.waves[0].tally = with(3, 0, 1);
    settle(&mut r, NOW);
    assert_eq!(r.state, RolloutState::CompletedPartly);
    r.waves[0].tally = with(4, 0, 0);
    settle(&mut r, NOW);
    assert_eq!(r.state, RolloutState::Completed);
    assert!(r.state.offers());
}

#[test]
fn a_rollout_that_concerns_no_device_is_not_told_like_one_that_updated_them() {
    let mut r = rollout(vec![wave("NA", "all", 0)]);
    settle(&mut r, NOW);
    assert_eq!(r.state, RolloutState::NothingToDo);
    // It still serves who comes late.
    assert!(r.state.offers());
    r.waves[0].tally = Tally::default().with(Outcome::Succeeded, 1);
    settle(&mut r, NOW);
    assert_eq!(r.state, RolloutState::Completed);
}

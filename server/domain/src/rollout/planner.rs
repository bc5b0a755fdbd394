//! The planner: what a rollout does now, and why it does no more.

use tidegate_protocol::{Explained, Reason, Timestamp};

use super::{Gate, GateVerdict, OnBreach, Pace, RolloutState, Tally, Wave, WaveState};

/// How many devices a wave concerns, as counted just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Devices that the selector selects and that the rollout can concern (their channel takes
    /// the release, they do not run something newer), or that have a deployment in it.
    pub selected: u64,
    /// Those of them that no earlier wave has taken.
    pub members: u64,
    /// Members that the frontier admits.
    pub admitted: u64,
    /// Admitted members without a deployment that are online and able: they will ask soon.
    pub expected: u64,
    /// What became of those with a deployment.
    pub tally: Tally,
}

/// A wave as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveView {
    /// As planned.
    pub wave: Wave,
    /// Where it stands.
    pub state: WaveState,
    /// When it began to soak.
    pub soak_started: Option<Timestamp>,
    /// Whom it concerns.
    pub census: Census,
}

/// A rollout as the planner sees it: aggregates, no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutView {
    /// Where it stands.
    pub state: RolloutState,
    /// Its waves in order.
    pub waves: Vec<WaveView>,
    /// Its limits.
    pub gate: Gate,
    /// Its pace.
    pub pace: Pace,
}

/// One thing to do. Each names what it expects, so that an executor can apply it or drop it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The wave's turn has come.
    StartWave(usize),
    /// Raise the frontier so that this many members are admitted; `None` is everybody, those
    /// who come later included.
    Admit {
        /// Which wave.
        wave: usize,
        /// How many members in all.
        members: Option<u64>,
    },
    /// The wave's devices are done.
    Soak(usize),
    /// The wave's gate held.
    Pass(usize),
    /// The wave selects nobody.
    Skip(usize),
    /// The wave's gate is breached: stop, and do what the gate says beyond that.
    Breach {
        /// Which wave.
        wave: usize,
        /// What was measured.
        reason: Explained,
        /// Halt only, or roll back as well.
        then: OnBreach,
    },
    /// The last wave passed.
    Complete,
    /// The last device is back.
    Returned,
}

/// What to do now, and what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Why nothing more happens.
    pub waiting: Explained,
}

impl Plan {
    fn wait(reason: impl Into<Explained>) -> Self {
        Self {
            actions: Vec::new(),
            waiting: reason.into(),
        }
    }

    fn act(action: Action, reason: impl Into<Explained>) -> Self {
        Self {
            actions: vec![action],
            waiting: reason.into(),
        }
    }
}

/// Plans one step. Applying it and planning again reaches a fixpoint; planning twice with
/// nothing changed gives the same.
pub fn plan(rollout: &RolloutView, now: Timestamp) -> Plan {
    match rollout.state {
        RolloutState::Running => plan_running(rollout, now),
        RolloutState::RollingBack => plan_return(rollout),
        RolloutState::Paused => Plan::wait(Reason::RolloutPaused),
        RolloutState::Halted => Plan::wait(Reason::RolloutHalted),
        RolloutState::Draft | RolloutState::AwaitingApproval | RolloutState::Scheduled => {
            Plan::wait(Reason::RolloutNotStarted)
        }
        RolloutState::RolledBack | RolloutState::Completed | RolloutState::Cancelled => {
            Plan::wait(Reason::RolloutEnded)
        }
    }
}

fn plan_return(rollout: &RolloutView) -> Plan {
    let left: u64 = rollout
        .waves
        .iter()
        .map(|w| w.census.tally)
        .map(|t| t.in_flight + t.healthy + t.returning)
        .sum();
    if left == 0 {
        return Plan::act(Action::Returned, Reason::RolloutEnded);
    }
    Plan::wait(Explained::new(
        Reason::RolloutRollingBack,
        format!("{left} devices are not back yet"),
    ))
}

fn plan_running(rollout: &RolloutView, now: Timestamp) -> Plan {
    // Every wave that has exposed a device is watched, the passed ones included: a release can
    // turn out bad late.
    for (index, wave) in rollout.waves.iter().enumerate() {
        if wave.state == WaveState::Pending {
            continue;
        }
        if let GateVerdict::Breached(text) = rollout.gate.failures(&wave.census.tally) {
            return breach(rollout, index, &text);
        }
    }
    let open = rollout
        .waves
        .iter()
        .position(|w| !matches!(w.state, WaveState::Passed | WaveState::Skipped));
    let Some(index) = open else {
        return plan_end(rollout);
    };
    let wave = &rollout.waves[index];
    match wave.state {
        WaveState::Pending if wave.census.members == 0 => Plan::act(
            Action::Skip(index),
            Explained::new(
                Reason::WaveNotStarted,
                format!("wave {} selects nobody", wave.wave.name),
            ),
        ),
        WaveState::Pending => Plan::act(
            Action::StartWave(index),
            Explained::new(Reason::WaveNotStarted, &wave.wave.name),
        ),
        WaveState::Running => plan_wave(rollout, index),
        WaveState::Soaking => plan_soak(rollout, index, now),
        // A failed wave halts the rollout; one that is running again was resumed by a person.
        WaveState::Failed | WaveState::Passed | WaveState::Skipped => Plan::act(
            Action::StartWave(index),
            Explained::new(Reason::WaveNotStarted, &wave.wave.name),
        ),
    }
}

/// Every wave has passed. While a rollback window is open a device can still turn out bad, and
/// the gate still watches: the rollout is complete when the last window has closed.
fn plan_end(rollout: &RolloutView) -> Plan {
    let open: u64 = rollout.waves.iter().map(|w| w.census.tally.probation).sum();
    if open == 0 {
        return Plan::act(Action::Complete, Reason::RolloutEnded);
    }
    let text = format!("every wave has passed, {open} devices");
    Plan::wait(Explained::new(Reason::ProbationOpen, text))
}

fn breach(rollout: &RolloutView, wave: usize, text: &str) -> Plan {
    let name = &rollout.waves[wave].wave.name;
    let reason = Explained::new(Reason::GateBreached, format!("wave {name}: {text}"));
    let then = rollout.gate.on_breach;
    Plan::act(
        Action::Breach {
            wave,
            reason: reason.clone(),
            then,
        },
        reason,
    )
}

fn plan_wave(rollout: &RolloutView, index: usize) -> Plan {
    let WaveView { wave, census, .. } = &rollout.waves[index];
    let tally = census.tally;
    let quota = wave.size.quota(census.selected, census.members);
    if census.admitted < quota {
        let healthy: u64 = rollout.waves.iter().map(|w| w.census.tally.healthy).sum();
        let under_way: u64 = rollout
            .waves
            .iter()
            .map(|w| w.census.tally.in_flight + w.census.expected)
            .sum();
        let room = rollout.pace.allows(healthy).saturating_sub(under_way);
        if room == 0 {
            return Plan::wait(Explained::new(
                Reason::PaceLimit,
                format!(
                    "wave {}: {under_way} in flight, {healthy} healthy so far",
                    wave.name
                ),
            ));
        }
        let members = census.admitted.saturating_add(room).min(quota);
        let everybody = members == quota && wave.size == super::WaveSize::All;
        return Plan::act(
            Action::Admit {
                wave: index,
                members: (!everybody).then_some(members),
            },
            Explained::new(
                Reason::WaveInFlight,
                format!("wave {}: admits {members} of {quota}", wave.name),
            ),
        );
    }
    if tally.in_flight > 0 {
        return Plan::wait(Explained::new(
            Reason::WaveInFlight,
            format!(
                "wave {}: {} in flight, {} of {quota} done",
                wave.name,
                tally.in_flight,
                tally.finished()
            ),
        ));
    }
    if census.expected > 0 || tally.finished() == 0 {
        return Plan::wait(Explained::new(
            Reason::WaveReachesOut,
            format!(
                "wave {}: {} about to ask, {} of {quota} done; the others are offline, busy or held back",
                wave.name,
                census.expected,
                tally.finished()
            ),
        ));
    }
    Plan::act(
        Action::Soak(index),
        Explained::new(Reason::WaveSoaking, &wave.name),
    )
}

fn plan_soak(rollout: &RolloutView, index: usize, now: Timestamp) -> Plan {
    let WaveView {
        wave,
        census,
        soak_started,
        ..
    } = &rollout.waves[index];
    let soaked = soak_started.map(|at| now.since(at)).unwrap_or_default();
    if soaked < rollout.gate.soak {
        let text = format!(
            "wave {} soaks {} of {} s",
            wave.name,
            soaked.as_secs(),
            rollout.gate.soak.as_secs()
        );
        return Plan::wait(Explained::new(Reason::WaveSoaking, text));
    }
    match rollout.gate.success(&census.tally) {
        GateVerdict::Breached(text) => breach(rollout, index, &text),
        GateVerdict::Holds => Plan::act(
            Action::Pass(index),
            Explained::new(Reason::WaveSoaking, &wave.name),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BasisPoints;
    use crate::rollout::WaveSize;
    use proptest::prelude::*;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn wave(name: &str, size: &str, members: u64) -> WaveView {
        WaveView {
            wave: Wave {
                name: name.into(),
                selector: format!("region={name}").parse().unwrap(),
                size: size.parse().unwrap(),
            },
            state: WaveState::Pending,
            soak_started: None,
            census: Census {
                selected: members,
                members,
                ..Census::default()
            },
        }
    }

    fn rollout(waves: Vec<WaveView>) -> RolloutView {
        RolloutView {
            state: RolloutState::Running,
            waves,
            gate: Gate {
                max_failure: BasisPoints::new(200).unwrap(),
                min_failures: 2,
                min_success: BasisPoints::new(9_000).unwrap(),
                soak: Duration::from_mins(1),
                on_breach: OnBreach::Halt,
            },
            pace: Pace::Evidence { start: 4 },
        }
    }

    #[test]
    fn a_wave_starts_admits_soaks_and_passes() {
        let mut r = rollout(vec![wave("NA", "all", 3)]);
        assert_eq!(plan(&r, NOW).actions, [Action::StartWave(0)]);
        r.waves[0].state = WaveState::Running;
        assert_eq!(
            plan(&r, NOW).actions,
            [Action::Admit {
                wave: 0,
                members: None
            }]
        );
        r.waves[0].census.admitted = 3;
        r.waves[0].census.expected = 3;
        assert_eq!(plan(&r, NOW).waiting.code, Reason::WaveReachesOut);
        r.waves[0].census.expected = 0;
        r.waves[0].census.tally.in_flight = 3;
        assert_eq!(plan(&r, NOW).waiting.code, Reason::WaveInFlight);
        r.waves[0].census.tally = Tally {
            healthy: 3,
            ..Tally::default()
        };
        assert_eq!(plan(&r, NOW).actions, [Action::Soak(0)]);
        r.waves[0].state = WaveState::Soaking;
        r.waves[0].soak_started = Some(NOW);
        let soaking = plan(&r, NOW.plus(Duration::from_secs(4)));
        assert_eq!(soaking.waiting.detail, "wave NA soaks 4 of 60 s");
        assert_eq!(
            plan(&r, NOW.plus(Duration::from_mins(1))).actions,
            [Action::Pass(0)]
        );
        r.waves[0].state = WaveState::Passed;
        assert_eq!(plan(&r, NOW).actions, [Action::Complete]);
    }

    #[test]
    fn exposure_follows_proof() {
        let mut r = rollout(vec![wave("NA", "all", 100)]);
        r.waves[0].state = WaveState::Running;
        let admits = |r: &RolloutView| plan(r, NOW).actions;
        assert_eq!(
            admits(&r),
            [Action::Admit {
                wave: 0,
                members: Some(4)
            }]
        );
        r.waves[0].census.admitted = 4;
        r.waves[0].census.tally = Tally {
            in_flight: 4,
            ..Tally::default()
        };
        assert!(admits(&r).is_empty());
        r.waves[0].census.tally = Tally {
            in_flight: 1,
            healthy: 3,
            ..Tally::default()
        };
        assert_eq!(
            admits(&r),
            [Action::Admit {
                wave: 0,
                members: Some(9)
            }]
        );
    }

    #[test]
    fn a_breach_late_in_a_passed_wave_halts_too() {
        let mut r = rollout(vec![wave("NA", "all", 4), wave("EU", "all", 4)]);
        r.waves[0].state = WaveState::Passed;
        r.waves[0].census.tally = Tally {
            healthy: 2,
            failed: 2,
            ..Tally::default()
        };
        r.waves[1].state = WaveState::Running;
        assert!(matches!(
            plan(&r, NOW).actions[..],
            [Action::Breach { wave: 0, .. }]
        ));
    }

    #[test]
    fn a_rollout_is_not_complete_while_a_rollback_window_is_open() {
        let mut r = rollout(vec![wave("NA", "all", 4)]);
        r.waves[0].state = WaveState::Passed;
        r.waves[0].census.tally = Tally {
            healthy: 4,
            probation: 1,
            ..Tally::default()
        };
        let waiting = plan(&r, NOW);
        assert!(waiting.actions.is_empty());
        assert_eq!(waiting.waiting.code, Reason::ProbationOpen);
        r.waves[0].census.tally.probation = 0;
        assert_eq!(plan(&r, NOW).actions, [Action::Complete]);
    }

    #[test]
    fn the_next_wave_waits_for_the_one_before() {
        let mut r = rollout(vec![wave("NA", "all", 4), wave("EU", "all", 4)]);
        r.waves[0].state = WaveState::Soaking;
        r.waves[0].soak_started = Some(NOW);
        assert!(plan(&r, NOW).actions.is_empty());
    }

    #[test]
    fn a_wave_of_silent_devices_does_not_pass_without_evidence() {
        let mut r = rollout(vec![wave("NA", "all", 4)]);
        r.waves[0].state = WaveState::Running;
        r.waves[0].census.admitted = 4;
        let plan = plan(&r, NOW);
        assert!(plan.actions.is_empty());
        assert_eq!(plan.waiting.code, Reason::WaveReachesOut);
    }

    #[test]
    fn a_paused_or_halted_rollout_does_nothing_by_itself() {
        for state in [
            RolloutState::Paused,
            RolloutState::Halted,
            RolloutState::Draft,
        ] {
            let mut r = rollout(vec![wave("NA", "all", 4)]);
            r.state = state;
            r.waves[0].state = WaveState::Running;
            r.waves[0].census.tally.failed = 4;
            assert!(plan(&r, NOW).actions.is_empty(), "{state}");
        }
    }

    /// A small world that does what the planner says: devices answer at random.
    fn simulate(sizes: &[(u64, WaveSize)], failing: &[bool], pace: Pace) -> (RolloutView, u64) {
        let waves = sizes
            .iter()
            .enumerate()
            .map(|(i, (members, size))| {
                let mut w = wave(&format!("r{i}"), "all", *members);
                w.wave.size = *size;
                w
            })
            .collect();
        let mut r = rollout(waves);
        r.pace = pace;
        let mut outcomes = failing.iter().copied().cycle();
        let mut now = NOW;
        let mut worst = 0;
        for _ in 0..10_000 {
            let step = plan(&r, now);
            assert_eq!(step, plan(&r, now), "planning is repeatable");
            let waves = &mut r.waves;
            match step.actions.first() {
                None => {
                    // Nothing to do: a device answers, or time passes.
                    now = now.plus(Duration::from_secs(30));
                    for w in waves.iter_mut() {
                        let t = &mut w.census.tally;
                        t.in_flight += std::mem::take(&mut w.census.expected);
                        if t.in_flight > 0 {
                            t.in_flight -= 1;
                            if outcomes.next().unwrap_or(false) {
                                t.failed += 1;
                            } else {
                                t.healthy += 1;
                            }
                        }
                    }
                }
                Some(Action::StartWave(i)) => waves[*i].state = WaveState::Running,
                Some(Action::Admit { wave, members }) => {
                    let w = &mut waves[*wave];
                    let quota = w.wave.size.quota(w.census.selected, w.census.members);
                    let members = members.unwrap_or(w.census.members);
                    assert!(members <= quota, "a frontier above its wave");
                    assert!(members > w.census.admitted, "a frontier only rises");
                    w.census.expected += members - w.census.admitted;
                    w.census.admitted = members;
                }
                Some(Action::Soak(i)) => {
                    waves[*i].state = WaveState::Soaking;
                    waves[*i].soak_started = Some(now);
                }
                Some(Action::Pass(i)) => waves[*i].state = WaveState::Passed,
                Some(Action::Skip(i)) => waves[*i].state = WaveState::Skipped,
                Some(Action::Breach { .. }) => r.state = RolloutState::Halted,
                Some(Action::Complete) => r.state = RolloutState::Completed,
                Some(Action::Returned) => r.state = RolloutState::RolledBack,
            }
            let flight: u64 = r
                .waves
                .iter()
                .map(|w| w.census.tally.in_flight + w.census.expected)
                .sum();
            let healthy: u64 = r.waves.iter().map(|w| w.census.tally.healthy).sum();
            if flight > r.pace.allows(healthy) {
                worst = worst.max(flight - r.pace.allows(healthy));
            }
            if r.state != RolloutState::Running {
                break;
            }
        }
        (r, worst)
    }

    proptest! {
        #[test]
        fn every_rollout_ends_and_a_good_one_completes(
            members in prop::collection::vec(0u64..40, 1..5),
            start in 1u64..8,
        ) {
            let sizes: Vec<_> = members.iter().map(|m| (*m, WaveSize::All)).collect();
            let (r, over) = simulate(&sizes, &[false], Pace::Evidence { start });
            prop_assert_eq!(r.state, RolloutState::Completed);
            prop_assert_eq!(over, 0);
            prop_assert!(r.waves.iter().all(|w| w.census.tally.healthy == w.census.members));
        }

        #[test]
        fn a_release_that_breaks_every_device_exposes_the_starting_size_and_one_more(
            members in 4u64..1_000, start in 2u64..9,
        ) {
            let (r, _) = simulate(&[(members, WaveSize::All)], &[true], Pace::Evidence { start });
            prop_assert_eq!(r.state, RolloutState::Halted);
            // The first failure makes room for one; the second one halts.
            prop_assert!(r.waves[0].census.admitted <= start + 1);
        }

        #[test]
        fn whatever_devices_do_a_rollout_comes_to_an_end(
            members in prop::collection::vec((0u64..30, 1u64..30), 1..4),
            failing in prop::collection::vec(any::<bool>(), 1..20),
        ) {
            let sizes: Vec<_> =
                members.iter().map(|(m, n)| (*m, WaveSize::Count(*n))).collect();
            let (r, _) = simulate(&sizes, &failing, Pace::AtOnce);
            prop_assert!(matches!(r.state, RolloutState::Completed | RolloutState::Halted));
        }
    }
}

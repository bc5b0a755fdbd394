//! Forecast of when a rollout finishes if it goes on as it does.

use std::time::Duration;

use tidegate_protocol::Timestamp;

use super::{Pace, RolloutView, WaveState};

/// Estimated finish, with the measurement it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Time at which the last wave has soaked and its rollback windows have closed; `None` when
    /// that is not in sight (a person must release a wave, a window never opens, or it takes longer
    /// than a year).
    pub finish: Option<Timestamp>,
    /// Time of one attempt from offer to outcome.
    pub attempt: Duration,
    /// Whether `attempt` was measured; otherwise it is the guess for a rollout without results.
    pub measured: bool,
    /// Whether the deadline will be met; `None` without a deadline.
    pub on_time: Option<bool>,
}

/// Assumed time from offer to healthy until there are results.
const GUESS: Duration = Duration::from_mins(15);
/// Number of results from which the measured mean is used.
const ENOUGH: u64 = 5;
/// Steps after which the forecast gives up.
const MAX_STEPS: u32 = 20_000;
const YEAR: Duration = Duration::from_hours(366 * 24);

/// Simulates the remaining waves: rounds of as many devices as the pace, the caps and the rate
/// allow, each as long as an attempt and only in open windows, then the soak.
pub fn forecast(rollout: &RolloutView, now: Timestamp) -> Forecast {
    let progress = &rollout.progress;
    let measured = progress.done >= ENOUGH;
    let attempt = if measured {
        Duration::from_secs((progress.done_s / progress.done).max(1))
    } else {
        GUESS
    };
    let finish = run(rollout, attempt, now);
    let on_time = rollout
        .deadline
        .map(|deadline| finish.is_some_and(|f| f <= deadline));
    Forecast {
        finish,
        attempt,
        measured,
        on_time,
    }
}

fn run(rollout: &RolloutView, attempt: Duration, now: Timestamp) -> Option<Timestamp> {
    let mut time = now;
    let mut steps = 0;
    if rollout.state.is_final() {
        return Some(now);
    }
    for (index, view) in rollout.waves.iter().enumerate() {
        match view.progress.state {
            WaveState::Passed | WaveState::Skipped => continue,
            WaveState::Pending if rollout.by_hand && index > rollout.released => return None,
            WaveState::Pending | WaveState::Running | WaveState::Soaking | WaveState::Failed => {}
        }
        let begun = view
            .progress
            .started_at
            .map(|at| now.since(at))
            .unwrap_or_default();
        let mut left = view.progress.quota.saturating_sub(view.tally.finished());
        if view.progress.state == WaveState::Soaking {
            left = 0;
        }
        let mut healthy: u64 = rollout
            .waves
            .iter()
            .enumerate()
            .filter(|(i, w)| w.wave.selector == view.wave.selector && *i <= index)
            .map(|(i, w)| {
                if i < index {
                    w.progress.quota.max(w.tally.healthy())
                } else {
                    w.tally.healthy()
                }
            })
            .sum();
        let started = time;
        let region = view.wave.selector.pinned_region();
        let window = region
            .as_ref()
            .map_or(rollout.windows.general.as_ref(), |r| rollout.windows.of(r));
        while left > 0 {
            steps += 1;
            if steps > MAX_STEPS || time.since(now) > YEAR {
                return None;
            }
            if let Some(window) = window {
                let opening = window.at(time);
                if !opening.open {
                    time = opening.changes?;
                }
            }
            let mut size = rollout
                .pace
                .allows(healthy, begun + time.since(started))
                .min(rollout.limits.max_in_flight.unwrap_or(u64::MAX))
                .max(1)
                .min(left);
            let mut takes = attempt;
            if let Some(rate) = rollout.limits.per_minute {
                // A round takes at most what the rate admits during one attempt, and lasts at least
                // as long as
                // the rate needs to admit it.
                let come = rate.saturating_mul(attempt.as_secs().max(60)) / 60;
                size = size.min(come.max(1));
                takes = takes.max(Duration::from_secs(size * 60 / rate.max(1)));
            }
            time = time.plus(takes);
            healthy += size;
            left -= size;
        }
        let soaked = view
            .progress
            .soak_started
            .filter(|_| view.progress.state == WaveState::Soaking);
        let soak = rollout
            .gate
            .soak
            .saturating_sub(soaked.map_or(Duration::ZERO, |at| now.since(at)));
        time = time.plus(soak);
        if rollout.pace == Pace::AtOnce {
            time = time.plus(rollout.reach);
        }
    }
    Some(time.plus(rollout.rollback_window.saturating_sub(rollout.gate.soak)))
}

#[cfg(test)]
mod tests {
    use super::super::planner::tests::{NOW, rollout, wave};
    use super::super::{Limits, Progress};
    use super::*;

    #[test]
    fn a_forecast_follows_the_pace() {
        let mut r = rollout(vec![wave("NA", "all", 56)]);
        r.pace = Pace::Evidence { start: 8 };
        r.gate.soak = Duration::from_mins(10);
        r.rollback_window = Duration::from_mins(30);
        // 8, 16, 32 in flight: three attempts, the soak, the rest of the window.
        let f = forecast(&r, NOW);
        assert_eq!(f.finish, Some(NOW.plus(Duration::from_mins(45 + 10 + 20))));
        assert!(!f.measured);
        r.progress = Progress {
            done: 10,
            done_s: 600,
            ..Progress::default()
        };
        let f = forecast(&r, NOW);
        assert_eq!(f.finish, Some(NOW.plus(Duration::from_mins(3 + 30))));
        r.deadline = Some(NOW.plus(Duration::from_mins(32)));
        assert_eq!(forecast(&r, NOW).on_time, Some(false));
        r.deadline = Some(NOW.plus(Duration::from_mins(33)));
        assert_eq!(forecast(&r, NOW).on_time, Some(true));
    }

    #[test]
    fn a_closed_window_and_a_rate_are_waited_for() {
        let mut r = rollout(vec![wave("NA", "all", 100)]);
        r.pace = Pace::AtOnce;
        r.gate.soak = Duration::ZERO;
        r.rollback_window = Duration::ZERO;
        r.limits = Limits {
            per_minute: Some(10),
            max_in_flight: None,
        };
        let f = forecast(&r, NOW);
        assert_eq!(
            f.finish,
            Some(NOW.plus(Duration::from_mins(15).max(Duration::from_mins(10)) + r.reach))
        );
        // 1970-01-12 was a Monday, 13:46:40; the window opens at 20:00.
        r.windows.general = Some("daily 20:00-21:00 UTC".parse().unwrap());
        let opens = NOW.plus(Duration::from_secs(6 * 3_600 + 13 * 60 + 20));
        assert_eq!(
            forecast(&r, NOW).finish,
            Some(opens.plus(Duration::from_mins(15) + r.reach))
        );
    }

    #[test]
    fn a_wave_that_waits_for_a_word_has_no_forecast() {
        let mut r = rollout(vec![wave("NA", "all", 5), wave("EU", "all", 5)]);
        r.by_hand = true;
        assert_eq!(forecast(&r, NOW).finish, None);
        r.released = 1;
        assert!(forecast(&r, NOW).finish.is_some());
    }
}

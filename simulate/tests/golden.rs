//! Every built-in scenario against the output that was read and approved, and against invariants
//! that hold in any case. `TIDEGATE_BLESS=1` rewrites the output.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use tidegate_simulate::{BUILT_IN, Outcome, Scenario, built_in, run};

fn play(name: &str) -> Outcome {
    let scenario = Scenario::parse(built_in(name).unwrap()).unwrap();
    let outcome = run(&scenario).unwrap();
    let path = format!("{}/scenarios/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = outcome.to_string();
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{name} came out differently; read it and bless it with TIDEGATE_BLESS=1:\n{text}"
    );
    // Invariants of every scenario.
    assert_eq!(outcome.offers_after_halt, 0, "offers after a stop");
    assert_eq!(outcome.flips, 0, "devices that came to a release twice");
    outcome
}

#[test]
fn an_exchange_moves_120_000_terminals_in_two_days() {
    let outcome = play("exchange");
    let total = outcome.total();
    assert_eq!(total.devices, 120_000);
    assert!(outcome.share_on_goal() >= 9_850);
    assert!(outcome.states[0].contains("completed"));
}

#[test]
fn an_exchange_whose_release_breaks_one_region_stops_there() {
    let outcome = play("exchange-eu-breaks");
    let (eu, apac) = (outcome.regions["EU"], outcome.regions["APAC"]);
    assert!(eu.exposed <= 1_000, "{} of EU exposed", eu.exposed);
    assert_eq!(eu.on_goal, 0, "every device of EU is back");
    assert_eq!(apac.exposed, 0);
}

#[test]
fn a_plant_is_through_in_48_hours_and_the_naive_way_is_not() {
    let outcome = play("plant");
    assert!(
        outcome.share_on_goal() >= 9_870,
        "{}",
        outcome.share_on_goal()
    );
    assert!(outcome.downtime <= 252, "{} s", outcome.downtime);
    let naive = outcome.naive.unwrap();
    assert!(
        (6_000..6_600).contains(&naive.share_on_goal()),
        "{}",
        naive.share_on_goal()
    );
}

#[test]
fn a_release_that_breaks_half_exposes_a_handful() {
    assert!(play("breaks-half").exposed <= 24);
}

#[test]
fn silence_alone_stops_a_release() {
    let outcome = play("silent-failures");
    let total = outcome.total();
    assert_eq!(total.failed, 0, "nobody reports a failure");
    assert!(total.exposed <= 400, "{} exposed", total.exposed);
}

#[test]
fn a_slow_leak_is_found_by_the_comparison_before_the_rest_is_exposed() {
    let outcome = play("slow-leak");
    assert_eq!(outcome.exposed, 800);
    assert!(outcome.halted_at.is_some());
}

#[test]
fn two_gates_that_break_at_once_stop_a_rollout_once() {
    let outcome = play("two-gates").to_string();
    assert_eq!(outcome.matches("halted: wave").count(), 1, "{outcome}");
}

#[test]
fn a_rollback_during_a_rollback_changes_nothing() {
    let outcome = play("rollback-twice");
    assert!(outcome.states[0].contains("rolled_back"));
    assert_eq!(outcome.total().on_goal, 0);
}

#[test]
fn a_window_that_opens_for_everybody_makes_no_herd() {
    let outcome = play("window-herd");
    // 100,000 devices every five minutes are 333 per second, and an update takes a few check-ins.
    assert!(outcome.peak.0 <= 1_500, "{} in a second", outcome.peak.0);
    assert_eq!(outcome.share_on_goal(), 10_000);
}

#[test]
fn a_lost_leader_loses_nothing() {
    assert_eq!(play("leader-lost").share_on_goal(), 10_000);
}

#[test]
fn a_clock_that_goes_back_forgets_nothing() {
    assert_eq!(play("clock-back").share_on_goal(), 10_000);
}

#[test]
fn a_battery_starves_nobody_for_ever() {
    assert_eq!(play("battery-for-ever").share_on_goal(), 10_000);
}

#[test]
fn a_hold_on_one_model_lets_the_others_go_on() {
    let outcome = play("hold-one-model");
    let total = outcome.total();
    assert!(total.on_goal >= 1_800, "{}", total.on_goal);
    assert!(total.failed <= 100, "{}", total.failed);
}

#[test]
fn metered_links_take_deltas_alone() {
    let outcome = play("metered");
    assert_eq!(outcome.regions["NA"].on_goal, 900);
    assert!(outcome.regions["EU"].on_goal < 300);
}

#[test]
fn the_same_seed_gives_the_same_lines_and_another_one_others() {
    let mut scenario = Scenario::parse(built_in("breaks-half").unwrap()).unwrap();
    let first = run(&scenario).unwrap().to_string();
    assert_eq!(first, run(&scenario).unwrap().to_string());
    scenario.seed += 1;
    assert_ne!(first, run(&scenario).unwrap().to_string());
}

#[test]
fn a_scenario_that_makes_no_sense_is_refused_with_its_reason() {
    let text = built_in("breaks-half").unwrap();
    for (from, to, why) in [
        ("count = 5000", "count = 0", "0 devices"),
        ("rate = 1000000", "rate = 0", "a rate"),
        ("poll = \"1m\"", "poll = \"soon\"", "a length"),
        ("intent", "intention", "intent"),
    ] {
        let error = Scenario::parse(&text.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(BUILT_IN.len() >= 12);
}

#![doc = include_str!("../README.md")]

mod chance;
mod control;
mod device;
mod ledger;
mod round;
pub mod scenario;
mod sheet;
mod world;

pub use scenario::{Scenario, ScenarioError};
pub use sheet::{Outcome, Region};

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario) -> Result<Outcome, ScenarioError> {
    let mut outcome = world::World::new(scenario, false)?.run()?;
    if scenario.beside_naive {
        outcome.naive = Some(Box::new(world::World::new(scenario, true)?.run()?));
    }
    Ok(outcome)
}

/// Built-in scenarios: name and text.
pub const BUILT_IN: &[(&str, &str)] = &[
    (
        "battery-for-ever",
        include_str!("../scenarios/battery-for-ever.toml"),
    ),
    ("breaks-half", include_str!("../scenarios/breaks-half.toml")),
    ("clock-back", include_str!("../scenarios/clock-back.toml")),
    ("exchange", include_str!("../scenarios/exchange.toml")),
    (
        "exchange-eu-breaks",
        include_str!("../scenarios/exchange-eu-breaks.toml"),
    ),
    (
        "hold-one-model",
        include_str!("../scenarios/hold-one-model.toml"),
    ),
    ("leader-lost", include_str!("../scenarios/leader-lost.toml")),
    ("metered", include_str!("../scenarios/metered.toml")),
    ("plant", include_str!("../scenarios/plant.toml")),
    (
        "rollback-twice",
        include_str!("../scenarios/rollback-twice.toml"),
    ),
    (
        "silent-failures",
        include_str!("../scenarios/silent-failures.toml"),
    ),
    ("slow-leak", include_str!("../scenarios/slow-leak.toml")),
    ("two-gates", include_str!("../scenarios/two-gates.toml")),
    ("window-herd", include_str!("../scenarios/window-herd.toml")),
];

/// Returns the text of a built-in scenario.
pub fn built_in(name: &str) -> Option<&'static str> {
    BUILT_IN
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, text)| *text)
}

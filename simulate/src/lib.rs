//! A fleet in simulated time: the real planner, the real decisions and the real agent's state
//! machine over devices that are models.
//!
//! Real: [`tidegate_domain`]'s planner, gate, admission, paths, windows and deployments; the
//! agent's state machine; the format of a rollout's rules, as the API reads them. Models: links,
//! batteries, how long things take, what breaks. There is no database, no socket and no clock; the
//! same scenario and seed give the same lines on every machine.
//!
//! | module | holds |
//! | --- | --- |
//! | [`scenario`] | the scenario file format |
//! | `chance` | seeded randomness |
//! | `device` | one device: its agent, its link, its battery |
//! | `control` | the control plane without a database |
//! | `ledger` | the records it keeps |
//! | `round` | the actions of one device |
//! | `world` | simulated time and its events |
//! | `sheet` | the timeline and the table |

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

//! `simulate`.

use clap::Args;
use tidegate_simulate::{BUILT_IN, Scenario, built_in, run as simulate};

use crate::error::CliError;
use crate::output::line;

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// A scenario file, or the name of a built-in one; lists the built-in ones if missing.
    pub(crate) scenario: Option<String>,
    /// Seed to use instead of the scenario's.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Print a built-in scenario instead of running it, as a start for your own.
    #[arg(long)]
    pub(crate) print: bool,
}

/// Runs a scenario, prints one, or lists the built-in ones.
pub(crate) fn run(args: &SimulateArgs) -> Result<(), CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(e.to_string());
    let Some(name) = &args.scenario else {
        for (name, text) in BUILT_IN {
            let scenario = Scenario::parse(text).map_err(|e| failed(&e))?;
            line(&format!("{name:20} {}", scenario.intent))?;
        }
        return Ok(());
    };
    let text = match built_in(name) {
        Some(text) => text.to_owned(),
        None => std::fs::read_to_string(name).map_err(|e| {
            CliError::Hinted(
                format!("{name} is neither a built-in scenario nor a readable file: {e}"),
                "tidegate simulate lists the built-in ones".into(),
            )
        })?,
    };
    if args.print {
        line(text.trim_end())?;
        return Ok(());
    }
    let mut scenario = Scenario::parse(&text).map_err(|e| failed(&e))?;
    if let Some(seed) = args.seed {
        scenario.seed = seed;
    }
    let outcome = simulate(&scenario).map_err(|e| failed(&e))?;
    line(outcome.to_string().trim_end())
}

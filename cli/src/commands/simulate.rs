//! `simulate`.

use crate::args::SimulateArgs;
use crate::error::CliError;

/// Runs a scenario.
pub(crate) fn run(_args: &SimulateArgs) -> Result<(), CliError> {
    Ok(())
}

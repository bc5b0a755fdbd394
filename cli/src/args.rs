//! The command tree.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::bundle::BundleCommand;
use crate::commands::delta::DeltaCommand;
use crate::commands::device::DeviceCommand;
use crate::commands::incident::{HoldCommand, IncidentCommand, ProductCommand};
use crate::commands::keys::KeysCommand;
use crate::commands::operator::{LoginArgs, TokenCommand};
use crate::commands::release::ReleaseCommand;
use crate::commands::rollout::{RollbackArgs, RolloutCommand};
use crate::commands::serve::{DatabaseArgs, HealthcheckArgs, ServeArgs};
use crate::commands::simulate::SimulateArgs;
use crate::demo::DemoArgs;
use crate::error::CliError;
use crate::options::{Global, KeysDir};
use crate::output;

/// Moves a fleet from one release to the next, safely, and back within minutes.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the control plane.
    Serve(ServeArgs),
    /// Bring the database schema up to date, then exit.
    Migrate(DatabaseArgs),
    /// Ask a server whether it is ready; for containers.
    Healthcheck(HealthcheckArgs),
    /// Run everything on this machine: a server, devices, a good rollout, and a bad one with its
    /// rollback.
    Demo(DemoArgs),
    /// Save a server and a token for later commands.
    Login(LoginArgs),
    /// Show who the token belongs to.
    Whoami,
    /// Manage operator tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Manage the offline keys that decide what may run on devices.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Publish, promote and inspect releases.
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Start, watch and stop rollouts.
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Carry orders to devices without a network, and their reports back.
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Roll devices back: those of one rollout, or of every rollout of a release. Needs no
    /// approval.
    Rollback(RollbackArgs),
    /// Follow incidents, and keep previous versions longer.
    #[command(subcommand)]
    Incident(IncidentCommand),
    /// Hold some devices back from a release while the rest goes on.
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Set the rules of a product: oldest supported version, required capabilities, approvals.
    #[command(subcommand)]
    Product(ProductCommand),
    /// Run a rollout over a simulated fleet in simulated time.
    Simulate(SimulateArgs),
    /// List devices, explain their state, and let new ones join.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Make, apply and inspect deltas of files, without a server.
    #[command(subcommand)]
    Delta(DeltaCommand),
    /// Check what needs attention: signed files close to expiry, unencrypted keys, waiting drafts,
    /// devices that refuse the server's answers, files that other users can read.
    Doctor {
        #[command(flatten)]
        dir: KeysDir,
        /// Data folder of the server, on the machine that it runs on.
        #[arg(long, env = "TIDEGATE_DATA", value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Writes a completion script to standard output.
pub(crate) fn completions(shell: Shell) -> Result<(), CliError> {
    // By way of memory: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
    output::write(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    /// Clap keeps the values of all levels under their ids: an argument with the id of a global option
    /// would be taken for it, and a command with a positional `token` would send that as the bearer token.
    #[test]
    fn no_argument_of_a_command_has_the_id_of_a_global_option() {
        let root = Cli::command();
        let globals: Vec<String> = root
            .get_arguments()
            .filter(|arg| arg.is_global_set())
            .map(|arg| arg.get_id().to_string())
            .collect();
        assert!(globals.iter().any(|id| id == "token"), "{globals:?}");
        let mut commands: Vec<(String, &clap::Command)> =
            root.get_subcommands().map(|c| (c.to_string(), c)).collect();
        let mut found = Vec::new();
        while let Some((path, command)) = commands.pop() {
            let ids = command.get_arguments().map(|arg| arg.get_id().as_str());
            let groups = command.get_groups().map(|group| group.get_id().as_str());
            let taken = ids
                .chain(groups)
                .filter(|id| globals.iter().any(|g| g == id));
            found.extend(taken.map(|id| format!("{path}: {id}")));
            let below = command.get_subcommands();
            commands.extend(below.map(|c| (format!("{path} {c}"), c)));
        }
        assert_eq!(found, Vec::<String>::new());
    }
}

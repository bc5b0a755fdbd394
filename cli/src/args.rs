//! The command tree.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
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
use crate::keys::Access;
use crate::keys::secret::Unlock;

/// Moves a fleet from one release to the next, safely, and back within minutes.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Address of the control plane; defaults to the one saved by `tidegate login`.
    #[arg(long, global = true, env = "TIDEGATE_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Operator token; defaults to the one saved by `tidegate login`.
    #[arg(
        long,
        global = true,
        env = "TIDEGATE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<String>,
    /// Certificate authority of the server (PEM); defaults to the system's authorities.
    #[arg(long, global = true, env = "TIDEGATE_CA_FILE", value_name = "PEM")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Output format: a table for people, or JSON with the API's field names.
    #[arg(short, long, global = true, default_value = "table")]
    pub(crate) output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
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
    /// devices that refuse the server's answers.
    Doctor {
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Writes a completion script to standard output.
pub(crate) fn completions(shell: Shell) {
    clap_complete::generate(
        shell,
        &mut Cli::command(),
        "tidegate",
        &mut std::io::stdout(),
    );
}

/// Parses a length of time like `90s`, `30m`, `4h`, `2d`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("write 90s, 30m, 4h or 2d".into()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "write 90s, 30m, 4h or 2d".to_owned())?;
    number
        .checked_mul(factor)
        .map(Duration::from_secs)
        .ok_or_else(|| "that is too long".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct KeysDir {
    /// Folder of the offline keys and signed files. Never give it away.
    #[arg(
        long,
        env = "TIDEGATE_KEYS",
        default_value = "tidegate-keys",
        value_name = "DIR"
    )]
    pub(crate) keys: PathBuf,
    /// File whose first line is the passphrase of the keys. Without it TIDEGATE_KEY_PASSPHRASE is
    /// used, or you are asked.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Sign as this holder only.
    #[arg(long = "as", value_name = "HOLDER")]
    pub(crate) sign_as: Option<String>,
}

impl KeysDir {
    /// Returns the folder and how to unlock its keys.
    pub(crate) fn access(&self) -> Access {
        self.access_new(&NewKeys::default())
    }

    /// Like [`Self::access`], for commands that may write new keys in the clear.
    pub(crate) fn access_new(&self, new: &NewKeys) -> Access {
        Access {
            dir: self.keys.clone(),
            unlock: Unlock {
                file: self.passphrase_file.clone(),
                text: std::env::var("TIDEGATE_KEY_PASSPHRASE").ok(),
                none: new.no_passphrase,
            },
            holder: self.sign_as.clone(),
        }
    }
}

#[derive(Debug, Default, Args)]
pub(crate) struct NewKeys {
    /// Write new private keys unencrypted, for machines that sign unattended and for trying out.
    #[arg(long, conflicts_with = "passphrase_file")]
    pub(crate) no_passphrase: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30m"), Ok(Duration::from_mins(30)));
        assert_eq!(duration("2d"), Ok(Duration::from_hours(48)));
        for bad in ["", "m", "1w", "-1s", "1.5h", "99999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}

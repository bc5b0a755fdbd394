//! The command tree.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Moves a fleet from one release to the next, safely, and back again within minutes.
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
    /// Address of the control plane; by default the one of `tidegate login`.
    #[arg(long, global = true, env = "TIDEGATE_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// An operator token; by default the one of `tidegate login`.
    #[arg(
        long,
        global = true,
        env = "TIDEGATE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<String>,
    /// Results as a table for people or as JSON with the API's field names.
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
    /// Bring the database's schema up to date, then end.
    Migrate(DatabaseArgs),
    /// Ask a server whether it is ready; for containers.
    Healthcheck(HealthcheckArgs),
    /// See all of it: server, devices, a good rollout, a bad one and its return.
    Demo(DemoArgs),
    /// Remember a server and a token for later commands.
    Login(LoginArgs),
    /// Say who the token belongs to.
    Whoami,
    /// Operators' tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// The offline keys that say what may ever run.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Releases: publish, promote, look.
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Rollouts: start, watch, stop.
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Send devices back: of one rollout, or of every rollout of a release. Needs no approval.
    Rollback(RollbackArgs),
    /// Devices: look, ask why, let join.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
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

/// A length of time like `90s`, `30m`, `4h`, `2d`; a bare number is seconds.
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
pub(crate) struct DatabaseArgs {
    /// `sqlite:PATH` or `postgres://...`; by default SQLite in the data folder.
    #[arg(
        long,
        env = "TIDEGATE_DATABASE",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) database: Option<String>,
    /// Folder for the database, the blobs and the first token.
    #[arg(
        long,
        env = "TIDEGATE_DATA",
        default_value = "tidegate-data",
        value_name = "DIR"
    )]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// Where people and devices reach it.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "127.0.0.1:8420")]
    pub(crate) listen: SocketAddr,
    /// Where Prometheus reaches /metrics; nowhere by default.
    #[arg(long, env = "TIDEGATE_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// A folder, or s3://bucket/prefix (credentials from the AWS environment variables).
    #[arg(long, env = "TIDEGATE_BLOBS", value_name = "PLACE")]
    pub(crate) blobs: Option<String>,
    /// How often devices check in.
    #[arg(long, env = "TIDEGATE_POLL", default_value = "60s", value_parser = duration)]
    pub(crate) poll: Duration,
    /// Largest artifact that may be uploaded, in MiB.
    #[arg(long, default_value_t = 8_192, value_name = "MIB")]
    pub(crate) max_upload: u64,
    /// Most requests at once, held check-ins included; beyond that the answer is 429.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub(crate) max_requests: usize,
    /// Memory that one delta build may take, in MiB; larger images get no delta.
    #[arg(long, default_value_t = 2_048, value_name = "MIB")]
    pub(crate) delta_memory: u64,
    /// Log lines as text or as JSON; RUST_LOG chooses which.
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// End when standard input ends: for a parent process that may die.
    #[arg(long, hide = true)]
    pub(crate) exit_with_stdin: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// The server to ask.
    #[arg(long, default_value = "http://127.0.0.1:8420")]
    pub(crate) url: String,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many devices, spread over three regions.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(3..=200))]
    pub(crate) devices: u32,
    /// Your own files or folders instead of the made-up application: the old one, the new one,
    /// and perhaps the one after it.
    #[arg(long, num_args = 2..=3, value_names = ["OLD", "NEW", "NEXT"])]
    pub(crate) payload: Option<Vec<PathBuf>>,
    /// End by itself; the exit code is 0 only if every device ended where it should.
    #[arg(long)]
    pub(crate) exit: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Address of the control plane.
    pub(crate) server: String,
    /// A file with the token, for example tidegate-data/admin.token.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; its secret is shown once.
    Create {
        /// Whose it is.
        name: String,
        /// viewer, responder, release_manager or admin.
        #[arg(long)]
        role: String,
        /// For how long; for ever by default.
        #[arg(long, value_parser = duration)]
        valid: Option<Duration>,
    },
    /// Show the tokens that are not revoked.
    List,
    /// Revoke a token.
    Revoke {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KeysDir {
    /// Folder of the offline keys and signed files. It never leaves your hands.
    #[arg(
        long,
        env = "TIDEGATE_KEYS",
        default_value = "tidegate-keys",
        value_name = "DIR"
    )]
    pub(crate) keys: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make the offline keys, sign root and targets, and hand the public parts to the server.
    Init {
        #[command(flatten)]
        dir: KeysDir,
        /// Also make the keys of a product; may be repeated.
        #[arg(long)]
        product: Vec<String>,
    },
    /// Show which keys and signed files there are.
    Show {
        #[command(flatten)]
        dir: KeysDir,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// Pack, sign and upload a file or a folder as a release for one platform.
    Publish(PublishArgs),
    /// Give a release its next stage; signs it for the channels that take that stage.
    Promote {
        /// The product.
        product: String,
        /// The release.
        release: String,
        /// alpha, beta, ga or eol.
        #[arg(long)]
        to: String,
        /// Why; needed when a stage is skipped.
        #[arg(long)]
        reason: Option<String>,
        /// Only say what would be.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Take a release back for good: it is never offered again.
    Withdraw {
        /// The product.
        product: String,
        /// The release.
        release: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Show a product's releases; without a product, the products.
    List {
        /// The product.
        product: Option<String>,
    },
    /// Show one release with its artifacts.
    Get {
        /// The product.
        product: String,
        /// The release.
        release: String,
    },
    /// Show the ways to fetch a release: full payloads and deltas, those being made included.
    Delta {
        /// The product.
        product: String,
        /// The release.
        release: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// A file or a folder.
    pub(crate) path: PathBuf,
    /// The product; made when it is new.
    #[arg(long)]
    pub(crate) product: String,
    /// The release's semantic version.
    #[arg(long)]
    pub(crate) release: String,
    /// What it runs on; this machine's platform by default.
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// What is new in it.
    #[arg(long, default_value = "")]
    pub(crate) notes: String,
    /// The oldest release that it may be installed over.
    #[arg(long, value_name = "VERSION")]
    pub(crate) min_from: Option<String>,
    /// It may not be skipped on the way to later releases.
    #[arg(long)]
    pub(crate) stepping_stone: bool,
    /// Devices may not be sent back from it to an older release.
    #[arg(long)]
    pub(crate) no_rollback: bool,
    /// Signed health check that devices run in the unpacked folder (split at spaces).
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// How long the health check may take.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) health_timeout: Duration,
    #[command(flatten)]
    pub(crate) dir: KeysDir,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Make a rollout and start it; or start a draft by its id.
    Start(Box<StartArgs>),
    /// Show rollouts, newest first.
    List {
        /// Only of this product.
        #[arg(long)]
        product: Option<String>,
    },
    /// Show a rollout: waves, counts, and why it does no more.
    Get {
        /// Its id.
        id: String,
        /// Follow it until it ends.
        #[arg(long)]
        watch: bool,
        /// End with 3 unless it completed.
        #[arg(long)]
        exit_status: bool,
        /// Stop following after this time, with exit code 6.
        #[arg(long, value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Hold a rollout; devices under way go on.
    Pause(OrderArgs),
    /// Let a paused or halted rollout go on.
    Resume(OrderArgs),
    /// Stop a rollout at once; devices that have not switched are called off.
    Halt(OrderArgs),
    /// Give a rollout up; devices stay where they are.
    Cancel(OrderArgs),
    /// Show the devices of a rollout.
    Deployments {
        /// Its id.
        id: String,
        /// Only in this state.
        #[arg(long)]
        state: Option<String>,
    },
    /// Show what happened in a rollout.
    Events {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// A draft's id; instead of --product and --release.
    #[arg(conflicts_with_all = ["product", "release"])]
    pub(crate) id: Option<String>,
    /// The product.
    #[arg(long, required_unless_present = "id")]
    pub(crate) product: Option<String>,
    /// The release.
    #[arg(long, required_unless_present = "id")]
    pub(crate) release: Option<String>,
    /// One wave a region, in this order.
    #[arg(long, value_delimiter = ',', conflicts_with = "wave")]
    pub(crate) regions: Vec<String>,
    /// Split each region into batches of this size: 20% or 5000.
    #[arg(long, requires = "regions", value_name = "SIZE")]
    pub(crate) batch: Option<String>,
    /// A wave: SELECTOR or SELECTOR@SIZE, like region=NA,canary=true@20%; may be repeated.
    #[arg(long, value_name = "WAVE")]
    pub(crate) wave: Vec<String>,
    /// Percent of finished devices that may fail.
    #[arg(long, default_value = "2", value_name = "PERCENT")]
    pub(crate) max_failure: String,
    /// Percent of finished devices that must be healthy when a wave ends; 90 by default, less
    /// where --max-failure allows more.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) min_success: Option<String>,
    /// So many failures before the percentage counts.
    #[arg(long, default_value_t = 2)]
    pub(crate) min_failures: u64,
    /// How long each wave soaks.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub(crate) soak: Duration,
    /// What a breach does: halt, or halt_and_roll_back.
    #[arg(long, default_value = "halt")]
    pub(crate) on_breach: String,
    /// Devices in flight at first; later twice the healthy ones so far. 0: all at once.
    #[arg(long, default_value_t = 8)]
    pub(crate) pace_start: u64,
    /// How long a device can go back without a download.
    #[arg(long, default_value = "30m", value_parser = duration)]
    pub(crate) window: Duration,
    /// How often a device may try.
    #[arg(long, default_value_t = 3)]
    pub(crate) max_attempts: u32,
    /// How long a device may be silent before it counts as failed.
    #[arg(long, default_value = "1d", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Only make the draft.
    #[arg(long)]
    pub(crate) draft: bool,
    /// Only show what it would be.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Follow it until it ends.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// The rollout's id.
    pub(crate) id: String,
    /// Why: others will want to know.
    #[arg(long)]
    pub(crate) reason: String,
    /// Only show what it would do.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// A rollout's id, or PRODUCT@RELEASE for every rollout of a release.
    pub(crate) what: String,
    /// Why: others will want to know.
    #[arg(long)]
    pub(crate) reason: String,
    /// Only show what it would do.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Follow it until the last device is back.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Show devices.
    List {
        /// Only of this product.
        #[arg(long)]
        product: Option<String>,
        /// Only in this region.
        #[arg(long)]
        region: Option<String>,
    },
    /// Show one device.
    Show {
        /// Its id or name.
        device: String,
    },
    /// Say why a device does what it does: the whole chain of the decision.
    Why {
        /// Its id or name.
        device: String,
    },
    /// Make a join token with which devices enrol; it is shown once.
    JoinToken {
        /// The product of those who join.
        #[arg(long)]
        product: String,
        /// Their region, where the token is to fix it.
        #[arg(long)]
        region: Option<String>,
        /// Their channel, where the token is to fix it.
        #[arg(long)]
        channel: Option<String>,
        /// A label that they get: KEY=VALUE; may be repeated.
        #[arg(long)]
        label: Vec<String>,
        /// How many may join.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// For how long.
        #[arg(long, default_value = "1d", value_parser = duration)]
        valid: Duration,
    },
    /// Shut a device out from its next request on.
    Revoke {
        /// Its id or name.
        device: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Let a revoked device take part again.
    Readmit {
        /// Its id or name.
        device: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Let a device have a release again that it came back from.
    LiftQuarantine {
        /// Its id or name.
        device: String,
        /// The release.
        release: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
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

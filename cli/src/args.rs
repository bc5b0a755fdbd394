//! The command tree.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use tidegate_delta::Encoding;

use crate::keys::Access;
use crate::keys::holder::Profile;
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

#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Write a folder with signed orders, metadata and payloads for the devices of a rollout, to be
    /// carried to them.
    Create {
        /// The rollout.
        rollout: String,
        /// Select some of its devices, for example `region=plant-7`.
        #[arg(long, default_value = "")]
        select: String,
        /// Validity in days, 1 to 60.
        #[arg(long, default_value_t = 30)]
        days: u16,
        /// The folder to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Import reports that were carried back.
    Import {
        /// Files written by `tidegate-agent apply` or `export`.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeltaCommand {
    /// Make a delta between two files.
    Diff {
        /// The file that the other side already has.
        old: PathBuf,
        /// The file that it should get.
        new: PathBuf,
        /// Path of the delta to write.
        delta: PathBuf,
        /// dense (smallest), quick (fastest to apply), bsdiff, or full (needs no old file).
        #[arg(long, default_value = "dense")]
        encoding: Encoding,
        /// Maximum memory for applying the delta, in MiB; from 131 on dense uses large tables.
        #[arg(long, default_value_t = 16, value_name = "MIB", value_parser = clap::value_parser!(u32).range(12..=4096))]
        memory: u32,
        /// Number of encoding threads; defaults to one per core.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
        threads: Option<u16>,
    },
    /// Make the new file from the old one and a delta. An interrupted apply resumes when it is run
    /// again.
    Apply {
        /// The file that the delta starts from.
        old: PathBuf,
        /// The delta.
        delta: PathBuf,
        /// Path of the new file; it appears only when it is complete and verified.
        new: PathBuf,
        /// Maximum memory, in MiB.
        #[arg(long, default_value_t = 16, value_name = "MIB", value_parser = clap::value_parser!(u32).range(2..=4096))]
        memory: u32,
    },
    /// Show the contents of a delta.
    Inspect {
        /// The delta.
        delta: PathBuf,
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
pub(crate) struct DatabaseArgs {
    /// `sqlite:PATH` or `postgres://...`; defaults to SQLite in the data folder.
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
    /// Address to listen on for people and devices.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "127.0.0.1:8420")]
    pub(crate) listen: SocketAddr,
    /// Serve TLS with this certificate chain (PEM); renewed files are picked up automatically.
    #[arg(
        long,
        env = "TIDEGATE_TLS_CERT",
        value_name = "PEM",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(
        long,
        env = "TIDEGATE_TLS_KEY",
        value_name = "PEM",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// Also accept clients that only support TLS 1.2.
    #[arg(long, env = "TIDEGATE_TLS12")]
    pub(crate) tls12: bool,
    /// Address to listen on for Prometheus (/metrics); off by default.
    #[arg(long, env = "TIDEGATE_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Blob store: a folder, or s3://bucket/prefix (credentials from the AWS environment
    /// variables).
    #[arg(long, env = "TIDEGATE_BLOBS", value_name = "PLACE")]
    pub(crate) blobs: Option<String>,
    /// Interval between check-ins of a device.
    #[arg(long, env = "TIDEGATE_POLL", default_value = "60s", value_parser = duration)]
    pub(crate) poll: Duration,
    /// Mirror from which devices may fetch payloads, an address with or without a folder; may be
    /// repeated, best first. Blobs are under /blobs/ there, as here.
    #[arg(
        long = "mirror",
        env = "TIDEGATE_MIRRORS",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub(crate) mirrors: Vec<String>,
    /// Largest artifact that may be uploaded, in MiB.
    #[arg(long, default_value_t = 8_192, value_name = "MIB")]
    pub(crate) max_upload: u64,
    /// Maximum number of concurrent requests, held check-ins included; beyond it the answer is 429.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub(crate) max_requests: usize,
    /// Time over which held check-ins are answered when the plan changes and many are held.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) wake_ramp: Duration,
    /// Maximum memory of one delta build, in MiB; larger images get no delta, and archives with
    /// larger members are compared while packed.
    #[arg(long, default_value_t = 2_048, value_name = "MIB")]
    pub(crate) delta_memory: u64,
    /// Number of threads of a delta build; the other cores are left to serve devices.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) delta_threads: u16,
    /// Log format: text or JSON. RUST_LOG selects what is logged.
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Exit when standard input is closed, for a parent process that may die.
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
    /// The server to ask; defaults to the one that listens on this machine, as `serve` would with
    /// the same environment.
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Address that the server listens on.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "127.0.0.1:8420")]
    pub(crate) listen: SocketAddr,
    /// Certificate with which the server serves TLS, if it does.
    #[arg(long, env = "TIDEGATE_TLS_CERT", value_name = "PEM")]
    pub(crate) tls_cert: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Number of devices, spread over three regions.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(3..=200))]
    pub(crate) devices: u32,
    /// Your own files or folders instead of the made-up application: the old one, the new one, and
    /// optionally the one after it.
    #[arg(long, num_args = 2..=3, value_names = ["OLD", "NEW", "NEXT"])]
    pub(crate) payload: Option<Vec<PathBuf>>,
    /// Exit when done; the exit code is 0 only if every device ended where it should.
    #[arg(long)]
    pub(crate) exit: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Address of the control plane.
    pub(crate) server: String,
    /// File with the token, for example tidegate-data/admin.token.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token; its secret is shown once.
    Create {
        /// Name of its owner.
        name: String,
        /// Role: viewer, responder, release_manager or admin.
        #[arg(long)]
        role: String,
        /// Validity; unlimited by default.
        #[arg(long, value_parser = duration)]
        valid: Option<Duration>,
    },
    /// List the tokens that are not revoked.
    List,
    /// Revoke a token.
    Revoke {
        /// Its id.
        id: String,
    },
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

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Keep the Ed25519 key in a PKCS#11 token; path of its library, for example
    /// /usr/lib/softhsm/libsofthsm2.so.
    #[arg(long, value_name = "LIBRARY", required = false)]
    pub(crate) pkcs11_module: PathBuf,
    /// Label of the token; defaults to the holder's name.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub(crate) token_label: Option<String>,
    /// File with the token's PIN; you are asked by default.
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pub(crate) pin_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CeremonyArgs {
    #[command(flatten)]
    pub(crate) dir: KeysDir,
    #[command(flatten)]
    pub(crate) new: NewKeys,
    /// A holder of root and targets; repeat for each one, usually three.
    #[arg(long, value_name = "NAME")]
    pub(crate) holder: Vec<String>,
    /// Number of them who must sign; more than half by default (2 of 3).
    #[arg(long, value_name = "PEOPLE")]
    pub(crate) threshold: Option<u32>,
    /// A product whose channels are delegated right away; may be repeated.
    #[arg(long)]
    pub(crate) product: Vec<String>,
    /// A holder of the stable channels; defaults to the holders of root.
    #[arg(long, value_name = "NAME")]
    pub(crate) release_holder: Vec<String>,
    /// Number of them who must sign for stable; 2 by default.
    #[arg(long, value_name = "PEOPLE")]
    pub(crate) stable_threshold: Option<u32>,
    /// Holder who alone signs the alpha and beta channels; defaults to the first release holder.
    #[arg(long, value_name = "NAME")]
    pub(crate) canary_holder: Option<String>,
    /// Create the missing holders' keys on this machine.
    #[arg(long)]
    pub(crate) here: bool,
    /// The server's public keys from `keys online --export`, for a machine without a network.
    #[arg(long, value_name = "FILE")]
    pub(crate) online: Option<PathBuf>,
    /// Algorithms of new keys.
    #[arg(long, default_value = "hybrid")]
    pub(crate) profile: Profile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Create every key for one person, sign root and targets, and give the public parts to the
    /// server. For trying out.
    Init {
        #[command(flatten)]
        dir: KeysDir,
        #[command(flatten)]
        new: NewKeys,
        /// Also create the roles of a product; may be repeated.
        #[arg(long)]
        product: Vec<String>,
        /// Algorithms that the keys are for.
        #[arg(long, default_value = "hybrid")]
        profile: Profile,
    },
    /// Create the first root with several people, step by step; run it again to continue.
    Ceremony(Box<CeremonyArgs>),
    /// Create a person's keys.
    New {
        /// Name by which the others know you.
        name: String,
        #[command(flatten)]
        dir: KeysDir,
        #[command(flatten)]
        new: NewKeys,
        /// Algorithms that the keys are for.
        #[arg(long, default_value = "hybrid")]
        profile: Profile,
        #[command(flatten)]
        token: Option<TokenArgs>,
    },
    /// Let people sign a role: root, targets, or one such as `desk-stable`.
    Add {
        /// The role.
        role: String,
        /// Their public key files, or names of holders in the keys folder.
        #[arg(required = true)]
        holders: Vec<PathBuf>,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Set the number of people who must sign a role.
    Threshold {
        /// The role.
        role: String,
        /// Number of people.
        people: u32,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Replace one person's keys with another's.
    Rotate {
        /// The role.
        role: String,
        /// The holder who goes.
        old: String,
        /// Public key file of the new holder, or their name in the keys folder.
        new: PathBuf,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Remove a person from the holders of a role.
    Remove {
        /// The role.
        role: String,
        /// The holder who goes.
        name: String,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Write the server's online keys into the drafts of root and targets, also after a theft.
    Online {
        #[command(flatten)]
        dir: KeysDir,
        /// Only export them to a file, for a machine without a network.
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
        /// Import them from such a file.
        #[arg(long, value_name = "FILE", conflicts_with = "export")]
        import: Option<PathBuf>,
        /// Have the server make new online keys first, for example after it was stolen; takes the
        /// reason.
        #[arg(long, value_name = "REASON", conflicts_with = "import")]
        rotate: Option<String>,
    },
    /// Show and sign waiting drafts: those of the folder, or files that others sent.
    Sign {
        /// Files that others sent.
        files: Vec<PathBuf>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Merge the signatures of files that others have signed.
    Merge {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Show a role and sign it again unchanged, with a later expiry.
    Renew {
        /// The role.
        role: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Delete a draft.
    Drop {
        /// The role.
        role: String,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Upload what the server does not have yet: files in force, and drafts.
    Push {
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Download what others have signed, drafts included.
    Fetch {
        #[command(flatten)]
        dir: KeysDir,
        /// SHA-256 of the first root, for a folder that has none yet. Do not take it from the
        /// server.
        #[arg(long, value_name = "SHA256")]
        root: Option<String>,
    },
    /// Show who may sign what, which drafts wait and which keys are here; or the contents of a
    /// file.
    Show {
        /// A file to show.
        file: Option<PathBuf>,
        #[command(flatten)]
        dir: KeysDir,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// Pack, sign and upload a file or a folder as a release for one platform.
    Publish(PublishArgs),
    /// Promote a release to its next stage, and sign it for the channels that take that stage.
    Promote {
        /// The product.
        product: String,
        /// The release.
        release: String,
        /// New stage: alpha, beta, ga or eol.
        #[arg(long)]
        to: String,
        /// Reason; required when a stage is skipped.
        #[arg(long)]
        reason: Option<String>,
        /// Only say what would be.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Add your signature to a waiting draft: a release on its way to a channel that needs several
    /// people. Shows it first; the last signature promotes the release.
    Sign {
        /// The product.
        product: String,
        /// The release; every draft of the product by default.
        release: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Sign a policy on what devices may install at all: the lowest release, releases at the end of
    /// their life, a notice to people. The server cannot override it.
    Policy {
        /// The product.
        product: String,
        /// The channel; all by default.
        #[arg(long)]
        channel: Option<String>,
        /// No release below this one is installed any more.
        #[arg(long, value_name = "VERSION")]
        min_release: Option<String>,
        /// A release that may no longer be installed; may be repeated.
        #[arg(long, value_name = "VERSION")]
        eol: Vec<String>,
        /// A release that may be installed again; may be repeated.
        #[arg(long, value_name = "VERSION")]
        not_eol: Vec<String>,
        /// A notice to people.
        #[arg(long)]
        notice: Option<String>,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Withdraw a release for good: it is never offered again.
    Withdraw {
        /// The product.
        product: String,
        /// The release.
        release: String,
        /// Reason, shown to others.
        #[arg(long)]
        reason: String,
    },
    /// Announce a release's end of life: after that date it is no longer offered, and the version
    /// gate turns its clients away.
    Eol {
        /// The product.
        product: String,
        /// The release.
        release: String,
        /// Date, for example 2026-12-31T00:00:00Z.
        #[arg(long)]
        date: String,
        /// Notice to its users.
        #[arg(long, default_value = "")]
        notice: String,
        /// Only say what would be.
        #[arg(long)]
        dry_run: bool,
    },
    /// List a product's releases, or all products if none is given.
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
    /// Show the payloads of a release: full ones and deltas, including those being built.
    Delta {
        /// The product.
        product: String,
        /// The release.
        release: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// File or folder to publish.
    pub(crate) path: PathBuf,
    /// The product; created if it does not exist.
    #[arg(long)]
    pub(crate) product: String,
    /// The release's semantic version.
    #[arg(long)]
    pub(crate) release: String,
    /// Platform; defaults to this machine's.
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Release notes.
    #[arg(long, default_value = "")]
    pub(crate) notes: String,
    /// Oldest release over which it may be installed.
    #[arg(long, value_name = "VERSION")]
    pub(crate) min_from: Option<String>,
    /// Oldest agent that can install it.
    #[arg(long, value_name = "VERSION")]
    pub(crate) min_agent: Option<String>,
    /// Do not let devices skip it on the way to later releases.
    #[arg(long)]
    pub(crate) stepping_stone: bool,
    /// Do not let devices be rolled back from it to an older release.
    #[arg(long)]
    pub(crate) no_rollback: bool,
    /// Artifact format: tar for a folder (or file) that devices unpack, raw for a single file as it
    /// is (an executable, a disk image, a firmware bundle).
    #[arg(long, value_enum, default_value = "tar")]
    pub(crate) format: ArtifactFormat,
    /// Signed health check that devices run in the unpacked folder (split at spaces).
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// Timeout of the health check.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) health_timeout: Duration,
    #[command(flatten)]
    pub(crate) dir: KeysDir,
}

/// Form in which an artifact's bytes are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArtifactFormat {
    Tar,
    Raw,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Create and start a rollout, or start a draft by its id.
    Start(Box<StartArgs>),
    /// List rollouts, newest first.
    List {
        /// Only of this product.
        #[arg(long)]
        product: Option<String>,
    },
    /// Show a rollout: waves, counts, and why nothing more happens.
    Get {
        /// Its id.
        id: String,
        /// Follow it until it ends.
        #[arg(long)]
        watch: bool,
        /// Exit with 3 unless it completed.
        #[arg(long)]
        exit_status: bool,
        /// Stop following after this time, with exit code 6.
        #[arg(long, value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Pause a rollout; updates under way continue.
    Pause(OrderArgs),
    /// Resume a paused or halted rollout.
    Resume(OrderArgs),
    /// Halt a rollout at once; devices that have not switched are cancelled.
    Halt(OrderArgs),
    /// Cancel a rollout; devices stay where they are.
    Cancel(OrderArgs),
    /// Release the next wave of a rollout whose waves wait for a person.
    Advance {
        /// Its id.
        id: String,
    },
    /// Change the rules of a rollout; options not given stay as they are. Widening may need
    /// approvals.
    Edit(Box<EditArgs>),
    /// Approve a waiting change. Nobody can approve their own.
    Approve {
        /// Its id.
        id: String,
        /// Hash of the plan that you looked at, as `rollout get` shows it.
        #[arg(long)]
        plan: String,
    },
    /// Explain a rollout: what it waits for, which devices are blocked, what failed.
    Why {
        /// Its id.
        id: String,
    },
    /// List the presets.
    Presets,
    /// List the devices of a rollout.
    Deployments {
        /// Its id.
        id: String,
        /// Only in this state.
        #[arg(long)]
        state: Option<String>,
    },
    /// List the events of a rollout.
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
    /// Regions, one wave each, in this order.
    #[arg(long, value_delimiter = ',', conflicts_with = "wave")]
    pub(crate) regions: Vec<String>,
    /// Split each region into batches of this size: 20% or 5000.
    #[arg(long, requires = "regions", value_name = "SIZE")]
    pub(crate) batch: Option<String>,
    /// A wave: SELECTOR or SELECTOR@SIZE, like region=NA,canary=true@20%; may be repeated.
    #[arg(long, value_name = "WAVE")]
    pub(crate) wave: Vec<String>,
    /// A preset instead of waves: canary-20, regional-batches, exponential, all-at-once. With
    /// --regions in order, and --batch for the size of batches.
    #[arg(long, conflicts_with = "wave")]
    pub(crate) preset: Option<String>,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Rollback window: time in which a device can go back without a download.
    #[arg(long, default_value = "30m", value_parser = duration)]
    pub(crate) rollback_window: Duration,
    /// Maximum attempts per device, for any reason.
    #[arg(long, default_value_t = 10)]
    pub(crate) max_attempts: u32,
    /// Time a device may be silent before its deployment times out.
    #[arg(long, default_value = "1d", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Start at this time instead of now: 2026-12-01T18:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Only create the draft.
    #[arg(long)]
    pub(crate) draft: bool,
    /// Only show what it would be.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Follow it until it ends.
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Pace and stopping rules of a rollout.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pace and gate")]
pub(crate) struct PolicyArgs {
    /// Percent of finished devices that may fail; 2 by default.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) max_failure: Option<String>,
    /// Minimum number of failures before anything is concluded; 2 by default.
    #[arg(long, value_name = "N")]
    pub(crate) min_failures: Option<u64>,
    /// Percent of finished devices that must be healthy when a wave ends; 90 by default, less
    /// where --max-failure allows more.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) min_success: Option<String>,
    /// Minimum number of finished devices before a wave may pass; 1 by default.
    #[arg(long, value_name = "N")]
    pub(crate) min_sample: Option<u64>,
    /// Percent of devices that may be silent after the update; 10 by default, 100 to switch the
    /// test off.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) max_silent: Option<String>,
    /// Time without contact after the update until a device counts as silent; three usual check-ins
    /// by default, at least 4m.
    #[arg(long, value_parser = duration)]
    pub(crate) silent_after: Option<Duration>,
    /// Also compare devices on the new release with those on the old one, to find slow leaks.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) compare: Option<bool>,
    /// Soak time of each wave; 10m by default.
    #[arg(long, value_parser = duration)]
    pub(crate) soak: Option<Duration>,
    /// Action on a breach: halt, or halt_and_roll_back.
    #[arg(long)]
    pub(crate) on_breach: Option<String>,
    /// Pace: evidence (in flight at most the start or twice the healthy devices so far),
    /// exponential, or at_once.
    #[arg(long)]
    pub(crate) pace: Option<String>,
    /// Devices in flight at first; 8 by default. 0: all at once.
    #[arg(long, value_name = "N")]
    pub(crate) pace_start: Option<u64>,
    /// Exponential: growth factor per step, in percent; 200 by default.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) pace_factor: Option<u32>,
    /// Exponential: interval between steps; 30m by default.
    #[arg(long, value_parser = duration)]
    pub(crate) pace_every: Option<Duration>,
    /// Maximum number of devices in flight; 0 for no limit.
    #[arg(long, value_name = "N")]
    pub(crate) max_in_flight: Option<u64>,
    /// Maximum number of devices exposed per minute; 0 for no limit.
    #[arg(long, value_name = "N")]
    pub(crate) per_minute: Option<u64>,
    /// Maintenance window: "Mon-Fri 18:00-06:00 America/New_York", or REGION="..." for one region;
    /// may be repeated. Empty for none: always open.
    #[arg(long, value_name = "WINDOW")]
    pub(crate) window: Vec<String>,
    /// Deadline: 2026-12-03T18:00:00Z, or 48h from now; empty for none.
    #[arg(long, value_name = "TIME")]
    pub(crate) deadline: Option<String>,
    /// Longest time a device may wait for its battery to charge; 1d by default.
    #[arg(long, value_parser = duration)]
    pub(crate) battery_wait: Option<Duration>,
    /// Policy for metered links: allow, deltas_only, never.
    #[arg(long)]
    pub(crate) metered: Option<String>,
    /// Make each wave after the first wait for `rollout advance`.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) by_hand: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// The rollout's id.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Reason.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Only show what it would be.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// The rollout's id.
    pub(crate) id: String,
    /// Reason, shown to others.
    #[arg(long)]
    pub(crate) reason: String,
    /// Only show what it would do.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// Id of a rollout, or PRODUCT@RELEASE for every rollout of a release.
    pub(crate) what: String,
    /// Reason, shown to others.
    #[arg(long)]
    pub(crate) reason: String,
    /// Roll back only these devices, for example model=x2,region=EU; the rollout is halted for all.
    #[arg(long, default_value = "")]
    pub(crate) selector: String,
    /// Only show what it would do.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Follow it until the last device is back.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IncidentCommand {
    /// List incidents, newest first.
    List,
    /// Show the blast-radius sheet of an incident.
    Show {
        /// Its id.
        id: String,
        /// Count down until it is over.
        #[arg(long)]
        watch: bool,
    },
    /// Extend the rollback window of devices that are inside it.
    ExtendWindow {
        /// An incident's or a rollout's id.
        id: String,
        /// Extension.
        #[arg(long, value_parser = duration)]
        by: Duration,
        /// Reason, shown to others.
        #[arg(long)]
        reason: String,
    },
    /// Keep the previous version on devices in their rollback window until this is undone.
    FreezePruning {
        /// An incident's or a rollout's id.
        id: String,
        /// Unfreeze.
        #[arg(long)]
        off: bool,
        /// Reason, shown to others.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Hold devices back from a release.
    Create {
        /// The product.
        product: String,
        /// The release; every release of the product by default.
        #[arg(long)]
        release: Option<String>,
        /// Devices to hold, for example model=x2,region=EU; all by default.
        #[arg(long, default_value = "")]
        selector: String,
        /// Reason, shown to anyone who asks.
        #[arg(long)]
        reason: String,
        /// Link to further reading.
        #[arg(long, default_value = "")]
        link: String,
        /// Only show the number of devices affected.
        #[arg(long)]
        dry_run: bool,
    },
    /// List the holds in force.
    List,
    /// Lift a hold: its devices may get the release again.
    Lift {
        /// Its id.
        id: String,
        /// Reason, shown to others.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProductCommand {
    /// Show the settings of a product.
    Show {
        /// The product.
        product: String,
    },
    /// Change the settings of a product; options not given stay as they are.
    Set {
        /// The product.
        product: String,
        /// Oldest supported version, below which the version gate turns clients away; empty for
        /// none.
        #[arg(long, value_name = "VERSION")]
        min_version: Option<String>,
        /// Oldest TLS version for clients, for example TLSv1.2; empty for any.
        #[arg(long, value_name = "TLS")]
        min_tls: Option<String>,
        /// A capability that clients must have; may be repeated; a single empty one for none.
        #[arg(long, value_name = "NAME")]
        capability: Vec<String>,
        /// Address of the upgrade instructions for people.
        #[arg(long, value_name = "URL")]
        upgrade_url: Option<String>,
        /// Number of other people who must approve a widening change.
        #[arg(long, value_name = "N")]
        approvals: Option<u32>,
        /// Chunk size of new deltas, 64 to 1024: small ones suit bad links.
        #[arg(long, value_name = "KIB")]
        delta_chunk: Option<u32>,
        /// Chunk size of new full payloads, 64 to 10240.
        #[arg(long, value_name = "KIB")]
        full_chunk: Option<u32>,
    },
}

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

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// List devices.
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
    /// Explain a device's state: the whole chain of its decision.
    Why {
        /// Its id or name.
        device: String,
    },
    /// Create a join token for devices to enroll with; it is shown once.
    JoinToken {
        /// Product of the devices that join.
        #[arg(long)]
        product: String,
        /// Their region, if the token should fix it.
        #[arg(long)]
        region: Option<String>,
        /// Their channel, if the token should fix it.
        #[arg(long)]
        channel: Option<String>,
        /// A label to give them, KEY=VALUE; may be repeated.
        #[arg(long)]
        label: Vec<String>,
        /// Number of devices that may join.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// Validity of the token.
        #[arg(long, default_value = "1d", value_parser = duration)]
        valid: Duration,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Revoke a device from its next request on.
    Revoke {
        /// Its id or name.
        device: String,
        /// Reason, shown to others.
        #[arg(long)]
        reason: String,
    },
    /// Isolate a device whose identity is in doubt: it gets nothing but the way back, until it is
    /// readmitted.
    Isolate {
        /// Its id or name.
        device: String,
        /// Reason, shown to others.
        #[arg(long)]
        reason: String,
    },
    /// Ask a device to make a new key at its next check-in.
    NewKey {
        /// Its id or name.
        device: String,
        /// Reason, shown to others.
        #[arg(long)]
        reason: String,
    },
    /// Readmit a revoked or isolated device.
    Readmit {
        /// Its id or name.
        device: String,
        /// Reason, shown to others.
        #[arg(long)]
        reason: String,
    },
    /// Allow a device to install a release again that it rolled back from.
    LiftQuarantine {
        /// Its id or name.
        device: String,
        /// The release.
        release: String,
        /// Reason, shown to others.
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

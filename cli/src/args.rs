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
    /// The server's certificate authority (PEM); the machine's by default.
    #[arg(long, global = true, env = "TIDEGATE_CA_FILE", value_name = "PEM")]
    pub(crate) ca_file: Option<PathBuf>,
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
    /// Devices without a network: carry orders to them, and their reports back.
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Send devices back: of one rollout, or of every rollout of a release. Needs no approval.
    Rollback(RollbackArgs),
    /// Incidents: see who is back, keep previous versions longer.
    #[command(subcommand)]
    Incident(IncidentCommand),
    /// Holds: keep some devices from a release while the rest goes on.
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Products: the oldest supported version, what clients must be able to do, approvals.
    #[command(subcommand)]
    Product(ProductCommand),
    /// Run a rollout over a simulated fleet in simulated time.
    Simulate(SimulateArgs),
    /// Devices: look, ask why, let join.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Deltas of files, without a server: make, apply, look.
    #[command(subcommand)]
    Delta(DeltaCommand),
    /// Say what needs attention: files near their expiry, keys in the clear, drafts that wait,
    /// devices that refuse.
    Doctor {
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Write a folder with signed orders, metadata and payloads for devices of a rollout, to be
    /// carried to them.
    Create {
        /// The rollout.
        rollout: String,
        /// Which of its devices, like `region=plant-7`.
        #[arg(long, default_value = "")]
        select: String,
        /// For how many days it is good, 1 to 60.
        #[arg(long, default_value_t = 30)]
        days: u16,
        /// The folder.
        #[arg(long)]
        out: PathBuf,
    },
    /// Take reports that were carried back.
    Import {
        /// Files that `tidegate-agent apply` or `export` has written.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeltaCommand {
    /// Make a delta from one file to another.
    Diff {
        /// The file that the other side has.
        old: PathBuf,
        /// The file that it is to get.
        new: PathBuf,
        /// Where the delta goes.
        delta: PathBuf,
        /// dense (smallest), quick (fastest to apply), bsdiff, or full (needs no old file).
        #[arg(long, default_value = "dense")]
        encoding: Encoding,
        /// Most memory that applying may take, in MiB; from 131 on dense uses large tables.
        #[arg(long, default_value_t = 16, value_name = "MIB", value_parser = clap::value_parser!(u32).range(12..=4096))]
        memory: u32,
        /// Threads that code; by default one a core.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
        threads: Option<u16>,
    },
    /// Make the new file from the old one and a delta. An apply that was cut goes on where it
    /// was when it is started again.
    Apply {
        /// The file that the delta starts from.
        old: PathBuf,
        /// The delta.
        delta: PathBuf,
        /// Where the new file goes; it appears only when it is whole and right.
        new: PathBuf,
        /// Most memory that it may take, in MiB.
        #[arg(long, default_value_t = 16, value_name = "MIB", value_parser = clap::value_parser!(u32).range(2..=4096))]
        memory: u32,
    },
    /// Say what is in a delta.
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
    /// Serve TLS with this certificate chain (PEM); renewed files are taken up by themselves.
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
    /// Let clients connect that know only TLS 1.2.
    #[arg(long, env = "TIDEGATE_TLS12")]
    pub(crate) tls12: bool,
    /// Where Prometheus reaches /metrics; nowhere by default.
    #[arg(long, env = "TIDEGATE_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// A folder, or s3://bucket/prefix (credentials from the AWS environment variables).
    #[arg(long, env = "TIDEGATE_BLOBS", value_name = "PLACE")]
    pub(crate) blobs: Option<String>,
    /// How often devices check in.
    #[arg(long, env = "TIDEGATE_POLL", default_value = "60s", value_parser = duration)]
    pub(crate) poll: Duration,
    /// Where else devices may fetch payloads, best first, an address with or without a folder; may be
    /// repeated. Blobs lie there under /blobs/ as here.
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
    /// Most requests at once, held check-ins included; beyond that the answer is 429.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub(crate) max_requests: usize,
    /// Over how long held check-ins are answered when the plan changes and many are held.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) wake_ramp: Duration,
    /// Memory that one delta build may take, in MiB; larger images get no delta, and archives
    /// whose members are larger are compared packed.
    #[arg(long, default_value_t = 2_048, value_name = "MIB")]
    pub(crate) delta_memory: u64,
    /// Threads of a delta build: what is left over serves devices.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) delta_threads: u16,
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
    /// The server to ask; by default the one that listens on this machine, as `serve` would with the
    /// same environment.
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Where it listens.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "127.0.0.1:8420")]
    pub(crate) listen: SocketAddr,
    /// The certificate that it serves TLS with, if it does.
    #[arg(long, env = "TIDEGATE_TLS_CERT", value_name = "PEM")]
    pub(crate) tls_cert: Option<PathBuf>,
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
    /// A file whose first line is the passphrase of the keys; TIDEGATE_KEY_PASSPHRASE holds it
    /// otherwise, or a person is asked.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Sign as this holder only.
    #[arg(long = "as", value_name = "HOLDER")]
    pub(crate) sign_as: Option<String>,
}

impl KeysDir {
    /// The folder, and how its keys are opened.
    pub(crate) fn access(&self) -> Access {
        self.access_new(&NewKeys::default())
    }

    /// The same, where new keys may lie in the clear.
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
    /// Write new private keys in the clear: for machines that sign by themselves, and for trying
    /// out.
    #[arg(long, conflicts_with = "passphrase_file")]
    pub(crate) no_passphrase: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Keep the Ed25519 key in a PKCS#11 token: its library, for example
    /// /usr/lib/softhsm/libsofthsm2.so.
    #[arg(long, value_name = "LIBRARY", required = false)]
    pub(crate) pkcs11_module: PathBuf,
    /// The token's label; the holder's name by default.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub(crate) token_label: Option<String>,
    /// A file with the token's PIN; asked for by default.
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pub(crate) pin_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CeremonyArgs {
    #[command(flatten)]
    pub(crate) dir: KeysDir,
    #[command(flatten)]
    pub(crate) new: NewKeys,
    /// A holder of root and targets; give it once for each, three by default.
    #[arg(long, value_name = "NAME")]
    pub(crate) holder: Vec<String>,
    /// How many of them must sign; more than half by default (2 of 3).
    #[arg(long, value_name = "PEOPLE")]
    pub(crate) threshold: Option<u32>,
    /// A product whose channels are delegated at once; may be repeated.
    #[arg(long)]
    pub(crate) product: Vec<String>,
    /// A holder of the stable channels; the holders of root by default.
    #[arg(long, value_name = "NAME")]
    pub(crate) release_holder: Vec<String>,
    /// How many of them must sign for stable; 2 by default.
    #[arg(long, value_name = "PEOPLE")]
    pub(crate) stable_threshold: Option<u32>,
    /// Who signs the alpha and beta channels alone; the first release holder by default.
    #[arg(long, value_name = "NAME")]
    pub(crate) canary_holder: Option<String>,
    /// Make the keys of holders who are not there yet on this machine.
    #[arg(long)]
    pub(crate) here: bool,
    /// The server's public keys from `keys online --export`, for a machine without a network.
    #[arg(long, value_name = "FILE")]
    pub(crate) online: Option<PathBuf>,
    /// Which algorithms new keys are for.
    #[arg(long, default_value = "hybrid")]
    pub(crate) profile: Profile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// For trying out: make every key for one person, sign root and targets, and hand the public
    /// parts to the server.
    Init {
        #[command(flatten)]
        dir: KeysDir,
        #[command(flatten)]
        new: NewKeys,
        /// Also make the roles of a product; may be repeated.
        #[arg(long)]
        product: Vec<String>,
        /// Which algorithms the keys are for.
        #[arg(long, default_value = "hybrid")]
        profile: Profile,
    },
    /// Make the first root with several people, step by step; run it again to go on.
    Ceremony(Box<CeremonyArgs>),
    /// Make a person's keys.
    New {
        /// How the others call you: a name.
        name: String,
        #[command(flatten)]
        dir: KeysDir,
        #[command(flatten)]
        new: NewKeys,
        /// Which algorithms the keys are for.
        #[arg(long, default_value = "hybrid")]
        profile: Profile,
        #[command(flatten)]
        token: Option<TokenArgs>,
    },
    /// Let people sign a role: root, targets, or one such as `desk-stable`.
    Add {
        /// The role.
        role: String,
        /// Their public key files, or names of holders in the folder.
        #[arg(required = true)]
        holders: Vec<PathBuf>,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Say how many people must sign a role.
    Threshold {
        /// The role.
        role: String,
        /// How many.
        people: u32,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Put one person's keys in the place of another's.
    Rotate {
        /// The role.
        role: String,
        /// The holder who goes.
        old: String,
        /// The public key file of who comes, or a name in the folder.
        new: PathBuf,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Let a person sign a role no more.
    Remove {
        /// The role.
        role: String,
        /// The holder who goes.
        name: String,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Put the server's online keys into the drafts of root and targets; after a theft, too.
    Online {
        #[command(flatten)]
        dir: KeysDir,
        /// Only write them to a file, for a machine without a network.
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
        /// Take them from such a file.
        #[arg(long, value_name = "FILE", conflicts_with = "export")]
        import: Option<PathBuf>,
        /// Let the server make itself new ones first: it may have been stolen. Says why.
        #[arg(long, value_name = "REASON", conflicts_with = "import")]
        rotate: Option<String>,
    },
    /// Sign what waits: the folder's drafts, or files that others sent. Shows it first.
    Sign {
        /// Files that others sent.
        files: Vec<PathBuf>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Take over the signatures of files that others have signed.
    Merge {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Sign a role again as it is, with a later expiry. Shows it first.
    Renew {
        /// The role.
        role: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Throw a draft away.
    Drop {
        /// The role.
        role: String,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Hand to the server what it does not have yet: files in force, and drafts.
    Push {
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Take over from the server what others have signed, drafts included.
    Fetch {
        #[command(flatten)]
        dir: KeysDir,
        /// SHA-256 of the first root, for a folder that has none yet. Not from the server.
        #[arg(long, value_name = "SHA256")]
        root: Option<String>,
    },
    /// Show who may sign what, what waits, and which keys are here; or what a file says.
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
    /// Add your signature to what waits for it: a release on its way to a channel that needs
    /// several people. Shows it first; promotes the release when it was the last one.
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
    /// Sign what devices may install at all: the lowest release, releases at the end of their
    /// life, a word to people. The server cannot contradict it.
    Policy {
        /// The product.
        product: String,
        /// The channel; all by default.
        #[arg(long)]
        channel: Option<String>,
        /// No release below this one is installed any more.
        #[arg(long, value_name = "VERSION")]
        min_release: Option<String>,
        /// A release that is installed no more; may be repeated.
        #[arg(long, value_name = "VERSION")]
        eol: Vec<String>,
        /// A release that may be installed again; may be repeated.
        #[arg(long, value_name = "VERSION")]
        not_eol: Vec<String>,
        /// A word to people.
        #[arg(long)]
        notice: Option<String>,
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
    /// Announce the end of a release's life: from then on it is offered no more, and the version
    /// gate turns its clients away.
    Eol {
        /// The product.
        product: String,
        /// The release.
        release: String,
        /// When: 2026-12-31T00:00:00Z.
        #[arg(long)]
        date: String,
        /// What its users are told.
        #[arg(long, default_value = "")]
        notice: String,
        /// Only say what would be.
        #[arg(long)]
        dry_run: bool,
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
    /// The oldest agent that can install it.
    #[arg(long, value_name = "VERSION")]
    pub(crate) min_agent: Option<String>,
    /// It may not be skipped on the way to later releases.
    #[arg(long)]
    pub(crate) stepping_stone: bool,
    /// Devices may not be sent back from it to an older release.
    #[arg(long)]
    pub(crate) no_rollback: bool,
    /// How the bytes are taken: a folder (or file) as a tar that devices unpack, or a single file
    /// raw, as it is (an executable, a disk image, a firmware bundle).
    #[arg(long, value_enum, default_value = "tar")]
    pub(crate) format: ArtifactFormat,
    /// Signed health check that devices run in the unpacked folder (split at spaces).
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// How long the health check may take.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) health_timeout: Duration,
    #[command(flatten)]
    pub(crate) dir: KeysDir,
}

/// How an artifact's bytes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArtifactFormat {
    Tar,
    Raw,
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
    /// Release the next wave of a rollout whose waves wait for a person.
    Advance {
        /// Its id.
        id: String,
    },
    /// Change the rules of a rollout; what is not named stays. Widening may need approvals.
    Edit(Box<EditArgs>),
    /// Agree to what waits for approvals. Nobody approves their own.
    Approve {
        /// Its id.
        id: String,
        /// The hash of the plan that you looked at, as `rollout get` shows it.
        #[arg(long)]
        plan: String,
    },
    /// Say why a rollout does what it does: what it waits for, who is kept from it, what failed.
    Why {
        /// Its id.
        id: String,
    },
    /// Show the presets.
    Presets,
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
    /// A preset instead of waves: canary-20, regional-batches, exponential, all-at-once. With
    /// --regions in order, and --batch for the size of batches.
    #[arg(long, conflicts_with = "wave")]
    pub(crate) preset: Option<String>,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// How long a device can go back without a download.
    #[arg(long, default_value = "30m", value_parser = duration)]
    pub(crate) rollback_window: Duration,
    /// How often a device may try, whatever the reasons.
    #[arg(long, default_value_t = 10)]
    pub(crate) max_attempts: u32,
    /// How long a device may be silent before its deployment is given up.
    #[arg(long, default_value = "1d", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Start at this time instead of now: 2026-12-01T18:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
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

/// How a rollout goes on and when it stops.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pace and gate")]
pub(crate) struct PolicyArgs {
    /// Percent of finished devices that may fail; 2 by default.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) max_failure: Option<String>,
    /// So many failures before anything is concluded; 2 by default.
    #[arg(long, value_name = "N")]
    pub(crate) min_failures: Option<u64>,
    /// Percent of finished devices that must be healthy when a wave ends; 90 by default, less
    /// where --max-failure allows more.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) min_success: Option<String>,
    /// So many devices must have finished before a wave may pass; 1 by default.
    #[arg(long, value_name = "N")]
    pub(crate) min_sample: Option<u64>,
    /// Percent of devices that may be silent after the update; 10 by default, 100 for no test.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) max_silent: Option<String>,
    /// How long a device may be unheard of after the update before it is silent; three usual
    /// check-ins by default, at least 4m.
    #[arg(long, value_parser = duration)]
    pub(crate) silent_after: Option<Duration>,
    /// Also compare devices on the new release with those on the old one: finds slow leaks.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) compare: Option<bool>,
    /// How long each wave soaks; 10m by default.
    #[arg(long, value_parser = duration)]
    pub(crate) soak: Option<Duration>,
    /// What a breach does: halt, or halt_and_roll_back.
    #[arg(long)]
    pub(crate) on_breach: Option<String>,
    /// evidence (never more in flight than the start or twice the healthy so far), exponential,
    /// or at_once.
    #[arg(long)]
    pub(crate) pace: Option<String>,
    /// Devices in flight at first; 8 by default. 0: all at once.
    #[arg(long, value_name = "N")]
    pub(crate) pace_start: Option<u64>,
    /// Exponential: what the size is multiplied by each time, in percent; 200 by default.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) pace_factor: Option<u32>,
    /// Exponential: how often; 30m by default.
    #[arg(long, value_parser = duration)]
    pub(crate) pace_every: Option<Duration>,
    /// Most devices in flight at the same time; 0 for no limit.
    #[arg(long, value_name = "N")]
    pub(crate) max_in_flight: Option<u64>,
    /// Most devices exposed a minute; 0 for no limit.
    #[arg(long, value_name = "N")]
    pub(crate) per_minute: Option<u64>,
    /// Maintenance window: "Mon-Fri 18:00-06:00 America/New_York"; or REGION="..." for one region;
    /// may be repeated. Empty for always.
    #[arg(long, value_name = "WINDOW")]
    pub(crate) window: Vec<String>,
    /// When it should be finished: 2026-12-03T18:00:00Z, or 48h from now; empty for none.
    #[arg(long, value_name = "TIME")]
    pub(crate) deadline: Option<String>,
    /// How long a device may wait for a better battery; 1d by default.
    #[arg(long, value_parser = duration)]
    pub(crate) battery_wait: Option<Duration>,
    /// What metered links carry: allow, deltas_only, never.
    #[arg(long)]
    pub(crate) metered: Option<String>,
    /// Each wave after the first waits for `rollout advance`.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) by_hand: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// The rollout's id.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Why.
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
    /// Only devices like these, for example model=x2,region=EU; the rollout is halted for all.
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
    /// Show incidents, newest first.
    List,
    /// Show the blast-radius sheet of an incident.
    Show {
        /// Its id.
        id: String,
        /// Count down until it is over.
        #[arg(long)]
        watch: bool,
    },
    /// Let devices in their rollback window keep the previous version longer.
    ExtendWindow {
        /// An incident's or a rollout's id.
        id: String,
        /// How much longer.
        #[arg(long, value_parser = duration)]
        by: Duration,
        /// Why: others will want to know.
        #[arg(long)]
        reason: String,
    },
    /// Let devices in their rollback window keep the previous version until this is undone.
    FreezePruning {
        /// An incident's or a rollout's id.
        id: String,
        /// Undo it.
        #[arg(long)]
        off: bool,
        /// Why: others will want to know.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Keep devices from a release.
    Create {
        /// The product.
        product: String,
        /// The release; every release of the product without it.
        #[arg(long)]
        release: Option<String>,
        /// Which devices, for example model=x2,region=EU.
        #[arg(long, default_value = "")]
        selector: String,
        /// Why: it is shown to whoever asks.
        #[arg(long)]
        reason: String,
        /// Where to read more.
        #[arg(long, default_value = "")]
        link: String,
        /// Only show how many devices it concerns.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the holds in force.
    List,
    /// Lift a hold: its devices may have the release again.
    Lift {
        /// Its id.
        id: String,
        /// Why: others will want to know.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProductCommand {
    /// Show what holds for a product.
    Show {
        /// The product.
        product: String,
    },
    /// Change what holds for a product; what is not named stays.
    Set {
        /// The product.
        product: String,
        /// The oldest supported version: the version gate turns older clients away; empty for none.
        #[arg(long, value_name = "VERSION")]
        min_version: Option<String>,
        /// The oldest TLS that clients may speak, like TLSv1.2; empty for any.
        #[arg(long, value_name = "TLS")]
        min_tls: Option<String>,
        /// What a client must be able to do; may be repeated; one empty one for nothing.
        #[arg(long, value_name = "NAME")]
        capability: Vec<String>,
        /// Where a person finds the way to upgrade.
        #[arg(long, value_name = "URL")]
        upgrade_url: Option<String>,
        /// How many other people must approve what widens a rollout.
        #[arg(long, value_name = "N")]
        approvals: Option<u32>,
        /// Size of the chunks of deltas made from now on, 64 to 1024: small ones for bad links.
        #[arg(long, value_name = "KIB")]
        delta_chunk: Option<u32>,
        /// Size of the chunks of full payloads made from now on, 64 to 10240.
        #[arg(long, value_name = "KIB")]
        full_chunk: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// A scenario file, or the name of one that is built in; none to list those.
    pub(crate) scenario: Option<String>,
    /// Another seed than the scenario's.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Print a built-in scenario instead of running it: a start for your own.
    #[arg(long)]
    pub(crate) print: bool,
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
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Shut a device out from its next request on.
    Revoke {
        /// Its id or name.
        device: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Keep a device from everything but the way back, until it is readmitted: its identity is in
    /// doubt.
    Isolate {
        /// Its id or name.
        device: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Ask a device to make itself a new key; it does so with its next check-in.
    NewKey {
        /// Its id or name.
        device: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Let a revoked or isolated device take part again.
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

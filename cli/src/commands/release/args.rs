//! Arguments of `tidegate release`.

use crate::commands::signing::OwnBuild;
use crate::options::{KeysDir, some_time};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

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
        /// Do not ask whether to sign what is shown. Without a terminal nobody is asked.
        #[arg(long)]
        yes: bool,
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
        /// Own build of what is to be signed, a file or a folder: it is packed and must be the very
        /// image; may be repeated, once for each platform.
        #[arg(long, value_name = "[PLATFORM=]PATH")]
        compare: Vec<OwnBuild>,
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
        /// Do not ask whether to sign what is shown. Without a terminal nobody is asked.
        #[arg(long)]
        yes: bool,
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
    #[command(flatten)]
    pub(crate) carry: Carry,
    /// Signed health check that devices run in the unpacked folder (split at spaces).
    #[arg(long, value_name = "COMMAND", value_parser = command)]
    pub(crate) health_cmd: Option<String>,
    /// Timeout of the health check.
    #[arg(long, default_value = "30s", value_parser = some_time)]
    pub(crate) health_timeout: Duration,
    /// Do not ask whether to sign what is shown. Without a terminal nobody is asked.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) dir: KeysDir,
}

/// Losses that are accepted in a published folder.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Carry {
    /// Make files that others may not read readable by everybody on devices, for software that does
    /// not run as the agent's user.
    #[arg(long)]
    pub(crate) allow_public: bool,
    /// Publish without what an artifact does not carry: setuid, setgid and sticky bits, extended
    /// attributes (file capabilities among them), hard links.
    #[arg(long)]
    pub(crate) drop_attributes: bool,
    /// Publish paths of more than 259 characters for Windows, for software that can open them.
    #[arg(long)]
    pub(crate) allow_long_paths: bool,
}

/// Form in which an artifact's bytes are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArtifactFormat {
    Tar,
    Raw,
}

/// Takes a command that names a program at least.
fn command(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("names no program; leave the option out for no health check".into());
    }
    Ok(text.to_owned())
}

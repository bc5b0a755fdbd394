//! Arguments of `tidegate rollout` and `tidegate rollback`.

use crate::commands::rules::PolicyArgs;
use crate::options::duration;
use clap::{Args, Subcommand};
use std::time::Duration;

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
        /// Exit with 0 only if it completed on every device: 3, 7, 8 or 9 says how else it stands.
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
    /// Number of devices that may be updated though they could not be ordered back, as --dry-run counts
    /// them.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) accept_no_way_back: Option<u64>,
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
    /// Stop following after this time, with exit code 6; the rollback goes on.
    #[arg(long, value_parser = duration, requires = "watch")]
    pub(crate) timeout: Option<Duration>,
}

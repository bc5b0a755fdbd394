//! Arguments of `tidegate incident`, `tidegate hold` and `tidegate product`.

use crate::options::duration;
use clap::Subcommand;
use std::time::Duration;

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
        /// Stop following after this time, with exit code 6; the rollback goes on.
        #[arg(long, value_parser = duration, requires = "watch")]
        timeout: Option<Duration>,
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
        /// Number of other people who must approve a widening change. A lower number waits for as
        /// many approvals as were needed so far.
        #[arg(long, value_name = "N")]
        approvals: Option<u32>,
        /// Chunk size of new deltas, 64 to 1024: small ones suit bad links.
        #[arg(long, value_name = "KIB")]
        delta_chunk: Option<u32>,
        /// Chunk size of new full payloads, 64 to 10240.
        #[arg(long, value_name = "KIB")]
        full_chunk: Option<u32>,
    },
    /// Approve settings that need fewer approvals, which somebody else has asked for.
    Approve {
        /// The product.
        product: String,
        /// Hash of the plan, as `product show` prints it.
        #[arg(long, value_name = "HASH")]
        plan: String,
    },
}

//! `device`.

use clap::Subcommand;
use tidegate_api::{DeviceView, LiftBody, ReasonBody, WhyView};

use super::Context;
use super::device_show::{change, describe, find};
use super::joining::{self, JoiningCommand};
use crate::api::with_query;
use crate::error::CliError;
use crate::output::{show, table};

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
    #[command(flatten)]
    Joining(JoiningCommand),
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

/// Runs a `device` command.
pub(crate) async fn run(context: &Context, command: DeviceCommand) -> Result<(), CliError> {
    let api = context.api()?;
    match command {
        DeviceCommand::List { product, region } => {
            let pairs = [("product", product), ("region", region)];
            let path = with_query("/api/v1/devices", &pairs)?;
            let list: Vec<DeviceView> = api.all(&path).await?;
            show(context.format, &list, |list| {
                table(HEAD, list.iter().map(row).collect())
            })
        }
        DeviceCommand::Show { device } => {
            let device = find(&api, &device).await?;
            show(context.format, &device, describe)
        }
        DeviceCommand::Why { device } => {
            let id = find(&api, &device).await?.id;
            let why: WhyView = api.get(&format!("/api/v1/devices/{id}/why")).await?;
            show(context.format, &why, |why| {
                let rows = why.steps.iter().map(|s| {
                    let verdict = if s.passed { "passes" } else { "stops" };
                    [
                        s.rollout.clone().unwrap_or_else(|| "-".into()),
                        s.check.clone(),
                        verdict.into(),
                        s.found.clone(),
                    ]
                });
                let chain = table(["ROLLOUT", "CHECK", "", "FOUND"], rows.collect());
                format!(
                    "{}\nsee docs/reference/{}\n\n{chain}",
                    why.reason.text,
                    why.reason.knowledge_key.replace('#', ".md#")
                )
            })
        }
        DeviceCommand::Joining(command) => joining::run(context, &api, command).await,
        DeviceCommand::Revoke { device, reason } => {
            change(context, &api, &device, "revoke", &ReasonBody { reason }).await
        }
        DeviceCommand::Isolate { device, reason } => {
            change(context, &api, &device, "isolate", &ReasonBody { reason }).await
        }
        DeviceCommand::NewKey { device, reason } => {
            change(context, &api, &device, "new-key", &ReasonBody { reason }).await
        }
        DeviceCommand::Readmit { device, reason } => {
            change(context, &api, &device, "readmit", &ReasonBody { reason }).await
        }
        DeviceCommand::LiftQuarantine {
            device,
            release,
            reason,
        } => {
            let body = LiftBody {
                version: release,
                reason,
            };
            change(context, &api, &device, "lift-quarantine", &body).await
        }
    }
}

const HEAD: [&str; 8] = [
    "ID", "NAME", "REGION", "RUNS", "STATE", "BATTERY", "ONLINE", "WHY",
];

fn row(d: &DeviceView) -> [String; 8] {
    [
        d.id.clone(),
        d.name.clone(),
        d.region.clone(),
        d.release.clone().unwrap_or_else(|| "-".into()),
        d.state.clone().unwrap_or_else(|| "-".into()),
        d.battery_percent
            .map_or_else(|| "-".into(), |p| format!("{p} %")),
        if d.online { "yes" } else { "no" }.into(),
        d.reason.text.clone(),
    ]
}

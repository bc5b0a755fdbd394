//! `device`.

use std::collections::BTreeMap;

use clap::Subcommand;
use tidegate_protocol::{DeviceId, Label};

use tidegate_api::{DeviceView, JoinTokenBody, JoinTokenView, LiftBody, ReasonBody, WhyView};
use tidegate_trust::JoinToken;

use super::Context;
use crate::api::{Api, with_query};
use crate::error::{CliError, parse};
use crate::keys::{Access, Offline};
use crate::options::{KeysDir, some_time};
use crate::output::{show, table};
use std::time::Duration;

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
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// Validity of the token.
        #[arg(long, default_value = "1d", value_parser = some_time)]
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
        DeviceCommand::JoinToken {
            product,
            region,
            channel,
            label,
            uses,
            valid,
            dir,
        } => {
            let mut labels = BTreeMap::new();
            for text in label {
                let label: Label = parse(&text)?;
                labels.insert(label.key, label.value);
            }
            let body = JoinTokenBody {
                product,
                region,
                channel,
                labels,
                uses: Some(uses),
                valid_s: Some(valid.as_secs()),
            };
            let token: JoinTokenView = api.post("/api/v1/join-tokens", &body).await?;
            check_root(&api, &dir.access(), &token.token).await?;
            show(context.format, &token, |t| t.token.clone())
        }
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

/// Checks the root that a join token pins, since new devices will trust it. If the keys folder has
/// a root of trust, a server that pins another one is caught before the token is handed to anybody.
async fn check_root(api: &Api, access: &Access, token: &str) -> Result<(), CliError> {
    let token: JoinToken = token
        .parse()
        .map_err(|e: tidegate_trust::JoinTokenError| CliError::Failed(e.to_string()))?;
    let mut offline = Offline::open_any(access)?;
    if offline.repository().root().is_none() {
        return Ok(());
    }
    offline.pull(api).await?;
    let ours = offline
        .repository()
        .root()
        .map(|(_, root)| tidegate_delta::sha256(root));
    if ours == Some(token.root) {
        return Ok(());
    }
    Err(CliError::Hinted(
        "the server pins a different root of trust than your keys folder: devices would \
         trust somebody else's keys. The token is withheld"
            .into(),
        "see docs/how-to/recovery.md: the server may be stolen. If the folder belongs to another server, \
         pass an empty one with --keys"
            .into(),
    ))
}

async fn change(
    context: &Context,
    api: &Api,
    device: &str,
    what: &str,
    body: &impl serde::Serialize,
) -> Result<(), CliError> {
    let id = find(api, device).await?.id;
    let device: DeviceView = api
        .post(&format!("/api/v1/devices/{id}/{what}"), body)
        .await?;
    show(context.format, &device, describe)
}

/// Finds a device by id or, if it is unique, by name.
async fn find(api: &Api, text: &str) -> Result<DeviceView, CliError> {
    if text.parse::<DeviceId>().is_ok() {
        return api.get(&format!("/api/v1/devices/{text}")).await;
    }
    let named: Vec<DeviceView> = api
        .all::<DeviceView>("/api/v1/devices")
        .await?
        .into_iter()
        .filter(|d| d.name == text)
        .collect();
    match <[DeviceView; 1]>::try_from(named) {
        Ok([device]) => Ok(device),
        Err(none) if none.is_empty() => Err(CliError::Hinted(
            format!("no such device: {text}"),
            "tidegate device list shows them".into(),
        )),
        Err(several) => {
            let ids: Vec<&str> = several.iter().map(|d| d.id.as_str()).collect();
            Err(CliError::Hinted(
                format!("{} devices have the name {text}", several.len()),
                format!("use an id: {}", ids.join(", ")),
            ))
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

fn describe(d: &DeviceView) -> String {
    let labels: Vec<String> = d.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let lines = [
        ("id", d.id.clone()),
        ("name", d.name.clone()),
        (
            "product",
            format!("{}, channel {}, {}", d.product, d.channel, d.platform),
        ),
        ("region", d.region.clone()),
        ("labels", labels.join(", ")),
        (
            "active",
            if d.active {
                "yes".into()
            } else {
                "no: revoked".into()
            },
        ),
        (
            "isolated",
            d.isolated.clone().unwrap_or_else(|| "no".into()),
        ),
        (
            "refused",
            d.refused
                .as_ref()
                .map_or_else(|| "nothing".into(), |r| r.text.clone()),
        ),
        (
            "runs",
            d.release.clone().unwrap_or_else(|| "nothing".into()),
        ),
        ("state", d.state.clone().unwrap_or_else(|| "idle".into())),
        (
            "window",
            d.rollback_window_left_s
                .map_or_else(|| "-".into(), |s| format!("{s} s left")),
        ),
        ("kept from", d.quarantine.join(", ")),
        (
            "battery",
            d.battery_percent
                .map_or_else(|| "-".into(), |p| format!("{p} %, {}", d.power)),
        ),
        ("agent", d.agent_version.clone()),
        (
            "last seen",
            format!(
                "{} ({})",
                d.last_seen,
                if d.online { "online" } else { "offline" }
            ),
        ),
        ("why", d.reason.text.clone()),
    ];
    let lines: Vec<String> = lines
        .iter()
        .map(|(name, value)| format!("{name:10} {value}"))
        .collect();
    lines.join("\n")
}

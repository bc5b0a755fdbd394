//! `device join-token` and its like: who may join.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Subcommand;
use tidegate_api::{
    AcceptBody, DeviceView, JoinTokenBody, JoinTokenItem, JoinTokenView, ReasonBody,
    RevokeJoinTokensBody, RevokedView,
};
use tidegate_protocol::Label;
use tidegate_trust::JoinToken;

use super::Context;
use super::device_show::change;
use crate::api::{Api, with_query};
use crate::error::{CliError, parse};
use crate::keys::{Access, Offline};
use crate::options::{KeysDir, some_time};
use crate::output::{show, table};

#[derive(Debug, Subcommand)]
pub(crate) enum JoiningCommand {
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
        /// Number of devices that may join; 1 by default, or the number of keys.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        uses: Option<u32>,
        /// Validity of the token.
        #[arg(long, default_value = "1d", value_parser = some_time)]
        valid: Duration,
        /// Let each device that joins wait until it is accepted: `device waiting`, `device accept`.
        #[arg(long)]
        approve: bool,
        /// Fingerprint of a key that may join, and no other; may be repeated. The device prints it:
        /// `tidegate-agent fingerprint`.
        #[arg(long, value_name = "SHA256")]
        key: Vec<String>,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// List the join tokens with which a device can join now.
    JoinTokens {
        /// Only of this product.
        #[arg(long)]
        product: Option<String>,
    },
    /// Revoke a join token, or all of them. Devices that have joined stay.
    RevokeJoinToken {
        /// Its id, as `device join-tokens` shows it.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// Every token that can be used.
        #[arg(long)]
        all: bool,
        /// With --all: only tokens of this product.
        #[arg(long, requires = "all")]
        product: Option<String>,
        /// Reason, shown to others.
        #[arg(long)]
        reason: String,
    },
    /// List the devices that have joined and wait to be accepted.
    Waiting {
        /// Only of this product.
        #[arg(long)]
        product: Option<String>,
    },
    /// Accept a device that waits.
    Accept {
        /// Its id or name.
        device: String,
        /// Fingerprint that its key must have.
        #[arg(long, value_name = "SHA256")]
        key: Option<String>,
        /// Reason, shown to others.
        #[arg(long)]
        reason: String,
    },
    /// Reject a device that waits: it is shut out, and cannot join again with its key.
    Reject {
        /// Its id or name.
        device: String,
        /// Reason, shown to others.
        #[arg(long)]
        reason: String,
    },
}

/// Runs a command about joining.
pub(super) async fn run(
    context: &Context,
    api: &Api,
    command: JoiningCommand,
) -> Result<(), CliError> {
    match command {
        JoiningCommand::JoinToken {
            product,
            region,
            channel,
            label,
            uses,
            valid,
            approve,
            key,
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
                uses,
                valid_s: Some(valid.as_secs()),
                approve,
                keys: key.into_iter().collect::<BTreeSet<_>>(),
            };
            let token: JoinTokenView = api.post("/api/v1/join-tokens", &body).await?;
            check_root(api, &dir.access(), &token.token).await?;
            show(context.format, &token, |t| t.token.clone())
        }
        JoiningCommand::JoinTokens { product } => {
            let path = with_query("/api/v1/join-tokens", &[("product", product)])?;
            let list: Vec<JoinTokenItem> = api.all(&path).await?;
            show(context.format, &list, |list| {
                table(TOKENS, list.iter().map(token_row).collect())
            })
        }
        JoiningCommand::RevokeJoinToken {
            id: Some(id),
            reason,
            ..
        } => {
            let path = format!("/api/v1/join-tokens/{id}/revoke");
            let done: RevokedView = api.post(&path, &ReasonBody { reason }).await?;
            show(context.format, &done, revoked)
        }
        JoiningCommand::RevokeJoinToken {
            id: None,
            product,
            reason,
            ..
        } => {
            let body = RevokeJoinTokensBody { product, reason };
            let done: RevokedView = api.post("/api/v1/join-tokens/revoke", &body).await?;
            show(context.format, &done, revoked)
        }
        JoiningCommand::Waiting { product } => {
            let path = with_query("/api/v1/devices/waiting", &[("product", product)])?;
            let list: Vec<DeviceView> = api.all(&path).await?;
            show(context.format, &list, |list| {
                table(WAITING, list.iter().map(waiting_row).collect())
            })
        }
        JoiningCommand::Accept {
            device,
            key,
            reason,
        } => {
            let body = AcceptBody {
                key_sha256: key,
                reason,
            };
            change(context, api, &device, "accept", &body).await
        }
        JoiningCommand::Reject { device, reason } => {
            let body = AcceptBody {
                key_sha256: None,
                reason,
            };
            change(context, api, &device, "reject", &body).await
        }
    }
}

fn revoked(done: &RevokedView) -> String {
    format!(
        "{} join tokens revoked; devices that have joined stay: tidegate device list",
        done.revoked
    )
}

const TOKENS: [&str; 8] = [
    "ID", "PRODUCT", "REGION", "CHANNEL", "LEFT", "ADMITS", "EXPIRES", "MADE BY",
];

fn token_row(t: &JoinTokenItem) -> [String; 8] {
    let any = |text: &Option<String>| text.clone().unwrap_or_else(|| "any".into());
    let left = match t.uses {
        Some(uses) => format!("{} of {uses}", t.uses_left),
        None => t.uses_left.to_string(),
    };
    let mut admits = match t.keys.len() {
        0 => "any key".to_owned(),
        count => format!("{count} named keys"),
    };
    if t.approve {
        admits += ", when accepted";
    }
    [
        t.id.clone(),
        t.product.clone(),
        any(&t.region),
        any(&t.channel),
        left,
        admits,
        t.expires_at.clone(),
        t.created_by.clone(),
    ]
}

const WAITING: [&str; 6] = ["ID", "NAME", "PRODUCT", "REGION", "SINCE", "KEY"];

fn waiting_row(d: &DeviceView) -> [String; 6] {
    [
        d.id.clone(),
        d.name.clone(),
        d.product.clone(),
        d.region.clone(),
        d.enrolled_at.clone(),
        d.key_sha256.clone(),
    ]
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

//! `release`.

mod args;
mod publish;

pub(crate) use args::{ArtifactFormat, PublishArgs, ReleaseCommand};
pub(crate) use publish::{Publication, publish_release, sign_for};

use tidegate_api::{EolBody, PayloadView, ProductView, PromoteBody, ReleaseView};
use tidegate_protocol::{ProblemCode, Stage};

use self::publish::publish;
use super::{Context, signing};
use crate::error::{CliError, parse};
use crate::output::{bytes, line, show, start, table};

/// Runs a `release` command.
pub(crate) async fn run(context: &Context, command: ReleaseCommand) -> Result<(), CliError> {
    let api = context.api()?;
    match command {
        ReleaseCommand::Publish(args) => publish(context, &api, args).await,
        ReleaseCommand::Promote {
            product,
            release,
            to,
            reason,
            dry_run,
            yes,
            dir,
        } => {
            let path = format!("/api/v1/products/{product}/releases/{release}/promote");
            let mut body = PromoteBody {
                to: to.clone(),
                reason,
                dry_run,
            };
            if !dry_run {
                // Asked first: a release that the server refuses must not get the signatures that a
                // stolen server could use. That they are missing is no refusal yet.
                body.dry_run = true;
                match api.post::<ReleaseView>(&path, &body).await {
                    Err(CliError::Problem(problem)) if problem.code == ProblemCode::Conflict => {}
                    other => drop(other?),
                }
                body.dry_run = false;
                let waiting = sign_for(
                    &api,
                    &dir.access(),
                    &parse(&product)?,
                    &parse(&release)?,
                    parse(&to)?,
                    |text| signing::ask(text, yes),
                )
                .await?;
                if !waiting.is_empty() {
                    line(&format!(
                        "{}\n  next, by another holder: tidegate release sign {product} {release}\n  \
                         then: tidegate release promote {product} {release} --to {to}",
                        waiting.join("\n")
                    ))?;
                    return Ok(());
                }
            }
            let release: ReleaseView = api.post(&path, &body).await?;
            show(context.format, &release, |r| {
                let would = if dry_run { "would be" } else { "is" };
                format!("{} {} {would} {}", r.product, r.version, r.stage)
            })
        }
        ReleaseCommand::Sign {
            product,
            release,
            compare,
            yes,
            dir,
        } => {
            let release = release.as_deref().map(parse).transpose()?;
            let product = parse(&product)?;
            signing::sign(&api, &dir.access(), &product, release, &compare, yes).await
        }
        ReleaseCommand::Policy {
            product,
            channel,
            min_release,
            eol,
            not_eol,
            notice,
            yes,
            dir,
        } => {
            let change = signing::PolicyChange {
                channel: channel.as_deref().map(parse).transpose()?,
                min_release: min_release.as_deref().map(parse).transpose()?,
                eol: eol.iter().map(|v| parse(v)).collect::<Result<_, _>>()?,
                not_eol: not_eol.iter().map(|v| parse(v)).collect::<Result<_, _>>()?,
                notice,
            };
            signing::policy(&api, &dir.access(), &parse(&product)?, &change, yes).await
        }
        ReleaseCommand::Eol {
            product,
            release,
            date,
            notice,
            dry_run,
        } => {
            let body = EolBody {
                at: date,
                notice,
                dry_run,
            };
            let path = format!("/api/v1/products/{product}/releases/{release}/eol");
            let release: ReleaseView = api.post(&path, &body).await?;
            show(context.format, &release, |r| {
                format!(
                    "{} {} {} its end of life at {}",
                    r.product,
                    r.version,
                    if dry_run { "would reach" } else { "reaches" },
                    r.eol_at.as_deref().unwrap_or_default()
                )
            })
        }
        ReleaseCommand::Withdraw {
            product,
            release,
            reason,
        } => {
            let body = PromoteBody {
                to: Stage::Withdrawn.to_string(),
                reason: Some(reason),
                dry_run: false,
            };
            let path = format!("/api/v1/products/{product}/releases/{release}/promote");
            let release: ReleaseView = api.post(&path, &body).await?;
            show(context.format, &release, |r| {
                format!("{} {} is {}", r.product, r.version, r.stage)
            })
        }
        ReleaseCommand::List { product: None } => {
            let products: Vec<ProductView> = api.get("/api/v1/products").await?;
            show(context.format, &products, |products| {
                table(
                    ["PRODUCT"],
                    products.iter().map(|p| [p.name.clone()]).collect(),
                )
            })
        }
        ReleaseCommand::List {
            product: Some(product),
        } => {
            let path = format!("/api/v1/products/{product}/releases");
            let releases: Vec<ReleaseView> = api.get(&path).await?;
            show(context.format, &releases, |releases| {
                let rows = releases.iter().map(|r| {
                    [
                        r.version.clone(),
                        r.stage.clone(),
                        r.created_at.clone(),
                        r.notes.clone(),
                    ]
                });
                table(["RELEASE", "STAGE", "CREATED", "NOTES"], rows.collect())
            })
        }
        ReleaseCommand::Get { product, release } => {
            let path = format!("/api/v1/products/{product}/releases/{release}");
            let release: ReleaseView = api.get(&path).await?;
            show(context.format, &release, |r| {
                let rows = r.artifacts.iter().map(|a| {
                    [
                        a.platform.clone(),
                        bytes(a.length),
                        start(&a.sha256).to_owned(),
                    ]
                });
                let reason = r
                    .reason
                    .as_ref()
                    .map(|t| format!(" ({t})"))
                    .unwrap_or_default();
                let artifacts = table(["PLATFORM", "SIZE", "SHA-256"], rows.collect());
                format!(
                    "{} {} is {}{reason}\n\n{artifacts}",
                    r.product, r.version, r.stage
                )
            })
        }
        ReleaseCommand::Delta { product, release } => {
            let path = format!("/api/v1/products/{product}/releases/{release}/deltas");
            let payloads: Vec<PayloadView> = api.get(&path).await?;
            show(context.format, &payloads, |payloads| {
                let rows = payloads.iter().map(|p| {
                    let ready = p.state == "ready";
                    // In tenths of a percent, rounded up so that no payload seems to cost nothing.
                    let cost = (p.bytes * 1000).div_ceil(p.image_bytes.max(1));
                    let saved = 1000u64.saturating_sub(cost);
                    [
                        p.platform.clone(),
                        p.from.clone().unwrap_or_else(|| "any".into()),
                        p.encoding.clone(),
                        if ready { bytes(p.bytes) } else { "-".into() },
                        if ready {
                            format!("{}.{} %", saved / 10, saved % 10)
                        } else {
                            "-".into()
                        },
                        if p.error.is_empty() {
                            p.state.clone()
                        } else {
                            format!("{}: {}", p.state, p.error)
                        },
                    ]
                });
                table(
                    ["PLATFORM", "FROM", "ENCODING", "SIZE", "SAVED", "STATE"],
                    rows.collect(),
                )
            })
        }
    }
}

//! `rollout` and `rollback`.

mod args;
mod body;

pub(crate) use args::{OrderArgs, RollbackArgs, RolloutCommand, StartArgs};

use tidegate_api::{
    ApproveBody, DeploymentView, EditBody, EventView, IncidentView, OrderBody, PresetView,
    ReasonView, RollbackBody, RolloutView, WhyRolloutView,
};
use tidegate_protocol::{Reason, Speaker, said};

use self::body::body;
use super::Context;
use super::rollout_show::{describe, explain};
use super::rules::{later, policy};
use super::watch::{self, Until};
use crate::api::{Api, with_query};
use crate::error::CliError;
use crate::foreign::spoken;
use crate::output::{complain, show, table};

/// Runs a `rollout` command.
pub(crate) async fn run(context: &Context, command: RolloutCommand) -> Result<(), CliError> {
    let api = context.api()?;
    match command {
        RolloutCommand::Start(args) => start(context, &api, *args).await,
        RolloutCommand::List { product } => {
            let path = with_query("/api/v1/rollouts", &[("product", product)])?;
            let list: Vec<RolloutView> = api.all(&path).await?;
            show(context.format, &list, |list| {
                let rows = list.iter().map(|r| {
                    [
                        r.id.clone(),
                        format!("{} {}", r.product, r.release),
                        r.state.clone(),
                        format!(
                            "{} / {} / {}",
                            r.tally.exposed, r.tally.healthy, r.tally.failed
                        ),
                        r.reason.text.clone(),
                    ]
                });
                table(
                    ["ID", "RELEASE", "STATE", "EXPOSED/HEALTHY/FAILED", "WHY"],
                    rows.collect(),
                )
            })
        }
        RolloutCommand::Get {
            id,
            watch: false,
            exit_status,
            ..
        } => {
            let rollout: RolloutView = api.get(&format!("/api/v1/rollouts/{id}")).await?;
            show(context.format, &rollout, describe)?;
            if exit_status {
                watch::verdict(&rollout)
            } else {
                Ok(())
            }
        }
        RolloutCommand::Get {
            id,
            timeout,
            exit_status,
            ..
        } => {
            let rollout = watch::follow(&api, &id, context.format, Until::Settled, timeout).await?;
            if exit_status {
                watch::verdict(&rollout)
            } else {
                Ok(())
            }
        }
        RolloutCommand::Pause(args) => order(context, &api, "pause", args).await,
        RolloutCommand::Resume(args) => order(context, &api, "resume", args).await,
        RolloutCommand::Halt(args) => order(context, &api, "halt", args).await,
        RolloutCommand::Cancel(args) => order(context, &api, "cancel", args).await,
        RolloutCommand::Advance { id } => {
            let path = format!("/api/v1/rollouts/{id}/advance");
            let rollout: RolloutView = api.post(&path, &OrderBody::default()).await?;
            show(context.format, &rollout, describe)
        }
        RolloutCommand::Edit(args) => {
            let body = EditBody {
                policy: policy(&args.policy)?,
                rest: tidegate_api::NothingElse,
                reason: args.reason.clone(),
                dry_run: args.dry_run,
            };
            let path = format!("/api/v1/rollouts/{}", args.id);
            let rollout: RolloutView = api.patch(&path, &body).await?;
            show(context.format, &rollout, describe)
        }
        RolloutCommand::Approve { id, plan } => {
            let path = format!("/api/v1/rollouts/{id}/approve");
            let rollout: RolloutView = api.post(&path, &ApproveBody { plan }).await?;
            show(context.format, &rollout, describe)
        }
        RolloutCommand::Why { id } => {
            let why: WhyRolloutView = api.get(&format!("/api/v1/rollouts/{id}/why")).await?;
            show(context.format, &why, explain)
        }
        RolloutCommand::Presets => {
            let list: Vec<PresetView> = api.get("/api/v1/presets").await?;
            show(context.format, &list, |list| {
                let rows = list.iter().map(|p| [p.name.clone(), p.intent.clone()]);
                table(["PRESET", "WHAT FOR"], rows.collect())
            })
        }
        RolloutCommand::Deployments { id, state } => {
            let query = state.map(|s| format!("?state={s}")).unwrap_or_default();
            let path = format!("/api/v1/rollouts/{id}/deployments{query}");
            let list: Vec<DeploymentView> = api.all(&path).await?;
            show(context.format, &list, |list| {
                let rows = list.iter().map(|d| {
                    [
                        d.device.clone(),
                        d.state.clone(),
                        d.from.clone().unwrap_or_else(|| "-".into()),
                        d.leg.clone(),
                        crate::output::bytes(d.bytes_downloaded),
                        d.reason.as_ref().map(reason).unwrap_or_default(),
                    ]
                });
                table(
                    ["DEVICE", "STATE", "FROM", "TO", "FETCHED", "WHY"],
                    rows.collect(),
                )
            })
        }
        RolloutCommand::Events { id } => {
            let list: Vec<EventView> = api.all(&format!("/api/v1/rollouts/{id}/events")).await?;
            show(context.format, &list, |list| {
                let rows = list
                    .iter()
                    .map(|e| [e.at.clone(), e.actor.clone(), spoken(e)]);
                table(["AT", "WHO", "WHAT"], rows.collect())
            })
        }
    }
}

async fn order(context: &Context, api: &Api, what: &str, args: OrderArgs) -> Result<(), CliError> {
    let body = OrderBody {
        reason: args.reason,
        dry_run: args.dry_run,
        at: None,
        accept_no_way_back: None,
    };
    let path = format!("/api/v1/rollouts/{}/{what}", args.id);
    let rollout: RolloutView = api.post(&path, &body).await?;
    show(context.format, &rollout, describe)
}

/// Rolls devices back; prints the blast-radius sheet.
pub(crate) async fn rollback(context: &Context, args: RollbackArgs) -> Result<(), CliError> {
    let api = context.api()?;
    let body = RollbackBody {
        reason: args.reason,
        selector: args.selector,
        dry_run: args.dry_run,
    };
    let path = match args.what.split_once('@') {
        Some((product, release)) => {
            format!("/api/v1/products/{product}/releases/{release}/rollback")
        }
        None => format!("/api/v1/rollouts/{}/rollback", args.what),
    };
    let incident: IncidentView = api.post(&path, &body).await?;
    show(context.format, &incident, super::incident::describe)?;
    if args.watch && !args.dry_run {
        return super::incident::count_down(context, &api, &incident.id, args.timeout).await;
    }
    Ok(())
}

async fn start(context: &Context, api: &Api, args: StartArgs) -> Result<(), CliError> {
    // Checked before anything is created.
    let at = args.at.as_deref().map(later).transpose()?;
    let order = OrderBody {
        reason: String::new(),
        dry_run: args.dry_run,
        at,
        accept_no_way_back: args.accept_no_way_back,
    };
    let id = if let Some(id) = &args.id {
        id.clone()
    } else {
        let body = body(api, &args).await?;
        if args.dry_run {
            let would: RolloutView = api.post("/api/v1/rollouts", &body).await?;
            return show(context.format, &would, describe);
        }
        let draft: RolloutView = api.create("/api/v1/rollouts", &body).await?;
        if args.draft {
            return show(context.format, &draft, describe);
        }
        draft.id
    };
    let rollout: RolloutView = api
        .post(&format!("/api/v1/rollouts/{id}/start"), &order)
        .await?;
    for wave in rollout.waves.iter().filter(|w| w.members == 0) {
        complain(&format!(
            "warning: wave {} selects no eligible device and will be skipped",
            wave.name
        ));
    }
    if args.watch {
        let rollout = watch::follow(api, &id, context.format, Until::Settled, None).await?;
        return watch::verdict(&rollout);
    }
    show(context.format, &rollout, |r| {
        format!(
            "{}\n\n  next: tidegate rollout get {} --watch",
            describe(r),
            r.id
        )
    })
}

/// Reason of a deployment: of an attempt that failed the device tells it.
fn reason(reason: &ReasonView) -> String {
    match reason.code.parse::<Reason>() {
        Ok(code) if code.is_failure() => said(Speaker::Device, &reason.text),
        _ => reason.text.clone(),
    }
}

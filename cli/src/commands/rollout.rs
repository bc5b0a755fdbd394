//! `rollout` and `rollback`.

mod args;

pub(crate) use args::{OrderArgs, RollbackArgs, RolloutCommand, StartArgs};

use tidegate_server::http::dto::{
    ApproveBody, DeploymentView, EditBody, EventView, IncidentView, OrderBody, PresetView,
    PreviewView, RollbackBody, RolloutBody, RolloutView, WaveBody, WhyRolloutView,
};

use super::Context;
use super::rules::{later, policy};
use super::watch::{self, Until};
use crate::api::Api;
use crate::error::CliError;
use crate::output::{complain, show, table};

/// Runs a `rollout` command.
pub(crate) async fn run(context: &Context, command: RolloutCommand) -> Result<(), CliError> {
    let api = context.api()?;
    match command {
        RolloutCommand::Start(args) => start(context, &api, *args).await,
        RolloutCommand::List { product } => {
            let query = product.map(|p| format!("?product={p}")).unwrap_or_default();
            let list: Vec<RolloutView> = api.all(&format!("/api/v1/rollouts{query}")).await?;
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
                unknown: std::collections::BTreeMap::new(),
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
                        d.reason
                            .as_ref()
                            .map(|r| r.text.clone())
                            .unwrap_or_default(),
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
                    .map(|e| [e.at.clone(), e.actor.clone(), e.text.clone()]);
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
        return super::incident::count_down(context, &api, &incident.id).await;
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

async fn body(api: &Api, args: &StartArgs) -> Result<RolloutBody, CliError> {
    let seconds = |d: std::time::Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
    let mut body = RolloutBody {
        product: args.product.clone().unwrap_or_default(),
        release: args.release.clone().unwrap_or_default(),
        waves: if args.preset.is_some() {
            Vec::new()
        } else {
            waves(args)?
        },
        preset: args.preset.clone(),
        regions: args
            .preset
            .as_ref()
            .map(|_| args.regions.clone())
            .unwrap_or_default(),
        batch: args.batch.clone().filter(|_| args.preset.is_some()),
        policy: policy(&args.policy)?,
        unknown: std::collections::BTreeMap::new(),
        rollback_window_s: Some(seconds(args.rollback_window)),
        max_attempts: Some(args.max_attempts),
        timeout_s: Some(seconds(args.timeout)),
        dry_run: args.dry_run,
    };
    if let Some(size) = args.batch.as_ref().filter(|_| args.preset.is_none()) {
        // The number of batches of a region follows from its number of devices.
        let whole = RolloutBody {
            dry_run: true,
            ..body.clone()
        };
        let counted: RolloutView = api.post("/api/v1/rollouts", &whole).await?;
        body.waves = batches(&args.regions, size, &counted)?;
    }
    Ok(body)
}

fn waves(args: &StartArgs) -> Result<Vec<WaveBody>, CliError> {
    if !args.regions.is_empty() {
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = args.regions.iter().find(|region| !seen.insert(*region)) {
            return Err(CliError::Failed(format!("--regions names {twice} twice")));
        }
        return Ok(args
            .regions
            .iter()
            .map(|region| wave(region, region, "all"))
            .collect());
    }
    if args.wave.is_empty() {
        return Ok(vec![WaveBody {
            name: "all".into(),
            selector: String::new(),
            size: "all".into(),
        }]);
    }
    args.wave
        .iter()
        .map(|text| {
            let (selector, size) = text.rsplit_once('@').unwrap_or((text, "all"));
            // Refused here, before anything is created, with the rule and an example.
            selector
                .parse::<tidegate_domain::selector::Selector>()
                .map_err(|e| CliError::Failed(e.to_string()))?;
            let name = text.chars().take(60).collect();
            Ok(WaveBody {
                name,
                selector: selector.into(),
                size: size.into(),
            })
        })
        .collect()
}

fn wave(name: &str, region: &str, size: &str) -> WaveBody {
    WaveBody {
        name: name.into(),
        selector: format!("region={region}"),
        size: size.into(),
    }
}

fn batches(
    regions: &[String],
    size: &str,
    counted: &RolloutView,
) -> Result<Vec<WaveBody>, CliError> {
    use tidegate_domain::rollout::WaveSize;
    let parsed: WaveSize = size
        .parse()
        .map_err(|e: tidegate_domain::rollout::WaveSizeError| CliError::Failed(e.to_string()))?;
    let mut waves = Vec::new();
    for region in regions {
        let devices = counted
            .preview
            .as_ref()
            .and_then(|p| p.by_region.get(region).copied())
            .unwrap_or(0);
        let count = match parsed {
            WaveSize::All => 1,
            WaveSize::Share(share) => u64::from(10_000u32.div_ceil(share.get().max(1))),
            WaveSize::Count(count) => devices.div_ceil(count.max(1)),
        }
        .max(1);
        for batch in 1..=count {
            // The last one takes all devices that are left, those that joined meanwhile included.
            let size = if batch == count { "all" } else { size };
            waves.push(wave(&format!("{region} {batch}/{count}"), region, size));
        }
    }
    Ok(waves)
}

/// Formats a rollout for people.
pub(crate) fn describe(r: &RolloutView) -> String {
    let dry = if r.dry_run {
        " (only shown, nothing is changed)"
    } else {
        ""
    };
    let rows = r.waves.iter().map(|w| {
        [
            w.name.clone(),
            w.size.clone(),
            w.state.clone(),
            w.members.to_string(),
            w.tally.exposed.to_string(),
            w.tally.in_flight.to_string(),
            w.tally.healthy.to_string(),
            w.tally.failed.to_string(),
            w.tally.silent.to_string(),
            (w.tally.returning + w.tally.returned).to_string(),
        ]
    });
    let head = [
        "WAVE",
        "SIZE",
        "STATE",
        "DEVICES",
        "EXPOSED",
        "IN FLIGHT",
        "HEALTHY",
        "FAILED",
        "SILENT",
        "SENT BACK",
    ];
    let mut text = format!(
        "{} {} {} is {}{dry}\nwhy: {}\n\n{}",
        r.id,
        r.product,
        r.release,
        r.state,
        r.reason.text,
        table(head, rows.collect())
    );
    let f = &r.forecast;
    let goes_on = matches!(
        r.state.as_str(),
        "draft" | "scheduled" | "awaiting_approval" | "running"
    );
    if let Some(at) = r.starts_at.as_ref().filter(|_| r.state == "scheduled") {
        text += &format!("\n\nstarts by itself at {at}");
    }
    if goes_on {
        let finish = f
            .finish
            .as_deref()
            .map_or("unknown", |t| t.get(..16).unwrap_or(t));
        text += &format!("\n\nforecast: finished {finish}");
        text += match f.on_time {
            Some(true) => ", before the deadline",
            Some(false) => ", AFTER THE DEADLINE",
            None => "",
        };
    }
    if let Some(asked) = &r.asked {
        text += &format!(
            "\n\n{} was asked for by {}: {} of {} approvals are missing\n  next: somebody else runs \
             tidegate rollout approve {} --plan {}",
            asked.kind, asked.asked_by, asked.missing, asked.needed, r.id, asked.plan
        );
    }
    if let Some(preview) = &r.preview {
        text += &format!("\n\n{}", preview_text(preview));
    }
    text
}

fn counts(map: &std::collections::BTreeMap<String, u64>) -> String {
    let list: Vec<String> = map.iter().map(|(what, n)| format!("{n} {what}")).collect();
    list.join(", ")
}

fn preview_text(preview: &PreviewView) -> String {
    let rows = preview.paths.iter().map(|p| {
        [
            p.devices.to_string(),
            p.from.clone().unwrap_or_else(|| "nothing".into()),
            p.legs.join(" -> "),
            p.platform.clone(),
            crate::output::bytes(p.bytes),
        ]
    });
    let mut text = table(
        ["DEVICES", "FROM", "OVER", "PLATFORM", "EACH FETCHES"],
        rows.collect(),
    );
    text += &format!("\ntotal {}", crate::output::bytes(preview.bytes));
    for (what, map) in [
        ("not concerned or blocked", &preview.blocked),
        ("would wait now", &preview.waiting),
    ] {
        if !map.is_empty() {
            text += &format!("\n{what}: {}", counts(map));
        }
    }
    text
}

/// Formats the explanation of a rollout for people.
fn explain(why: &WhyRolloutView) -> String {
    let mut text = describe(&why.rollout);
    if !why.failures.is_empty() {
        let rows = why.failures.iter().map(|f| {
            [
                f.count.to_string(),
                f.reason.clone(),
                f.model.clone(),
                f.platform.clone(),
                f.from.clone().unwrap_or_default(),
                f.region.clone(),
            ]
        });
        let head = ["FAILED", "WHY", "MODEL", "PLATFORM", "FROM", "REGION"];
        text += &format!("\n\n{}", table(head, rows.collect()));
    }
    if let Some(c) = &why.suggested_hold {
        text += &format!(
            "\n\n{} of {} devices with {} failed, {} of {} others: hold them and let the rest go on\n  \
             next: tidegate hold create {} --release {} --selector {} --reason ...",
            c.failed,
            c.finished,
            c.selector,
            c.others_failed,
            c.others_finished,
            why.rollout.product,
            why.rollout.release,
            c.selector
        );
    }
    text
}

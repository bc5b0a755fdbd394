//! `incident`, `hold` and `product`.

mod args;

pub(crate) use args::{HoldCommand, IncidentCommand, ProductCommand};

use std::time::{Duration, Instant};
use tidegate_delta::Limits;

use tidegate_api::{
    ApproveBody, HoldBody, HoldView, IncidentSummary, IncidentView, KeepBody, OrderBody,
    RolloutView, SettingsView,
};

use super::Context;
use super::watch::SERVER_SILENCE;
use crate::api::Api;
use crate::error::CliError;
use crate::output::{Format, line, show, table};

/// Runs an `incident` command.
pub(crate) async fn run(context: &Context, command: IncidentCommand) -> Result<(), CliError> {
    let api = context.api()?;
    match command {
        IncidentCommand::List => {
            let list: Vec<IncidentSummary> = api.all("/api/v1/incidents").await?;
            show(context.format, &list, |list| {
                let rows = list.iter().map(|i| {
                    [
                        i.id.clone(),
                        format!("{} {}", i.product, i.release),
                        i.opened_at.clone(),
                        i.closed_at.clone().unwrap_or_else(|| "open".into()),
                        i.reason.clone(),
                    ]
                });
                table(["ID", "RELEASE", "SINCE", "UNTIL", "WHY"], rows.collect())
            })
        }
        IncidentCommand::Show {
            id, watch: false, ..
        } => {
            let incident: IncidentView = api.get(&format!("/api/v1/incidents/{id}")).await?;
            show(context.format, &incident, describe)
        }
        IncidentCommand::Show { id, timeout, .. } => count_down(context, &api, &id, timeout).await,
        IncidentCommand::ExtendWindow { id, by, reason } => {
            let seconds = u32::try_from(by.as_secs()).unwrap_or(u32::MAX);
            let body = KeepBody {
                seconds,
                frozen: None,
                reason,
            };
            keep(context, &api, &id, &body).await
        }
        IncidentCommand::FreezePruning { id, off, reason } => {
            let body = KeepBody {
                seconds: 0,
                frozen: Some(!off),
                reason,
            };
            keep(context, &api, &id, &body).await
        }
    }
}

/// Orders every rollout of an incident, or one rollout, to keep previous versions longer.
async fn keep(context: &Context, api: &Api, id: &str, body: &KeepBody) -> Result<(), CliError> {
    let rollouts = if id.starts_with("inc_") {
        let incident: IncidentView = api.get(&format!("/api/v1/incidents/{id}")).await?;
        incident.rollouts.into_iter().map(|r| r.id).collect()
    } else {
        vec![id.to_owned()]
    };
    let mut after = Vec::new();
    for id in rollouts {
        let path = format!("/api/v1/rollouts/{id}/keep-previous");
        let rollout: RolloutView = api.post(&path, body).await?;
        after.push(rollout);
    }
    show(context.format, &after, |list| {
        let rows = list.iter().map(|r| {
            [
                r.id.clone(),
                format!("{} s", r.rollback_window_s),
                format!("{} s", r.extended_s),
                if r.frozen { "frozen" } else { "-" }.into(),
                r.tally.probation.to_string(),
            ]
        });
        table(
            [
                "ROLLOUT",
                "WINDOW",
                "EXTENDED BY",
                "PRUNING",
                "DEVICES IN IT",
            ],
            rows.collect(),
        )
    })
}

/// Counts down until no device that can go back is left, then shows the sheet.
pub(crate) async fn count_down(
    context: &Context,
    api: &Api,
    id: &str,
    timeout: Option<Duration>,
) -> Result<(), CliError> {
    let began = Instant::now();
    let mut said = String::new();
    let mut silent_since: Option<Instant> = None;
    loop {
        let incident: IncidentView = match api.get(&format!("/api/v1/incidents/{id}")).await {
            Ok(incident) => incident,
            // A server that restarts must not end the watch: the rollback goes on.
            Err(error @ CliError::Unreachable { .. }) => {
                let since = *silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() > SERVER_SILENCE || is_over(began, timeout) {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        silent_since = None;
        let s = &incident.sheet;
        let cannot: u64 = s.cannot_return.values().sum();
        let left = s.still_on_it - cannot + s.before_switch;
        let ends = s
            .first_window_ends
            .as_deref()
            .and_then(|t| t.get(11..19))
            .map_or_else(String::new, |t| format!(", first window ends {t}"));
        let now = format!(
            "{} returned, {} returning, {} to go ({} silent), {cannot} cannot{ends}",
            s.returned,
            s.returning,
            left - s.returning,
            s.silent
        );
        if now != said && context.format == Format::Table {
            line(&now)?;
            said.clone_from(&now);
        }
        if left == 0 {
            show(context.format, &incident, describe)?;
            return if cannot == 0 {
                Ok(())
            } else {
                let text = format!(
                    "{cannot} devices cannot go back and stay on {}",
                    incident.release
                );
                Err(CliError::Partly(text))
            };
        }
        if is_over(began, timeout) {
            return Err(CliError::Timeout(format!(
                "{now}; the rollback continues unwatched: tidegate incident show {id} --watch"
            )));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            _ = tokio::signal::ctrl_c() => {
                return Err(CliError::Hinted(
                    "no longer watching; the rollback continues".into(),
                    format!("tidegate incident show {id} --watch goes on watching"),
                ));
            }
        }
    }
}

fn is_over(began: Instant, timeout: Option<Duration>) -> bool {
    timeout.is_some_and(|timeout| began.elapsed() >= timeout)
}

/// Formats the blast-radius sheet for people.
pub(crate) fn describe(i: &IncidentView) -> String {
    let s = &i.sheet;
    let mut rows = vec![
        ["exposed".to_owned(), s.exposed.to_string()],
        [
            "in flight, not switched: cancelled".into(),
            s.before_switch.to_string(),
        ],
        [
            "in flight, past the point of no return".into(),
            s.switching.to_string(),
        ],
        [
            "inside the window: return without a download".into(),
            s.inside_window.to_string(),
        ],
        [
            "outside the window: return by download".into(),
            s.outside_window.to_string(),
        ],
        ["returning".into(), s.returning.to_string()],
        ["returned".into(), s.returned.to_string()],
        [
            "went back by themselves".into(),
            s.failed_by_themselves.to_string(),
        ],
        ["called off".into(), s.called_off.to_string()],
        ["moved on to another release".into(), s.moved_on.to_string()],
        ["silent".into(), s.silent.to_string()],
    ];
    for (reason, count) in &s.cannot_return {
        rows.push([format!("cannot return: {reason}"), count.to_string()]);
    }
    let dry = if i.dry_run {
        " (dry run: nothing is changed)"
    } else {
        ""
    };
    let whom = if i.selector.is_empty() {
        String::new()
    } else {
        format!(" for {}", i.selector)
    };
    let mut text = format!(
        "{} {} {}{whom} is being rolled back{dry}: {}\n\n{}",
        i.id,
        i.product,
        i.release,
        i.reason,
        table(["DEVICES", ""], rows)
    );
    if let Some(ends) = &s.first_window_ends {
        text += &format!("\n\nthe first window ends {ends}");
    }
    if i.closed_at.is_none() && !i.dry_run && s.still_on_it > 0 {
        text += &format!("\n\n  next: tidegate incident show {} --watch", i.id);
    }
    text
}

/// Runs a `hold` command.
pub(crate) async fn hold(context: &Context, command: HoldCommand) -> Result<(), CliError> {
    let api = context.api()?;
    match command {
        HoldCommand::Create {
            product,
            release,
            selector,
            reason,
            link,
            dry_run,
        } => {
            let body = HoldBody {
                product,
                release,
                selector,
                reason,
                link,
                dry_run,
            };
            let hold: HoldView = api.post("/api/v1/holds", &body).await?;
            show(context.format, &hold, |h| {
                let dry = if h.dry_run { " (only shown)" } else { "" };
                format!(
                    "{} holds {} devices back from {}{dry}",
                    h.id,
                    h.devices.unwrap_or(0),
                    h.release.as_deref().unwrap_or("every release")
                )
            })
        }
        HoldCommand::List => {
            let list: Vec<HoldView> = api.all("/api/v1/holds").await?;
            show(context.format, &list, |list| {
                let rows = list.iter().map(|h| {
                    [
                        h.id.clone(),
                        h.product.clone(),
                        h.release.clone().unwrap_or_else(|| "every".into()),
                        h.selector.clone(),
                        format!("{} {}", h.reason, h.link),
                        h.created_by.clone(),
                    ]
                });
                let head = ["ID", "PRODUCT", "RELEASE", "DEVICES", "WHY", "BY"];
                table(head, rows.collect())
            })
        }
        HoldCommand::Lift { id, reason } => {
            let body = OrderBody {
                reason,
                ..OrderBody::default()
            };
            api.post_empty(&format!("/api/v1/holds/{id}/lift"), &body)
                .await?;
            line(&format!("{id} is lifted"))
        }
    }
}

/// Runs a `product` command.
pub(crate) async fn product(context: &Context, command: ProductCommand) -> Result<(), CliError> {
    let api = context.api()?;
    let kib = |set: Option<u32>, usual: u32| format!("{} KiB", set.unwrap_or(usual >> 10));
    let describe = |view: &SettingsView| {
        let s = &view.settings;
        let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".into());
        let mut said = table(
            ["SETTING", ""],
            vec![
                ["oldest supported version".into(), text(&s.min_version)],
                ["oldest TLS".into(), text(&s.min_tls)],
                ["needed capabilities".into(), s.capabilities.join(", ")],
                ["where to upgrade".into(), s.upgrade_url.clone()],
                ["approvals by other people".into(), s.approvals.to_string()],
                [
                    "chunks of deltas".into(),
                    kib(s.delta_chunk_kib, Limits::DELTA_CHUNK),
                ],
                [
                    "chunks of full payloads".into(),
                    kib(s.full_chunk_kib, Limits::FULL_CHUNK),
                ],
            ],
        );
        if let Some(asked) = &view.asked {
            said += &format!(
                "\n\n{} asked for {} approvals instead: {} of {} approvals are missing\n  next: somebody else runs \
                 tidegate product approve PRODUCT --plan {}",
                asked.asked_by, asked.settings.approvals, asked.missing, asked.needed, asked.plan
            );
        }
        said
    };
    match command {
        ProductCommand::Show { product } => {
            let path = format!("/api/v1/products/{product}/settings");
            let settings: SettingsView = api.get(&path).await?;
            show(context.format, &settings, describe)
        }
        ProductCommand::Set {
            product,
            min_version,
            min_tls,
            capability,
            upgrade_url,
            approvals,
            delta_chunk,
            full_chunk,
        } => {
            let path = format!("/api/v1/products/{product}/settings");
            let SettingsView { mut settings, .. } = api.get(&path).await?;
            let set = |slot: &mut Option<String>, value: Option<String>| {
                if let Some(value) = value {
                    *slot = Some(value).filter(|v| !v.is_empty());
                }
            };
            set(&mut settings.min_version, min_version);
            set(&mut settings.min_tls, min_tls);
            if !capability.is_empty() {
                settings.capabilities = capability.into_iter().filter(|c| !c.is_empty()).collect();
            }
            if let Some(url) = upgrade_url {
                settings.upgrade_url = url;
            }
            if let Some(approvals) = approvals {
                settings.approvals = approvals;
            }
            settings.delta_chunk_kib = delta_chunk.or(settings.delta_chunk_kib);
            settings.full_chunk_kib = full_chunk.or(settings.full_chunk_kib);
            let settings: SettingsView = api.put(&path, &settings).await?;
            show(context.format, &settings, describe)
        }
        ProductCommand::Approve { product, plan } => {
            let path = format!("/api/v1/products/{product}/settings/approve");
            let settings: SettingsView = api.post(&path, &ApproveBody { plan }).await?;
            show(context.format, &settings, describe)
        }
    }
}

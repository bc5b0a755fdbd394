//! One device: found by its name, changed, and described.

use tidegate_api::DeviceView;
use tidegate_protocol::{DeviceId, Speaker, said};

use super::Context;
use crate::api::Api;
use crate::error::CliError;
use crate::output::show;

/// Sends a change of a device, and shows the device after it.
pub(super) async fn change(
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
pub(super) async fn find(api: &Api, text: &str) -> Result<DeviceView, CliError> {
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

/// Marks a fact that the device says and has not signed.
fn marked(d: &DeviceView, field: &str, value: String) -> String {
    if d.claimed.iter().any(|name| name == field) {
        return format!("{value} (claimed)");
    }
    value
}

/// Describes a device, a line a fact.
pub(super) fn describe(d: &DeviceView) -> String {
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
            } else if d.awaiting {
                "no: waits to be accepted (tidegate device accept)".into()
            } else {
                "no: revoked".into()
            },
        ),
        ("key", d.key_sha256.clone()),
        (
            "isolated",
            d.isolated.clone().unwrap_or_else(|| "no".into()),
        ),
        (
            "refused",
            d.refused
                .as_ref()
                .map_or_else(|| "nothing".into(), |r| said(Speaker::Device, &r.text)),
        ),
        (
            "runs",
            marked(
                d,
                "release",
                d.release.clone().unwrap_or_else(|| "nothing".into()),
            ),
        ),
        ("state", d.state.clone().unwrap_or_else(|| "idle".into())),
        (
            "window",
            d.rollback_window_left_s
                .map_or_else(|| "-".into(), |s| format!("{s} s left")),
        ),
        (
            "way back",
            d.no_way_back.as_ref().map_or_else(
                || "yes".into(),
                |r| format!("within the rollback window only: {}", r.text),
            ),
        ),
        ("kept from", d.quarantine.join(", ")),
        (
            "battery",
            d.battery_percent.map_or_else(
                || "-".into(),
                |p| marked(d, "battery_percent", format!("{p} %, {}", d.power)),
            ),
        ),
        ("agent", marked(d, "agent_version", d.agent_version.clone())),
        (
            "diagnosis",
            d.diagnosis
                .as_ref()
                .map_or_else(|| "-".into(), |text| said(Speaker::Device, text)),
        ),
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

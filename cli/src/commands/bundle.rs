//! `bundle`: orders carried to devices without a network, and reports carried back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use tidegate_api::{BundleBody, BundleView};
use tidegate_delta::{Limits, Manifest};
use tidegate_protocol::{
    Bundle, CarriedReports, DeviceId, Payload, ReportBatch, ReportsAccepted, Sha256, paths,
};

use super::Context;
use crate::api::Api;
use crate::error::{CliError, at};
use crate::output::line;

#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Write a folder with signed orders, metadata and payloads for the devices of a rollout, to be
    /// carried to them.
    Create {
        /// The rollout.
        rollout: String,
        /// Select some of its devices, for example `region=plant-7`.
        #[arg(long, default_value = "")]
        select: String,
        /// Validity in days, 1 to 60.
        #[arg(long, default_value_t = 30)]
        days: u16,
        /// The folder to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Import reports that were carried back.
    Import {
        /// Files written by `tidegate-agent apply` or `export`.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Runs a `bundle` command.
pub(crate) async fn run(context: &Context, command: BundleCommand) -> Result<(), CliError> {
    let api = context.api()?;
    match command {
        BundleCommand::Create {
            rollout,
            select,
            days,
            out,
        } => create(&api, &rollout, select, days, &out).await,
        BundleCommand::Import { files } => {
            for file in files {
                import(&api, &file).await?;
            }
            Ok(())
        }
    }
}

async fn create(
    api: &Api,
    rollout: &str,
    selector: String,
    days: u16,
    out: &Path,
) -> Result<(), CliError> {
    // Two bundles mixed in one folder would both be broken.
    if out.join(Bundle::FILE).exists() {
        return Err(CliError::Failed(format!(
            "{} already holds a bundle: choose another folder",
            out.display()
        )));
    }
    let body = BundleBody { selector, days };
    let path = format!("/api/v1/rollouts/{rollout}/bundle");
    let view: BundleView = api.post(&path, &body).await?;
    let mut orders: BTreeMap<DeviceId, String> = BTreeMap::new();
    for order in view.orders {
        let Some(assignment) = order.assignment else {
            let why = order.reason.map(|reason| reason.text).unwrap_or_default();
            line(&format!("skipped {}: {why}", order.name))?;
            continue;
        };
        let device: DeviceId = order
            .device
            .parse()
            .map_err(|e| CliError::failed("a device's id", &e))?;
        orders.insert(device, assignment);
    }
    if orders.is_empty() {
        return Err(CliError::Failed(
            "no selected device has an update to install now: nothing written".into(),
        ));
    }
    let [metadata, blobs] = ["metadata", "blobs"].map(|name| out.join(name));
    for folder in [&metadata, &blobs, &out.join("orders")] {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let bytes = take_payloads(api, orders.values(), &blobs).await?;
    take_metadata(api, &metadata).await?;
    for (device, order) in &orders {
        write(&out.join(Bundle::order(*device)), order.as_bytes())?;
    }
    let count = orders.len();
    let bundle = Bundle {
        format: Bundle::FORMAT.into(),
        rollout: view.rollout,
        devices: count,
    };
    let text =
        serde_json::to_vec_pretty(&bundle).map_err(|e| CliError::failed("the bundle", &e))?;
    // Written last: a folder that has it is complete.
    write(&out.join(Bundle::FILE), &text)?;
    line(&format!(
        "{count} devices, {bytes} bytes of payloads, valid for {days} days, in {}\n\
         next: on each device, tidegate-agent apply FOLDER",
        out.display()
    ))
}

/// Writes a file durably: the stick may be pulled out right after.
fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    use std::io::Write as _;
    let written = std::fs::File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(at(path))
}

/// Downloads the payloads that the orders name (the best one, and the one that needs no old image);
/// returns their total bytes.
async fn take_payloads(
    api: &Api,
    orders: impl Iterator<Item = &String>,
    blobs: &Path,
) -> Result<u64, CliError> {
    let unread = |e: serde_json::Error| CliError::failed("an order", &e);
    let mut manifests: BTreeSet<Sha256> = BTreeSet::new();
    for order in orders {
        let order: serde_json::Value = serde_json::from_str(order).map_err(unread)?;
        let payloads = &order["signed"]["x-assignment"]["payloads"];
        let payloads: Vec<Payload> = serde_json::from_value(payloads.clone()).map_err(unread)?;
        manifests.extend(payloads.iter().map(|payload| payload.manifest));
    }
    let mut bytes = 0;
    for sha256 in manifests {
        let path = blobs.join(sha256.to_string());
        api.save(&format!("{}{sha256}", paths::BLOBS), &path, sha256)
            .await?;
        let text = std::fs::read(&path).map_err(at(&path))?;
        let manifest = Manifest::from_bytes(&text, sha256, &Limits::default())
            .map_err(|e| CliError::failed("a manifest", &e))?;
        let payload = manifest.payload.sha256;
        let path = blobs.join(payload.to_string());
        bytes += api
            .save(&format!("{}{payload}", paths::BLOBS), &path, payload)
            .await?;
    }
    Ok(bytes)
}

/// Downloads every signed file that a device may ask for: all roots, and the files that the newest
/// timestamp names.
async fn take_metadata(api: &Api, folder: &Path) -> Result<(), CliError> {
    let fetch = async |name: &str| -> Result<Option<Vec<u8>>, CliError> {
        let bytes = api.get_bytes(&format!("{}{name}", paths::METADATA)).await?;
        if let Some(bytes) = &bytes {
            write(&folder.join(name), bytes)?;
        }
        Ok(bytes)
    };
    let needed = |name: &str, bytes: Option<Vec<u8>>| {
        bytes.ok_or_else(|| CliError::Failed(format!("the server has no {name}")))
    };
    for version in 1.. {
        if fetch(&format!("{version}.root.json")).await?.is_none() {
            break;
        }
    }
    let timestamp = needed("timestamp.json", fetch("timestamp.json").await?)?;
    let version = versions("timestamp.json", &timestamp)?
        .remove("snapshot.json")
        .ok_or_else(|| CliError::Failed("the timestamp names no snapshot".into()))?;
    let name = format!("{version}.snapshot.json");
    let snapshot = needed(&name, fetch(&name).await?)?;
    for (file, version) in versions(&name, &snapshot)? {
        let name = format!("{version}.{file}");
        needed(&name, fetch(&name).await?)?;
    }
    Ok(())
}

/// Reads the versions that signed metadata names. Nothing is trusted here: the devices verify all
/// of it.
fn versions(file: &str, bytes: &[u8]) -> Result<BTreeMap<String, u64>, CliError> {
    let unread = |what: &str| CliError::Failed(format!("the server's {file}: {what}"));
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|e| unread(&e.to_string()))?;
    // A bundle that lacks them would be refused in the plant, where nobody can fetch them.
    let meta = value["signed"]["meta"]
        .as_object()
        .ok_or_else(|| unread("it names no files"))?;
    Ok(meta
        .iter()
        .filter(|(name, _)| !name.contains(['/', '\\']))
        .filter_map(|(name, facts)| Some((name.clone(), facts["version"].as_u64()?)))
        .collect())
}

async fn import(api: &Api, file: &Path) -> Result<(), CliError> {
    let text = crate::keys::read_bounded(file).map_err(at(file))?;
    let carried: CarriedReports = serde_json::from_slice(&text)
        .map_err(|e| CliError::Failed(format!("{}: {e}", file.display())))?;
    if carried.format != CarriedReports::FORMAT {
        return Err(CliError::Failed(format!(
            "{}: has the format {:?}, and this version reads {:?}: run `tidegate-agent export` again \
             with an agent of this version",
            file.display(),
            carried.format,
            CarriedReports::FORMAT
        )));
    }
    let (device, count) = (carried.device, carried.reports.len());
    for reports in carried.reports.chunks(ReportBatch::MAX) {
        let batch = ReportBatch {
            reports: reports.to_vec(),
        };
        let path = format!("/api/v1/devices/{device}/reports");
        let _: ReportsAccepted = api.post(&path, &batch).await?;
    }
    line(&format!("imported {count} reports of {device}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_that_names_no_files_is_an_error_and_not_an_empty_bundle() {
        let good = br#"{"signed":{"meta":{"a.json":{"version":3},"../b.json":{"version":1}}}}"#;
        let named = versions("snapshot.json", good).unwrap();
        assert_eq!(named, BTreeMap::from([("a.json".to_owned(), 3)]));
        for bad in [&b""[..], b"{}", br#"{"signed":{"meta":[]}}"#] {
            assert!(versions("snapshot.json", bad).is_err());
        }
    }
}

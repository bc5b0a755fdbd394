//! The rollout that `rollout start` asks for.

use tidegate_api::{RolloutBody, RolloutView, WaveBody};

use super::StartArgs;
use crate::api::Api;
use crate::commands::rules::policy;
use crate::error::{CliError, parse};

pub(super) async fn body(api: &Api, args: &StartArgs) -> Result<RolloutBody, CliError> {
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
        rest: tidegate_api::NothingElse,
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
            return Err(CliError::Usage(format!("--regions names {twice} twice")));
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
    let mut waves: Vec<WaveBody> = Vec::new();
    for text in &args.wave {
        let (selector, size) = text.rsplit_once('@').unwrap_or((text, "all"));
        // Refused here, before anything is created, with the rule and an example.
        parse::<tidegate_domain::selector::Selector>(selector)?;
        let mut name: String = text.chars().take(54).collect();
        // Two batches of one selector are told apart by their place.
        if waves.iter().any(|wave| wave.name == name) {
            name += &format!(" #{}", waves.len() + 1);
        }
        waves.push(WaveBody {
            name,
            selector: selector.into(),
            size: size.into(),
        });
    }
    Ok(waves)
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
    let parsed: WaveSize = parse(size)?;
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

//! Presets: named ways to roll out, as small TOML files with a sentence of intent.

use std::collections::BTreeMap;

use serde::Deserialize;
use tidegate_domain::rollout::{Wave, WaveSize};
use tidegate_domain::selector::Selector;
use tidegate_protocol::Region;

use crate::{Invalid, PolicyBody};

const FILES: [(&str, &str); 4] = [
    ("canary-20", include_str!("../presets/canary-20.toml")),
    (
        "regional-batches",
        include_str!("../presets/regional-batches.toml"),
    ),
    ("exponential", include_str!("../presets/exponential.toml")),
    ("all-at-once", include_str!("../presets/all-at-once.toml")),
];

/// A preset.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its purpose.
    pub intent: String,
    wave: Vec<PresetWave>,
    /// Rules of pace and gate; the caller's own rules take precedence.
    pub policy: PolicyBody,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetWave {
    /// `region`: repeated for each region, in order.
    each: Option<Each>,
    name: String,
    #[serde(default)]
    selector: String,
    /// A wave size, or `batch`: batches of the size given by the caller.
    size: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Each {
    Region,
}

/// Returns all presets with their names.
pub fn all() -> Result<Vec<(&'static str, Preset)>, Invalid> {
    FILES
        .iter()
        .map(|(name, text)| Ok((*name, toml::from_str(text).map_err(Invalid::new)?)))
        .collect()
}

/// Returns a preset by name.
pub fn find(name: &str) -> Result<Preset, Invalid> {
    let all = all()?;
    let names: Vec<&str> = all.iter().map(|(n, _)| *n).collect();
    let names = names.join(", ");
    all.into_iter()
        .find(|(n, _)| *n == name)
        .map(|(_, preset)| preset)
        .ok_or_else(|| Invalid::new(format!("there is no preset {name:?}; available: {names}")))
}

impl Preset {
    /// Builds the waves for regions in order; `devices` is the number of devices that the release
    /// applies to in each.
    pub fn waves(
        &self,
        regions: &[Region],
        batch: WaveSize,
        devices: &BTreeMap<Region, u64>,
    ) -> Result<Vec<Wave>, Invalid> {
        let mut waves = Vec::new();
        for wave in &self.wave {
            let base: Selector = wave.selector.parse().map_err(Invalid::new)?;
            match wave.each {
                None => waves.push(Wave {
                    name: wave.name.clone(),
                    selector: base,
                    size: wave.size.parse().map_err(Invalid::new)?,
                }),
                Some(Each::Region) if regions.is_empty() => {
                    let text = "this preset needs a list of regions, in order";
                    return Err(Invalid::new(text));
                }
                Some(Each::Region) => {
                    for region in regions {
                        let count = devices.get(region).copied().unwrap_or(0);
                        waves.extend(of_region(wave, region, batch, count)?);
                    }
                }
            }
        }
        Ok(waves)
    }
}

fn of_region(
    wave: &PresetWave,
    region: &Region,
    batch: WaveSize,
    devices: u64,
) -> Result<Vec<Wave>, Invalid> {
    let batched = wave.size == "batch";
    let size: WaveSize = if batched {
        batch
    } else {
        wave.size.parse().map_err(Invalid::new)?
    };
    let pieces = match size {
        WaveSize::Count(count) if batched => devices.div_ceil(count.max(1)),
        WaveSize::Share(share) if batched => u64::from(10_000u32.div_ceil(share.get().max(1))),
        _ => 1,
    }
    .max(1);
    Ok((1..=pieces)
        .map(|number| Wave {
            name: wave
                .name
                .replace("{region}", region.as_str())
                .replace("{batches}", &pieces.to_string())
                .replace("{batch}", &number.to_string()),
            selector: Selector::region(region),
            // The last batch takes the remaining devices, including those that joined in the
            // meantime.
            size: if batched && number == pieces {
                WaveSize::All
            } else {
                size
            },
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions() -> Vec<Region> {
        ["NA", "EU"].iter().map(|r| r.parse().unwrap()).collect()
    }

    #[test]
    fn every_preset_reads_and_says_what_it_is_for() {
        for (name, preset) in all().unwrap() {
            assert!(preset.intent.ends_with('.'), "{name}");
            let waves = preset.waves(&regions(), WaveSize::Count(5_000), &BTreeMap::new());
            assert!(!waves.unwrap().is_empty(), "{name}");
        }
    }

    #[test]
    fn batches_are_as_many_as_a_region_needs() {
        let devices = BTreeMap::from([
            ("NA".parse().unwrap(), 12_000),
            ("EU".parse().unwrap(), 5_000),
        ]);
        let waves =
            find("regional-batches")
                .unwrap()
                .waves(&regions(), WaveSize::Count(5_000), &devices);
        let names: Vec<String> = waves
            .unwrap()
            .iter()
            .map(|w| format!("{} {}", w.name, w.size))
            .collect();
        assert_eq!(
            names,
            ["NA 1/3 5000", "NA 2/3 5000", "NA 3/3 all", "EU 1/1 all"]
        );
    }

    #[test]
    fn a_fifth_of_each_region_comes_before_the_rest_of_any() {
        let waves = find("canary-20")
            .unwrap()
            .waves(&regions(), WaveSize::All, &BTreeMap::new());
        let names: Vec<String> = waves.unwrap().iter().map(|w| w.name.clone()).collect();
        assert_eq!(names, ["NA 20%", "EU 20%", "NA", "EU"]);
    }
}
